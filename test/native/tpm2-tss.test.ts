import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { NO_RESPONSE, openEsys, type SessionOptions } from '../../src/native/tpm2-tss/index.ts';
import {
  akTemplate,
  type EkKind,
  ekCertificateIndexes,
  ekTemplate,
  encodePublic,
  instanceKeyTemplate,
  makeCredential,
  type PublicArea,
  parsePublic,
  sealTemplate,
  srkTemplate,
  verifyCertify,
  verifyQuote,
} from '../../src/tpm2/index.ts';
import { skipTpm } from '../support/swtpm.ts';
import { commandCode, startRelay } from '../support/swtpm-relay.ts';
import { bytes, handles, hex, isSigned, LOADED_SESSION, newKey, SHA256, TRANSIENT, withTpm } from './support.ts';

const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest());
/** A storage key's, with room for the TPM's own point. */
const storageTemplate = encodePublic({
  ...parsePublic(srkTemplate()),
  unique: { x: new Uint8Array(0), y: new Uint8Array(0) },
} as PublicArea);
/** TPM_CC_PCR_Read */
const PCR_READ = 0x17e;
const refusedWith = (code: number) => expect.objectContaining({ name: 'TpmError', code });

describe.skipIf(skipTpm)('tpm2-tss: keys', () => {
  test('a key is made, loaded, signs, and is what readPublic says', () =>
    withTpm(async (esys) => {
      const { handle, object } = await newKey(esys);
      const { public: area, name } = await esys.readPublic(handle);
      expect(hex(area)).toBe(hex(object.public.slice(2)));
      expect(hex(name)).toBe(hex(parsePublic(object.public).name));
      expect(isSigned('hello', await esys.sign(handle, sha256('hello')), object.public)).toBe(true);
      expect(isSigned('hullo', await esys.sign(handle, sha256('hello')), object.public)).toBe(false);
      await esys.flush(handle);
      await expect(esys.readPublic(handle)).rejects.toEqual(refusedWith(0x070018));
      expect(await handles(esys, TRANSIENT)).toEqual([]);
    }));

  test('a key comes back from its blobs after the TPM was off, and in no other TPM', async () => {
    const object = await withTpm(async (esys, tpm) => {
      const { object } = await newKey(esys);
      await tpm.restart();
      const again = await openEsys(tpm.tcti);
      const srk = await again.createPrimary('owner', srkTemplate());
      const handle = await again.load(srk.handle, object);
      expect(isSigned('after', await again.sign(handle, sha256('after')), object.public)).toBe(true);
      await again.close();
      return object;
    });
    await withTpm(
      async (esys) => {
        const srk = await esys.createPrimary('owner', srkTemplate());
        await expect(esys.load(srk.handle, object)).rejects.toEqual(refusedWith(0x1df));
      },
      { fresh: true },
    );
  });

  test('every algorithm of the templates, and a scheme that is named', () =>
    withTpm(async (esys) => {
      for (const alg of ['ES256', 'ES384', 'PS256', 'RS256'] as const) {
        const { handle, object } = await newKey(esys, instanceKeyTemplate(alg));
        const digest = alg === 'ES384' ? createHash('sha384').update('x').digest() : sha256('x');
        const signature = await esys.sign(handle, digest);
        expect(signature.length, alg).toBeGreaterThan(64);
        if (alg === 'ES256') {
          const named = await esys.sign(handle, digest, { scheme: Uint8Array.of(0x00, 0x18, 0x00, 0x0b) });
          expect(isSigned('x', named, object.public)).toBe(true);
          const other = Uint8Array.of(0x00, 0x18, 0x00, 0x0c);
          await expect(esys.sign(handle, digest, { scheme: other })).rejects.toEqual(refusedWith(0x2d2));
        }
        await esys.flush(handle);
      }
    }));

  test('a primary key is the same each time, and the one that tpm2-tools makes; another hierarchy has another', () =>
    withTpm(async (esys, tpm) => {
      const first = await esys.createPrimary('owner', storageTemplate);
      await esys.flush(first.handle);
      const attributes = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt';
      await tpm.tools('tpm2_createprimary', '-C', 'o', '-G', 'ecc', '-a', attributes, '-c', 'srk.ctx');
      await tpm.tools('tpm2_readpublic', '-c', 'srk.ctx', '-o', 'srk.pub', '-f', 'tss');
      const theirs = parsePublic(new Uint8Array(readFileSync(join(tpm.directory, 'srk.pub'))));
      expect(hex(first.public)).toBe(hex(theirs.bytes));
      await tpm.restart();
      const again = await openEsys(tpm.tcti);
      expect(hex((await again.createPrimary('owner', storageTemplate)).public)).toBe(hex(first.public));
      expect(hex((await again.createPrimary('null', storageTemplate)).public)).not.toBe(hex(first.public));
      await again.close();
    }));

  test('a persistent key is used by its handle, and stays when the handle is closed', () =>
    withTpm(async (esys, tpm) => {
      await tpm.tools('tpm2_createprimary', '-C', 'o', '-G', 'ecc', '-c', 'srk.ctx');
      await tpm.tools('tpm2_evictcontrol', '-C', 'o', '-c', 'srk.ctx', '0x81000001');
      await tpm.tools('tpm2_flushcontext', '-t');
      const srk = await esys.fromTpmHandle(0x81000001);
      const object = await esys.create(srk, instanceKeyTemplate('ES256'));
      const key = await esys.load(srk, object);
      expect(isSigned('x', await esys.sign(key, sha256('x')), object.public)).toBe(true);
      await esys.closeHandle(srk);
      await expect(esys.readPublic(srk)).rejects.toEqual(refusedWith(0x070018));
      expect(await handles(esys, 0x81000000)).toContain(0x81000001);
      await expect(esys.fromTpmHandle(0x81000009)).rejects.toEqual(refusedWith(0x18b));
    }));

  test('what another process left behind can be flushed: objects and sessions', () =>
    withTpm(async (esys, tpm) => {
      const other = await openEsys(tpm.tcti);
      await other.createPrimary('owner', srkTemplate());
      await other.startSession({ type: 'hmac' });
      await other.close();
      for (const first of [TRANSIENT, LOADED_SESSION]) {
        const left = await handles(esys, first);
        expect(left).toHaveLength(1);
        for (const handle of left) await esys.flush(await esys.fromTpmHandle(handle));
        expect(await handles(esys, first)).toEqual([]);
      }
    }));

  test('a key with an auth value, and what is sealed with one', () =>
    withTpm(async (esys) => {
      const auth = { authValue: bytes('open sesame') };
      const { handle, object } = await newKey(esys, instanceKeyTemplate('ES256'), auth);
      expect(isSigned('x', await esys.sign(handle, sha256('x'), { auth }), object.public)).toBe(true);
      // The auth value was for that one command.
      await expect(esys.sign(handle, sha256('x'))).rejects.toEqual(refusedWith(0x9a2));
      const wrong = { authValue: bytes('open') };
      await expect(esys.sign(handle, sha256('x'), { auth: wrong })).rejects.toEqual(refusedWith(0x9a2));
      const secret = await newKey(esys, sealTemplate(), { ...auth, data: bytes('the secret') });
      expect(hex(await esys.unseal(secret.handle, { auth }))).toBe(hex(bytes('the secret')));
      await expect(esys.unseal(secret.handle)).rejects.toEqual(refusedWith(0x9a2));
    }));

  test('a parent with an auth value takes children only with it', () =>
    withTpm(async (esys) => {
      const parentAuth = { authValue: bytes('parent') };
      const parent = await newKey(esys, storageTemplate, parentAuth);
      const template = instanceKeyTemplate('ES256');
      await expect(esys.create(parent.handle, template)).rejects.toEqual(refusedWith(0x9a2));
      const child = await esys.create(parent.handle, template, { parentAuth });
      await expect(esys.load(parent.handle, child)).rejects.toEqual(refusedWith(0x9a2));
      const handle = await esys.load(parent.handle, child, { parentAuth });
      expect(isSigned('x', await esys.sign(handle, sha256('x')), child.public)).toBe(true);
    }));
});

