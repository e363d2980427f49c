import { createHash, createPublicKey, X509Certificate } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type KeyProvider, openKeys } from 'attested/keys';
import { makeCredential, parsePublic, verifyCertify, verifyQuote } from 'attested/tpm2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createCommand } from '../../src/keys/tpm/commands.ts';
import { createDevice } from '../../src/keys/tpm/device.ts';
import { derAt } from '../../src/keys/tpm/endorsement.ts';
import type { TpmAddress } from '../../src/keys/tpm/protocol.ts';
import { shareTpm } from '../../src/keys/tpm/registry.ts';
import { ekCertificateIndexes, srkTemplate } from '../../src/tpm2/templates.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { makePlace, type Place } from './places.ts';

const extraData = createHash('sha256').update('a challenge').digest();

describe.skipIf(skipTpm)('what a TPM proves', () => {
  let tpm: Swtpm;
  let place: Place;
  let keys: KeyProvider;
  beforeAll(async () => {
    [tpm, place] = [await startSwtpm(), await makePlace()];
    keys = await openKeys('tpm', { directory: place.directory, tpm: { tcti: tpm.tcti } });
  }, 60_000);
  afterAll(async () => {
    await keys.close();
    await tpm.stop();
    await place.dispose();
  });

  test('the endorsement key has a certificate for it, from its maker', async () => {
    const { publicArea, certificate, chain } = await keys.tpm!.endorsementKey();
    const found = new X509Certificate(certificate!);
    const issuer = new X509Certificate(tpm.roots.issuer);
    expect(found.verify(issuer.publicKey)).toBe(true);
    expect(found.raw.equals(certificate!)).toBe(true); // nothing of the padding
    const { publicJwk } = parsePublic(publicArea);
    expect(found.publicKey.export({ format: 'jwk' })).toEqual(publicJwk);
    expect(chain).toEqual([]);
  });

  test('the attestation key is made once for a directory, restricted, and the same for all who ask at once', async () => {
    const other = await openKeys('tpm', { directory: place.directory, tpm: { tcti: tpm.tcti } });
    const areas = await Promise.all([
      keys.tpm!.attestationKey(),
      other.tpm!.attestationKey(),
      keys.tpm!.attestationKey(),
    ]);
    await other.close();
    for (const area of areas) expect(Buffer.from(area)).toEqual(Buffer.from(areas[0]!));
    expect(parsePublic(areas[0]!).attributes).toMatchObject({ restricted: true, sign: true, fixedTPM: true });
    areas[0]!.fill(0); // a copy
    expect((await keys.tpm!.attestationKey())[0]).toBe(0);
    expect(parsePublic(await keys.tpm!.attestationKey()).type).toBe('ecc');
    expect(await keys.listKeys()).toEqual([]);
  });

  test.each(['ES256', 'ES384', 'RS256'] as const)('certify: a key for %s is in the TPM', async (alg) => {
    const signer = await keys.createKey({ label: alg, alg });
    const { attest, signature, publicArea } = await keys.tpm!.certify(alg, extraData);
    expect(parsePublic(publicArea).publicJwk).toEqual(signer.publicJwk);
    const ak = await keys.tpm!.attestationKey();
    expect(() => verifyCertify({ attest, signature, ak, subject: publicArea, extraData })).not.toThrow();
    expect(() =>
      verifyCertify({ attest, signature, ak, subject: publicArea, extraData: new Uint8Array(32) }),
    ).toThrow();
  });

  test('certify: no key, no proof', async () => {
    await expect(keys.tpm!.certify('nobody', extraData)).rejects.toMatchObject({ code: 'key_not_found' });
  });

  test('quote: tpm2_checkquote finds it good, and another challenge not', async () => {
    const { attest, signature, pcrs } = await keys.tpm!.quote({ sha256: [0, 1, 7] }, extraData);
    const jwk = parsePublic(await keys.tpm!.attestationKey()).publicJwk;
    const pem = createPublicKey({ key: { ...jwk }, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
    const values = Buffer.concat([0, 1, 7].map((pcr) => Buffer.from(pcrs.sha256![pcr]!)));
    for (const [name, content] of Object.entries({ attest, signature, pem, values })) {
      await writeFile(join(tpm.directory, `q.${name}`), content);
    }
    const qualification = extraData.toString('hex');
    const check = (hex: string) =>
      tpm.tools('tpm2_checkquote', '-u', 'q.pem', '-m', 'q.attest', '-s', 'q.signature', '-g', 'sha256', '-q', hex);
    await check(qualification);
    await expect(check('00'.repeat(32))).rejects.toThrow();
  });

  test('quote: with the values that it was made over, also while PCRs change', async () => {
    const ak = await keys.tpm!.attestationKey();
    let extending = true;
    const extender = (async () => {
      while (extending) await tpm.tools('tpm2_pcrextend', `23:sha256=${'22'.repeat(32)}`);
    })();
    for (let i = 0; i < 10; i++) {
      const { attest, signature, pcrs } = await keys.tpm!.quote({ sha256: [23, 0], sha384: [7] }, extraData);
      expect(() => verifyQuote({ attest, signature, ak, extraData, pcrs })).not.toThrow();
      expect(Object.keys(pcrs.sha256!)).toEqual(['0', '23']);
      expect(pcrs.sha384![7]).toHaveLength(48);
    }
    extending = false;
    await extender;
  });

  test.each([
    ['nothing', {}],
    ['an empty bank', { sha256: [] }],
    ['a PCR that there is not', { sha256: [31] }],
    ['a bank that this TPM does not have', { sha512: [0] }],
  ])('quote: refused: %s', async (_what, selection) => {
    await expect(keys.tpm!.quote(selection, extraData)).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  test('activate: the secret that was made for this EK and AK', async () => {
    const { publicArea: ek } = await keys.tpm!.endorsementKey();
    const { name } = parsePublic(await keys.tpm!.attestationKey());
    const secret = createHash('sha256').update('a secret').digest();
    const { credentialBlob, encryptedSecret } = makeCredential({ ek, name, secret });
    expect(Buffer.from(await keys.tpm!.activate(credentialBlob, encryptedSecret))).toEqual(secret);

    const other = Uint8Array.from(name);
    other[5]! ^= 1;
    const wrong = makeCredential({ ek, name: other, secret });
    const activating = keys.tpm!.activate(wrong.credentialBlob, wrong.encryptedSecret);
    const refused = { code: 'invalid_argument', message: expect.stringContaining('not made for this TPM') };
    await expect(activating).rejects.toMatchObject(refused);
    for (const [blob, encrypted] of [
      [credentialBlob, encryptedSecret.subarray(0, -1)],
      [credentialBlob.subarray(0, -1), encryptedSecret],
      [credentialBlob, encryptedSecret.map((byte) => byte ^ 1)],
    ] as const) {
      await expect(keys.tpm!.activate(blob, encrypted)).rejects.toMatchObject({ name: 'AttestedError' });
    }
  });

  describe('each kind of endorsement key', () => {
    // what findEndorsementKey would choose on a TPM with fewer certificates
    const deviceWith = async <T>(
      kind: keyof typeof ekCertificateIndexes | undefined,
      salted: boolean,
      use: (device: ReturnType<typeof createDevice>) => Promise<T>,
    ) => {
      const shared = shareTpm({
        tcti: tpm.tcti,
        managed: false,
        srkTemplate: srkTemplate(),
        srkPrefixes: [],
      } satisfies TpmAddress);
      const whole = createCommand(shared.request, 20_000);
      const hidden = Object.entries(ekCertificateIndexes)
        .filter(([name]) => name !== kind)
        .map(([, index]) => index as number);
      const command: typeof whole = async (operation, args, held) =>
        operation === 'nvRead' && hidden.includes(args[0] as number)
          ? (undefined as never)
          : whole(operation, args, held);
      try {
        return await use(
          createDevice({
            command,
            directory: join(place.directory, 'tpm-keys'),
            use: { keyAuth: undefined, salted },
            assertOpen: () => undefined,
            keyOf: async () => undefined,
          }),
        );
      } finally {
        await shared.release();
      }
    };

    const kinds = ['RSA-2048', 'P-256', 'P-384', undefined] as const;
    const rows = kinds.flatMap((kind) => [false, true].map((salted) => [kind, salted] as const));
    test.each(rows)('%s: found and activated; in a salted session: %s', (kind, salted) =>
      deviceWith(kind, salted, async (device) => {
        const { publicArea, certificate } = await device.endorsementKey();
        expect(certificate === undefined).toBe(kind === undefined);
        const ek = parsePublic(publicArea);
        expect(ek.type === 'ecc' ? ek.parameters.curve : 'RSA-2048').toBe(kind ?? 'P-256');
        const { name } = parsePublic(await device.attestationKey());
        const secret = Buffer.alloc(32, 9);
        const { credentialBlob, encryptedSecret } = makeCredential({ ek: publicArea, name, secret });
        expect(Buffer.from(await device.activate(credentialBlob, encryptedSecret))).toEqual(secret);
      }),
    );
  });

  test('an endorsement certificate for another key is told in plain words', async () => {
    const machine = await startSwtpm();
    await machine.tools('tpm2_changeeps');
    const opened = await openKeys('tpm', {
      directory: join(place.root, 'elsewhere'),
      tpm: { tcti: machine.tcti },
    });
    await expect(opened.tpm!.endorsementKey()).rejects.toMatchObject({
      code: 'key_store_unavailable',
      message: expect.stringContaining('is for another key'),
    });
    await opened.close();
    await machine.stop();
  });

  test('the event log is there where the system shows one', async () => {
    const shown = await readFile('/sys/kernel/security/tpm0/binary_bios_measurements').catch(() => undefined);
    const log = await keys.tpm!.eventLog();
    expect(log && Buffer.from(log)).toEqual(shown);
  });

  test('after close nothing is proved', async () => {
    const other = await openKeys('tpm', { directory: place.directory, tpm: { tcti: tpm.tcti } });
    await other.close();
    const device = other.tpm!;
    const refused = { code: 'key_store_unavailable' };
    await expect(device.endorsementKey()).rejects.toMatchObject(refused);
    await expect(device.attestationKey()).rejects.toMatchObject(refused);
    await expect(device.certify('ES256', extraData)).rejects.toMatchObject(refused);
    await expect(device.quote({ sha256: [0] }, extraData)).rejects.toMatchObject(refused);
    await expect(device.activate(extraData, extraData)).rejects.toMatchObject(refused);
    await expect(device.eventLog()).rejects.toMatchObject(refused);
  });
});

describe('certificates in NV', () => {
  const sequence = Buffer.from([0x30, 0x03, 1, 2, 3]);
  test.each([
    ['alone', sequence, 5],
    ['padded', Buffer.concat([sequence, Buffer.alloc(9, 0xff)]), 5],
    ['long form', Buffer.concat([Buffer.from([0x30, 0x81, 200]), Buffer.alloc(210)]), 203],
    ['longer form', Buffer.concat([Buffer.from([0x30, 0x82, 1, 0]), Buffer.alloc(300)]), 260],
  ])('%s', (_how, bytes, length) => {
    expect(derAt(bytes, 0)).toHaveLength(length);
  });
  test.each([
    ['empty', []],
    ['only padding', [0xff, 0xff]],
    ['cut short', [0x30, 0x03, 1]],
    ['cut in its length', [0x30, 0x82, 1]],
    ['of no length', [0x30, 0x80, 0, 0]],
    ['longer than anything', [0x30, 0x84, 0, 0, 0, 1, 1]],
  ])('none: %s', (_how, bytes) => {
    expect(derAt(Uint8Array.from(bytes), 0)?.length ?? 0).toBeLessThan(3);
  });
});
