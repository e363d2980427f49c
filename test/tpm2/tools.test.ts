/** tpm2-tools and a TPM as independent peers: what they make passes here, what is made here passes there. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { SignatureAlgorithm } from '../../src/core/algorithms.ts';
import { verifySignature } from '../../src/platform/crypto.ts';
import {
  akTemplate,
  type Credential,
  describeTpmCode,
  type EkKind,
  ekTemplate,
  instanceKeyTemplate,
  jwsSignature,
  makeCredential,
  type PcrValues,
  parsePublic,
  parseSignature,
  verifyCertify,
  verifyQuote,
} from '../../src/tpm2/index.ts';
import { soundKey } from '../../src/tpm2/refusal.ts';
import { concat, Reader, sized, u32 } from '../../src/tpm2/wire.ts';
import { expectRefusal } from '../support/errors.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { forgeQuote, openCredential, softwareAk, softwareEk, somePcrs } from './forge.ts';
import { createPrimary, fileOf, readPublic } from './raw.ts';

/** The file of tpm2_makecredential and tpm2_activatecredential: a magic, a version, both TPM2Bs. */
const MAGIC = concat(u32(0xbadcc0de), u32(1));

const toFile = ({ credentialBlob, encryptedSecret }: Credential): Uint8Array =>
  concat(MAGIC, sized(credentialBlob), sized(encryptedSecret));

function fromFile(file: Uint8Array): Credential {
  const reader = new Reader(file, 'a credential file');
  expect(reader.take(8)).toEqual(MAGIC);
  const credential = { credentialBlob: reader.sized(512), encryptedSecret: reader.sized(512) };
  reader.end();
  return credential;
}

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** What tpm2_certify puts in as extra data: it has no option for it. */
const TOOL_DATA = Uint8Array.of(0x00, 0xff, 0x55, 0xaa);
const bootPcrs = [0, 1, 2, 3, 4, 5, 6, 7];