describe.skipIf(skipTpm)('tpm2-tss: attestation', () => {
  const nonce = bytes('a challenge of the attester');

  test('certify: the structure is about that key, by that AK', () =>
    withTpm(async (esys) => {
      const ak = await newKey(esys, akTemplate());
      const key = await newKey(esys);
      const { attest, signature } = await esys.certify(key.handle, ak.handle, nonce);
      const input = { attest, signature, ak: ak.object.public, subject: key.object.public };
      verifyCertify({ ...input, extraData: nonce });
      expect(() => verifyCertify({ ...input, extraData: bytes('another') })).toThrow();
      await expect(esys.sign(ak.handle, sha256('x'))).rejects.toEqual(refusedWith(0x3e0));
    }));

  test('quote: over the PCRs as they are read, and tpm2_checkquote agrees', () =>
    withTpm(async (esys, tpm) => {
      await tpm.tools('tpm2_pcrextend', `16:sha256=${hex(sha256('boot'))}`);
      const ak = await newKey(esys, akTemplate());
      const selection = [{ hash: SHA256, pcrs: [0, 7, 16] }];
      const { attest, signature } = await esys.quote(ak.handle, nonce, selection);
      const [bank] = await esys.pcrRead(selection);
      const pcrs = { sha256: Object.fromEntries(bank?.values ?? []) };
      verifyQuote({ attest, signature, ak: ak.object.public, extraData: nonce, pcrs });
      const { publicJwk } = parsePublic(ak.object.public);
      expect(publicJwk).toBeDefined();
      for (const [name, content] of Object.entries({ attest, signature, 'ak.pub': ak.object.public })) {
        writeFileSync(join(tpm.directory, name), content);
      }
      await tpm.tools('tpm2_checkquote', '-u', 'ak.pub', '-m', 'attest', '-s', 'signature', '-q', hex(nonce));
      await expect(
        tpm.tools('tpm2_checkquote', '-u', 'ak.pub', '-m', 'attest', '-s', 'signature', '-q', hex(bytes('old'))),
      ).rejects.toThrow();
    }));

  test.each<EkKind>(['RSA-2048', 'P-256', 'P-384'])('a credential for an %s endorsement key', (kind) =>
    withTpm(async (esys) => {
      const other = await newKey(esys);
      const ak = await newKey(esys, akTemplate());
      const ek = await esys.createPrimary('endorsement', ekTemplate(kind));
      const { name } = await esys.readPublic(ak.handle);
      const secret = sha256('secret');
      const ofTpm = await esys.makeCredential(ek.handle, secret, name);
      const ours = makeCredential({ ek: ek.public, name, secret });
      for (const { credentialBlob, secret: encryptedSecret } of [ofTpm, { ...ours, secret: ours.encryptedSecret }]) {
        const session = await esys.startSession({ type: 'policy' });
        await esys.policySecret(session, 'endorsement');
        // P-384 keys may be used with their auth value; their policy is made for SHA-384 and an OR.
        const keyAuth = kind === 'P-384' ? {} : { session };
        const found = await esys.activateCredential(ak.handle, ek.handle, credentialBlob, encryptedSecret, { keyAuth });
        expect(hex(found)).toBe(hex(secret));
        await esys.flush(session);
      }
      // For another key, and of a kind whose policy was not run.
      const { credentialBlob, encryptedSecret } = ours;
      const session = await esys.startSession({ type: 'policy' });
      await esys.policySecret(session, 'endorsement');
      const keyAuth = kind === 'P-384' ? {} : { session };
      await expect(
        esys.activateCredential(other.handle, ek.handle, credentialBlob, encryptedSecret, { keyAuth }),
      ).rejects.toEqual(refusedWith(0x1df));
      if (kind === 'P-384') return;
      await expect(esys.activateCredential(ak.handle, ek.handle, credentialBlob, encryptedSecret)).rejects.toEqual(
        refusedWith(0x12f),
      );
    }),
  );
});