describe.skipIf(skipTpm)('with tpm2-tools', { timeout: 30_000 }, () => {
  let tpm: Swtpm;
  /** A TPM has three slots, and each context file that a tool loads takes one. */
  const flush = () => tpm.tools('tpm2_flushcontext', '-t');
  beforeAll(async () => {
    tpm = await startSwtpm();
    await tpm.tools('tpm2_createprimary', '-C', 'o', '-c', 'srk.ctx');
    await tpm.tools('tpm2_createek', '-G', 'rsa', '-c', 'ek.ctx', '-u', 'ek.pub');
    await flush();
    for (const [name, ...options] of [
      ['ecdsa', '-G', 'ecc', '-g', 'sha256', '-s', 'ecdsa'],
      ['rsassa', '-G', 'rsa', '-g', 'sha256', '-s', 'rsassa'],
      ['rsapss', '-G', 'rsa', '-g', 'sha256', '-s', 'rsapss'],
    ]) {
      await tpm.tools(
        'tpm2_createak',
        '-C',
        'ek.ctx',
        '-c',
        `${name}.ctx`,
        ...options,
        '-u',
        `${name}.pub`,
        '-n',
        `${name}.name`,
      );
      await flush();
    }
    const attributes = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign';
    await tpm.tools(
      'tpm2_create',
      '-C',
      'srk.ctx',
      '-G',
      'ecc256:ecdsa-sha256',
      '-a',
      attributes,
      '-u',
      'key.pub',
      '-r',
      'key.priv',
      '-c',
      'key.ctx',
    );
    await flush();
    await tpm.tools('tpm2_pcrextend', `7:sha256=${'5a'.repeat(32)},sha1=${'5a'.repeat(20)}`);
  }, 60_000);
  afterAll(async () => tpm?.stop());

  const file = (name: string) => fileOf(tpm, name);
  const put = (name: string, bytes: Uint8Array) => writeFileSync(join(tpm.directory, name), bytes);

  /** PCR values as tpm2_pcrread gives them. */
  async function pcrValues(bank: 'sha1' | 'sha256', numbers: readonly number[], length: number): Promise<PcrValues> {
    await tpm.tools('tpm2_pcrread', `${bank}:${numbers.join(',')}`, '-o', 'pcrs');
    const values = file('pcrs');
    return { [bank]: Object.fromEntries(numbers.map((pcr, i) => [pcr, values.slice(i * length, (i + 1) * length)])) };
  }

  describe.each(['ecdsa', 'rsassa', 'rsapss'] as const)('an AK of %s by tpm2_createak', (ak) => {
    afterEach(flush);

    test('has the Name that the TPM gives it', () => {
      expect(parsePublic(file(`${ak}.pub`)).name).toEqual(file(`${ak}.name`));
    });

    test('TPM2_Certify verifies', async () => {
      await tpm.tools(
        'tpm2_certify',
        '-c',
        'key.ctx',
        '-C',
        `${ak}.ctx`,
        '-g',
        'sha256',
        '--scheme',
        ak,
        '-o',
        'attest',
        '-s',
        'sig',
      );
      const input = { attest: file('attest'), signature: file('sig'), ak: file(`${ak}.pub`), subject: file('key.pub') };
      const result = verifyCertify({ ...input, extraData: TOOL_DATA });
      expect(result).toMatchObject({ signatureScheme: ak, akAttributes: 'checked', decrypt: false });
      expect(result.akName).toEqual(file(`${ak}.name`));
      await expectRefusal(() => verifyCertify({ ...input, subject: file('ecdsa.pub') }), {
        code: 'tpm_refused',
        rule: 'TPM attestation 6',
      });
    });

    test('TPM2_Quote verifies', async () => {
      const nonce = new Uint8Array(32).fill(0x11);
      const quote = ['-q', toHex(nonce), '-m', 'msg', '-s', 'sig', '-g', 'sha256', '--scheme', ak];
      await tpm.tools('tpm2_quote', '-c', `${ak}.ctx`, '-l', 'sha1:7,0+sha256:0,1,2,3,4,5,6,7', ...quote);
      const pcrs = { ...(await pcrValues('sha1', [0, 7], 20)), ...(await pcrValues('sha256', bootPcrs, 32)) };
      const input = { attest: file('msg'), signature: file('sig'), ak: file(`${ak}.pub`), extraData: nonce };
      const result = verifyQuote({ ...input, pcrs });
      expect(result.pcrs).toEqual(pcrs);
      expect(result.clockInfo.clock).toBeGreaterThan(0n);
      await expectRefusal(() => verifyQuote({ ...input, pcrs: { sha256: pcrs.sha256! } }), {
        code: 'tpm_refused',
        rule: 'TPM attestation 8',
      });
    });
  });

  test('a key that signs only for the TPM cannot be made to sign a forged structure', async () => {
    const attest = concat(u32(0xff544347), new Uint8Array(64));
    put('digest', createHash('sha256').update(attest).digest());
    const attempt = tpm.tools('tpm2_sign', '-c', 'ecdsa.ctx', '-g', 'sha256', '-d', '-o', 'sig', 'digest');
    const { stderr } = (await attempt.catch((error: unknown) => error)) as { stderr: string };
    await flush();
    expect(stderr).toMatch(/0x3e0/i);
    expect(describeTpmCode(0x3e0).text).toContain('a restricted key signs only');
  });

  test.each(['ES256', 'ES384', 'PS256', 'RS256'] as const)('%s: a TPM signature becomes one of JWS', async (alg) => {
    const handle = await createPrimary(tpm, 'owner', instanceKeyTemplate(alg));
    const { publicJwk } = parsePublic((await readPublic(tpm, handle)).file);
    const digest = alg === 'ES384' ? 'sha384' : 'sha256';
    const scheme = { ES256: 'ecdsa', ES384: 'ecdsa', PS256: 'rsapss', RS256: 'rsassa' }[alg];
    for (let i = 0; i < 8; i++) {
      put('message', Uint8Array.from(Buffer.from(`message ${i}`)));
      await tpm.tools('tpm2_sign', '-c', handle, '-g', digest, '-s', scheme, '-o', 'sig', 'message');
      const signature = jwsSignature(parseSignature(file('sig')), alg);
      const { key } = soundKey(publicJwk, 7);
      expect(verifySignature(alg, key, `message ${i}`, signature)).toBe(true);
    }
    await tpm.tools('tpm2_flushcontext', handle);
    const other: SignatureAlgorithm = alg === 'ES256' ? 'ES384' : 'ES256';
    await expectRefusal(() => jwsSignature(parseSignature(file('sig')), other), { code: 'tpm_malformed' });
  });

  test('tpm2_checkquote accepts a quote made here, and refuses it as we do', async () => {
    const ak = softwareAk();
    const nonce = new Uint8Array(16).fill(9);
    const pcrs = somePcrs('sha256', 0, 7);
    const { attest, signature } = forgeQuote({ ak, pcrs, extraData: nonce });
    put('msg', attest);
    put('sig', signature);
    put('soft.pub', sized(ak.publicArea));
    put('values', concat(pcrs.sha256![0]!, pcrs.sha256![7]!));
    const check = (qualification: Uint8Array, list = 'sha256:0,7') =>
      tpm.tools(
        'tpm2_checkquote',
        '-u',
        'soft.pub',
        '-m',
        'msg',
        '-s',
        'sig',
        '-q',
        toHex(qualification),
        '-g',
        'sha256',
        '-F',
        'values',
        '-f',
        'values',
        '-l',
        list,
      );
    await check(nonce);
    expect(verifyQuote({ attest, signature, ak: ak.publicArea, extraData: nonce, pcrs }).pcrs).toEqual(pcrs);
    await expect(check(nonce.slice(1))).rejects.toThrow();
  });

  /** An endorsement key at a persistent handle; the tools' files hold no more than three keys at a time. */
  async function persistentEk(kind: EkKind): Promise<{ handle: string; publicArea: Uint8Array }> {
    const transient = await createPrimary(tpm, 'endorsement', ekTemplate(kind));
    const { file: publicArea } = await readPublic(tpm, transient);
    const handle = { 'RSA-2048': '0x81010011', 'P-256': '0x81010012', 'P-384': '0x81010013' }[kind];
    await tpm.tools('tpm2_evictcontrol', '-C', 'o', '-c', transient, handle);
    await tpm.tools('tpm2_flushcontext', transient);
    return { handle, publicArea };
  }

  describe.each(['RSA-2048', 'P-256', 'P-384'] as const)('an endorsement key %s', (kind) => {
    let ek: { handle: string; publicArea: Uint8Array };
    let ak: { ctx: string; name: Uint8Array };
    beforeAll(async () => {
      ek = await persistentEk(kind);
      const transient = await createPrimary(tpm, 'owner', akTemplate());
      const { file: area } = await readPublic(tpm, transient);
      ak = { ctx: transient, name: parsePublic(area).name };
    });
    afterAll(async () => {
      await flush();
    });

    async function activate(credential: Credential): Promise<Uint8Array> {
      put('cred', toFile(credential));
      const policy = kind !== 'P-384'; // that one takes its empty auth value as well
      if (policy) {
        await tpm.tools('tpm2_startauthsession', '--policy-session', '-S', 'session');
        await tpm.tools('tpm2_policysecret', '-S', 'session', '-c', 'e');
      }
      const auth = policy ? ['-P', 'session:session'] : [];
      try {
        await tpm.tools(
          'tpm2_activatecredential',
          '-c',
          ak.ctx,
          '-C',
          ek.handle,
          '-i',
          'cred',
          '-o',
          'opened',
          ...auth,
        );
      } finally {
        if (policy) await tpm.tools('tpm2_flushcontext', 'session');
      }
      return file('opened');
    }

    test.each([1, 16, 32])('opens a secret of %i bytes', async (length) => {
      const secret = new Uint8Array(length).fill(0x5e);
      expect(await activate(makeCredential({ ek: ek.publicArea, name: ak.name, secret }))).toEqual(secret);
    });

    test('does not open one for another key, or one that was changed', async () => {
      const secret = new Uint8Array(32).fill(0x5e);
      const other = makeCredential({ ek: ek.publicArea, name: softwareAk().parsed.name, secret });
      await expect(activate(other)).rejects.toThrow(/integrity/);
      const { credentialBlob, encryptedSecret } = makeCredential({ ek: ek.publicArea, name: ak.name, secret });
      credentialBlob[credentialBlob.length - 1]! ^= 1;
      await expect(activate({ credentialBlob, encryptedSecret })).rejects.toThrow(/integrity/);
    });

    test('a secret by TPM2_MakeCredential has our structure, and opens with the key it is for alone', async () => {
      const software = softwareEk(kind);
      const secret = new Uint8Array(20).fill(3);
      put('soft.pub', sized(software.publicArea));
      put('secret', secret);
      const subject = softwareAk().parsed.name;
      await tpm.tools('tpm2_makecredential', '-e', 'soft.pub', '-s', 'secret', '-n', toHex(subject), '-o', 'made');
      const theirs = fromFile(file('made'));
      const ours = makeCredential({ ek: software.publicArea, name: subject, secret });
      expect(theirs.credentialBlob.length).toBe(ours.credentialBlob.length);
      expect(theirs.encryptedSecret.length).toBe(ours.encryptedSecret.length);
      expect(openCredential(software, subject, theirs)).toEqual(secret);
      expect(openCredential(software, subject, ours)).toEqual(secret);
      expect(openCredential(software, softwareAk().parsed.name, theirs)).toBeUndefined();
    });
  });
});