describe.skipIf(skipTpm)('tpm2-tss: sessions', () => {
  test('PolicyPCR: the key works while the PCRs are as they were, and not after', () =>
    withTpm(async (esys, tpm) => {
      const selection = [{ hash: SHA256, pcrs: [16] }];
      const trial = await esys.startSession({ type: 'trial' });
      await esys.policyPcr(trial, selection);
      const authPolicy = await esys.policyGetDigest(trial);
      await esys.flush(trial);
      expect(authPolicy).toHaveLength(32);
      const { handle, object } = await newKey(esys, instanceKeyTemplate('ES256', { authPolicy }));
      await expect(esys.sign(handle, sha256('x'))).rejects.toEqual(refusedWith(0x12f)); // TPM_RC_AUTH_UNAVAILABLE
      const session = await esys.startSession({ type: 'policy', continueSession: false });
      await esys.policyPcr(session, selection);
      expect(isSigned('x', await esys.sign(handle, sha256('x'), { auth: { session } }), object.public)).toBe(true);
      expect(await handles(esys, LOADED_SESSION)).toEqual([]); // it ended with the command
      await tpm.tools('tpm2_pcrextend', `16:sha256=${hex(sha256('update'))}`);
      const later = await esys.startSession({ type: 'policy' });
      await esys.policyPcr(later, selection);
      await expect(esys.sign(handle, sha256('x'), { auth: { session: later } })).rejects.toEqual(refusedWith(0x99d));
    }));

  test('PolicyAuthValue: the policy and the auth value, neither alone', () =>
    withTpm(async (esys) => {
      const trial = await esys.startSession({ type: 'trial' });
      await esys.policyAuthValue(trial);
      const authPolicy = await esys.policyGetDigest(trial);
      const authValue = bytes('auth');
      const { handle, object } = await newKey(esys, instanceKeyTemplate('ES256', { authPolicy }), { authValue });
      const signWith = async (value: Uint8Array) => {
        const session = await esys.startSession({ type: 'policy', continueSession: false });
        await esys.policyAuthValue(session);
        try {
          return await esys.sign(handle, sha256('x'), { auth: { session, authValue: value } });
        } catch (error) {
          await esys.flush(session);
          throw error;
        }
      };
      expect(isSigned('x', await signWith(authValue), object.public)).toBe(true);
      await expect(signWith(bytes('wrong'))).rejects.toEqual(refusedWith(0x9a2));
      await expect(signWith(new Uint8Array(0))).rejects.toEqual(refusedWith(0x9a2));
      await expect(esys.sign(handle, sha256('x'), { auth: { authValue } })).rejects.toEqual(refusedWith(0x12f));
    }));

  test('PolicyOR: either branch', () =>
    withTpm(async (esys) => {
      const digestOf = async (apply: (session: number) => Promise<void>) => {
        const trial = await esys.startSession({ type: 'trial' });
        await apply(trial);
        const digest = await esys.policyGetDigest(trial);
        await esys.flush(trial);
        return digest;
      };
      const owner = await digestOf((session) => esys.policySecret(session, 'owner'));
      const endorsement = await digestOf((session) => esys.policySecret(session, 'endorsement'));
      expect(hex(endorsement)).toBe('837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa');
      const authPolicy = await digestOf((session) => esys.policyOr(session, [owner, endorsement]));
      const { handle, object } = await newKey(esys, instanceKeyTemplate('ES256', { authPolicy }));
      for (const hierarchy of ['owner', 'endorsement'] as const) {
        const session = await esys.startSession({ type: 'policy', continueSession: false });
        await esys.policySecret(session, hierarchy);
        await esys.policyOr(session, [owner, endorsement]);
        expect(isSigned('x', await esys.sign(handle, sha256('x'), { auth: { session } }), object.public)).toBe(true);
      }
      const session = await esys.startSession({ type: 'policy' });
      await expect(esys.policyOr(session, [owner, endorsement])).rejects.toEqual(
        expect.objectContaining({ name: 'TpmError' }),
      );
    }));

  test.each([
    ['SHA-256', SHA256],
    ['SHA-384', 0x000c],
  ])('a session with %s serves command after command', (_, hash) =>
    withTpm(async (esys) => {
      const { handle, object } = await newKey(esys, undefined, { authValue: bytes('auth') });
      const session = await esys.startSession({ type: 'hmac', hash });
      const auth = { authValue: bytes('auth'), session };
      for (const text of ['a', 'b', 'c']) {
        expect(isSigned(text, await esys.sign(handle, sha256(text), { auth }), object.public)).toBe(true);
      }
      await esys.flush(session);
      await expect(esys.sign(handle, sha256('d'), { auth })).rejects.toEqual(refusedWith(0x070018));
    }),
  );

  /** Seals, unseals and signs through a tap; gives what an eavesdropper saw. */
  const eavesdrop = (options: SessionOptions | undefined) =>
    withTpm(async (_, tpm) => {
      const wire = await startRelay(tpm);
      const esys = await openEsys(wire.tcti);
      const srk = await esys.createPrimary('owner', srkTemplate());
      const session = options && (await esys.startSession({ ...options, saltKey: srk.handle }));
      const encrypted = session === undefined ? {} : { encryptWith: session };
      const auth = { authValue: bytes('the auth value'), ...(session === undefined ? {} : { session }) };
      const object = await esys.create(srk.handle, sealTemplate(), {
        authValue: auth.authValue,
        data: bytes('the sealed secret'),
        ...encrypted,
      });
      const handle = await esys.load(srk.handle, object);
      expect(hex(await esys.unseal(handle, { auth, ...encrypted }))).toBe(hex(bytes('the sealed secret')));
      await esys.flush(handle);
      const keyObject = await esys.create(srk.handle, instanceKeyTemplate('ES256'), encrypted);
      const key = await esys.load(srk.handle, keyObject);
      const signature = await esys.sign(key, sha256('a message'), encrypted);
      expect(isSigned('a message', signature, keyObject.public)).toBe(true);
      await esys.close();
      await wire.close();
      const saw = (wanted: Uint8Array) => ({
        command: wire.sent().includes(Buffer.from(wanted)),
        response: wire.received().includes(Buffer.from(wanted)),
      });
      return {
        secret: saw(bytes('the sealed secret')),
        auth: saw(bytes('the auth value')),
        digest: saw(sha256('a message')),
      };
    });

  test('salted and encrypted, nothing that matters is seen on the bus; without, all of it', async () => {
    const hidden = { command: false, response: false };
    expect(await eavesdrop({ type: 'hmac', encrypt: true })).toEqual({ secret: hidden, auth: hidden, digest: hidden });
    expect(await eavesdrop(undefined)).toEqual({
      secret: { command: true, response: true },
      auth: { command: true, response: false },
      digest: { command: true, response: false },
    });
  });

  test.each<EkKind>(['RSA-2048', 'P-256', 'P-384'])('the salt is encrypted to an %s key', (kind) =>
    withTpm(async (esys) => {
      const { handle, object } = await newKey(esys);
      const ek = await esys.createPrimary('endorsement', ekTemplate(kind));
      const session = await esys.startSession({ type: 'hmac', saltKey: ek.handle, encrypt: true });
      const signature = await esys.sign(handle, sha256('x'), { encryptWith: session });
      expect(isSigned('x', signature, object.public)).toBe(true);
    }),
  );
});

describe.skipIf(skipTpm)('tpm2-tss: reading', () => {
  test.each<EkKind>(['RSA-2048', 'P-256', 'P-384'])('the %s certificate in NV is of the CA and of that key', (kind) =>
    withTpm(async (esys, tpm) => {
      const content = await esys.nvRead(ekCertificateIndexes[kind]);
      const certificate = new X509Certificate(content as Uint8Array);
      expect(certificate.verify(new X509Certificate(tpm.roots.issuer).publicKey)).toBe(true);
      expect(new X509Certificate(tpm.roots.issuer).verify(new X509Certificate(tpm.roots.root).publicKey)).toBe(true);
      const ek = await esys.createPrimary('endorsement', ekTemplate(kind));
      const { publicJwk } = parsePublic(ek.public);
      const { kty, n, x, y } = certificate.publicKey.export({ format: 'jwk' });
      expect(publicJwk).toMatchObject(kty === 'RSA' ? { kty, n } : { kty, x, y });
      const index = `0x${ekCertificateIndexes[kind].toString(16)}`;
      await tpm.tools('tpm2_nvread', index, '-C', 'o', '-o', 'theirs');
      expect(hex(content as Uint8Array)).toBe(hex(readFileSync(join(tpm.directory, 'theirs'))));
    }),
  );

  test('a certificate is read where the owner has a password too', () =>
    withTpm(async (esys, tpm) => {
      const before = await esys.nvRead(0x01c00002);
      await tpm.tools('tpm2_changeauth', '-c', 'owner', 'password');
      expect(hex((await esys.nvRead(0x01c00002)) as Uint8Array)).toBe(hex(before as Uint8Array));
    }));

  test('what is larger than the TPM reads at once, what is not there, not written, not ours to read', () =>
    withTpm(async (esys, tpm) => {
      const big = Buffer.from(Array.from({ length: 1900 }, (_, at) => at % 251));
      writeFileSync(join(tpm.directory, 'big'), big);
      const define = (index: string, size: string, attributes: string, ...more: string[]) =>
        tpm.tools('tpm2_nvdefine', index, '-C', 'o', '-s', size, '-a', attributes, ...more);
      await define('0x1500001', '1900', 'ownerwrite|ownerread');
      await tpm.tools('tpm2_nvwrite', '0x1500001', '-C', 'o', '-i', 'big');
      expect(hex((await esys.nvRead(0x01500001)) as Uint8Array)).toBe(hex(big));
      expect(await esys.nvRead(0x01500002)).toBeUndefined();
      await define('0x1500003', '8', 'ownerwrite|ownerread');
      expect(await esys.nvRead(0x01500003)).toBeUndefined();
      // An index whose wrong auth values count is not tried with an empty one.
      await define('0x1500004', '3', 'ownerwrite|authread', '-p', 'password');
      writeFileSync(join(tpm.directory, 'small'), 'abc');
      await tpm.tools('tpm2_nvwrite', '0x1500004', '-C', 'o', '-i', 'small');
      await expect(esys.nvRead(0x01500004)).rejects.toEqual(expect.objectContaining({ name: 'TpmError' }));
      expect(await esys.getCapability(0x06, 0x20e, 1)).toEqual([{ property: 0x20e, value: 0 }]); // lock-out counter
      expect(await handles(esys, TRANSIENT)).toEqual([]);
    }));

  test('PCRs of several banks, more than one answer holds; a bank that is not there is empty', () =>
    withTpm(async (esys, tpm) => {
      await tpm.tools('tpm2_pcrextend', `23:sha256=${hex(sha256('x'))}`);
      const all = Array.from({ length: 24 }, (_, pcr) => pcr);
      const banks = await esys.pcrRead([
        { hash: SHA256, pcrs: all },
        { hash: 0x0004, pcrs: [0, 16] },
        { hash: 0x000d, pcrs: [0] },
      ]);
      expect(banks.map(({ hash, values }) => [hash, values.size])).toEqual([
        [SHA256, 24],
        [0x0004, 2],
        [0x000d, 0],
      ]);
      await tpm.tools('tpm2_pcrread', 'sha256:all', '-o', 'pcrs');
      const ours = Buffer.concat(all.map((pcr) => Buffer.from(banks[0]?.values.get(pcr) as Uint8Array)));
      expect(ours.equals(readFileSync(join(tpm.directory, 'pcrs')))).toBe(true);
      expect(hex(banks[0]?.values.get(23) as Uint8Array)).toBe(
        createHash('sha256').update(Buffer.alloc(32)).update(sha256('x')).digest('hex'),
      );
    }));

  test('PCR values are of one moment: extended between two answers, all are read again', () =>
    withTpm(async (_, tpm) => {
      let answers = 0;
      const relay = await startRelay(tpm, async (command) => {
        if (commandCode(command) !== PCR_READ) return;
        answers += 1;
        // PCR 1 is in the first answer and 15 in the second.
        const digest = hex(sha256(String(answers)));
        if (answers === 2) await tpm.tools('tpm2_pcrextend', `1:sha256=${digest}`, `15:sha256=${digest}`);
      });
      const esys = await openEsys(relay.tcti);
      const pcrs = Array.from({ length: 16 }, (_, pcr) => pcr);
      const values = (await esys.pcrRead([{ hash: SHA256, pcrs }]))[0]?.values;
      expect(values?.size).toBe(16);
      expect(hex(values?.get(1) as Uint8Array)).toBe(hex(values?.get(15) as Uint8Array));
      expect(hex(values?.get(1) as Uint8Array)).not.toBe(hex(values?.get(2) as Uint8Array));
      await esys.close();
      await relay.close();
    }));

  test('PCRs that never rest are given up, not waited for', () =>
    withTpm(async (_, tpm) => {
      const relay = await startRelay(tpm, async (command) => {
        if (commandCode(command) === PCR_READ) await tpm.tools('tpm2_pcrextend', `1:sha256=${hex(sha256('x'))}`);
      });
      const esys = await openEsys(relay.tcti);
      const pcrs = Array.from({ length: 16 }, (_, pcr) => pcr);
      await expect(esys.pcrRead([{ hash: SHA256, pcrs }])).rejects.toEqual(refusedWith(NO_RESPONSE));
      await esys.close();
      await relay.close();
    }));

  test('capabilities, page by page', () =>
    withTpm(async (esys) => {
      const fixed = new Map(
        (await esys.getCapability(0x06, 0x100, 1000)).map(({ property, value }) => [property, value]),
      );
      expect(fixed.get(0x100)).toBe(0x322e3000); // TPM_PT_FAMILY_INDICATOR, "2.0"
      expect(fixed.get(0x105)).toBe(0x49424d00); // TPM_PT_MANUFACTURER, "IBM"
      const commands = await esys.getCapability(0x02, 0, 1000);
      expect(commands.map(({ property }) => property)).toEqual(
        expect.arrayContaining([0x131, 0x148, 0x15d, 0x158]), // CreatePrimary, Certify, Sign, Quote
      );
      expect(new Set(commands.map(({ property }) => property)).size).toBe(commands.length);
      expect(await esys.getCapability(0x02, 0, 3)).toEqual(commands.slice(0, 3));
      expect((await esys.getCapability(0x00, 0, 1000)).map(({ property }) => property)).toContain(0x0018); // ECDSA
      expect((await esys.getCapability(0x08, 0, 1000)).map(({ value }) => value)).toContain(0x0003); // P-256
      expect(await esys.getCapability(0x05, 0, 1000)).toContainEqual({ property: SHA256, value: 0xffffff });
      expect(await esys.getCapability(0x01, 0x01000000, 1000)).toContainEqual({
        property: 0x01c00002,
        value: 0x01c00002,
      });
    }));

  test('random bytes, more than the TPM gives at once', () =>
    withTpm(async (esys) => {
      for (const length of [1, 32, 33, 1000]) expect(await esys.getRandom(length)).toHaveLength(length);
      expect(hex(await esys.getRandom(32))).not.toBe(hex(await esys.getRandom(32)));
    }));

  test('shutdown: both kinds are taken', () =>
    withTpm(async (esys, tpm) => {
      await esys.shutdown('state');
      await esys.shutdown('clear');
      await tpm.restart();
      const again = await openEsys(tpm.tcti);
      expect(await again.getRandom(8)).toHaveLength(8);
      await again.close();
    }));
});
