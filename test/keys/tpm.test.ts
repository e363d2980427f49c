import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type KeyProvider, type OpenKeysOptions, openKeys } from 'attested/keys';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { keyFileName } from '../../src/keys/files/key-files.ts';
import { authValueFor } from '../../src/keys/tpm/references.ts';
import { openEsys } from '../../src/native/tpm2-tss/index.ts';
import { makeCredential } from '../../src/tpm2/make-credential.ts';
import { parsePublic } from '../../src/tpm2/public.ts';
import { sealTemplate, srkTemplate } from '../../src/tpm2/templates.ts';
import { describeKeyProvider, verifiesInNode } from '../contract/key-provider.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { startRelay } from '../support/swtpm-relay.ts';
import { makePlace, type Place } from './places.ts';

const data = Buffer.from('the bytes to be signed');

describe.skipIf(skipTpm)('keys in a TPM', () => {
  let tpm: Swtpm;
  let keepsHelper: KeyProvider; // or each test would start a helper process of its own
  beforeAll(async () => {
    tpm = await startSwtpm();
    keepsHelper = await openKeys('tpm', { directory: join(tpm.directory, 'keys'), tpm: { tcti: tpm.tcti } });
  }, 60_000);
  afterAll(async () => {
    await keepsHelper.close();
    await tpm.stop();
  });

  const openAt = (place: Place, options: OpenKeysOptions['tpm'] = {}, on: Swtpm = tpm): Promise<KeyProvider> =>
    openKeys('tpm', { directory: place.directory, tpm: { tcti: on.tcti, ...options } });

  /** A place, and a provider in it, for one test. */
  async function inPlace<T>(
    job: (
      keys: KeyProvider,
      place: Place,
      reopen: (options?: OpenKeysOptions['tpm']) => Promise<KeyProvider>,
    ) => Promise<T>,
    options: OpenKeysOptions['tpm'] = {},
  ): Promise<T> {
    const place = await makePlace();
    const opened: KeyProvider[] = [];
    const open = async (more: OpenKeysOptions['tpm'] = options) => {
      const keys = await openAt(place, more);
      opened.push(keys);
      return keys;
    };
    try {
      return await job(await open(), place, open);
    } finally {
      for (const keys of opened) await keys.close();
      await place.dispose();
    }
  }

  const contract = async (options: OpenKeysOptions['tpm'] = {}) => {
    const place = await makePlace();
    return { provider: await openAt(place, options), reopen: () => openAt(place, options), dispose: place.dispose };
  };
  describeKeyProvider('TPM', () => contract(), ['ES256', 'ES384', 'RS256']);
  describeKeyProvider(
    'TPM with auth values, bound to PCRs, in salted sessions',
    () => contract({ keyAuth: Buffer.alloc(32, 7), pcrs: { sha256: [7] }, saltedSessions: true }),
    ['ES256'],
  );

  test('says what it is', () =>
    inPlace(async (keys, { directory }) => {
      expect(keys).toMatchObject({ kind: 'tpm', assurance: 'hardware', directory });
      expect(keys.why).toMatch(/swtpm.*without a resource manager/);
    }));

  test('PS256 has the salt that JWS wants, or is refused with the reason', () =>
    inPlace(async (keys) => {
      const made = await keys.createKey({ label: 'a key', alg: 'PS256' }).catch((error: unknown) => error);
      if (made instanceof Error) {
        expect(made).toMatchObject({ code: 'invalid_argument', message: expect.stringContaining('salt') });
        expect(await keys.listKeys()).toEqual([]);
      } else {
        const signer = made as Awaited<ReturnType<KeyProvider['createKey']>>;
        expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
      }
    }));

  test.each(['ES512', 'Ed25519', 'PS512', 'RS384'] as const)('%s is refused, and what there is is named', (alg) =>
    inPlace(async (keys) => {
      await expect(keys.createKey({ label: 'a key', alg })).rejects.toMatchObject({
        code: 'invalid_argument',
        message: expect.stringContaining('ES256, ES384, PS256, RS256'),
      });
    }),
  );

  test('sixty labels on three slots, all at once', () =>
    inPlace(async (keys) => {
      const labels = Array.from({ length: 60 }, (_, i) => `key ${i}`);
      const signers = await Promise.all(labels.map((label) => keys.createKey({ label })));
      const signatures = await Promise.all(signers.map((signer) => signer.sign(data)));
      signers.forEach((signer, i) => void expect(verifiesInNode(signer, signatures[i]!)).toBe(true));
    }));

  test('nothing stays in the TPM, and nothing persistent is made', async () => {
    const machine = await startSwtpm();
    const place = await makePlace();
    const before = await machine.tools('tpm2_getcap', 'handles-persistent');
    const keys = await openAt(place, { pcrs: { sha256: [7] }, saltedSessions: true }, machine);
    await (await keys.createKey({ label: 'a key' })).sign(data);
    await keys.tpm!.certify('a key', data);
    await keys.close();
    expect(await machine.tools('tpm2_getcap', 'handles-transient')).toBe('');
    expect(await machine.tools('tpm2_getcap', 'handles-loaded-session')).toBe('');
    expect(await machine.tools('tpm2_getcap', 'handles-persistent')).toBe(before);
    await machine.stop();
    await place.dispose();
  });

  test('what is idle gives its slots back, without being closed', () =>
    inPlace(async (keys) => {
      const signer = await keys.createKey({ label: 'a key' });
      await signer.sign(data);
      await new Promise((resolve) => setTimeout(resolve, 600));
      expect(await tpm.tools('tpm2_getcap', 'handles-transient')).toBe('');
      expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
    }));

  describe('blobs', () => {
    const blobIn = async ({ directory }: Place, suffix = '.key.json') => {
      const folder = join(directory, 'tpm-keys');
      const name = (await readdir(folder)).find((name) => name.endsWith(suffix));
      return join(folder, name!);
    };

    test('of another TPM are recognised', () =>
      inPlace(async (keys, place) => {
        await keys.createKey({ label: 'a key' });
        await keys.secrets.set('a secret', data);
        await keys.tpm!.attestationKey();
        const other = await startSwtpm({ fresh: true });
        const there = await openAt(place, {}, other);
        const refused = { code: 'key_store_wrong_secret', message: expect.stringContaining('another TPM') };
        await expect(there.getKey('a key')).rejects.toMatchObject(refused);
        await expect(there.createKey({ label: 'a key' })).rejects.toMatchObject(refused);
        await expect(there.secrets.get('a secret')).rejects.toMatchObject(refused);
        await expect(there.tpm!.quote({ sha256: [0] }, data)).rejects.toMatchObject(refused);
        expect(await there.listKeys()).toHaveLength(1);
        expect(await there.deleteKey('a key')).toBe(true);
        await there.close();
        await other.stop();
      }));

    test('cut short anywhere are named, kept, and can be deleted', () =>
      inPlace(async (keys, place) => {
        await keys.createKey({ label: 'a key' });
        const path = await blobIn(place);
        const whole = await readFile(path);
        for (const length of [0, 1, 40, 200, whole.length - 3]) {
          await writeFile(path, whole.subarray(0, length));
          await expect(keys.getKey('a key')).rejects.toMatchObject({ code: 'key_store_corrupt' });
          expect(await readFile(path)).toEqual(whole.subarray(0, length));
        }
        expect(await keys.deleteKey('a key')).toBe(true);
      }));

    test('that were altered do not sign', () =>
      inPlace(async (keys, place, reopen) => {
        await keys.createKey({ label: 'a key' });
        const other = await keys.createKey({ label: 'another' });
        await keys.deleteKey('another');
        await keys.close();
        const path = await blobIn(place);
        const blob = JSON.parse(await readFile(path, 'utf8')) as Record<string, string>;
        const flip = (text: string, at: number) => {
          const bytes = Buffer.from(text, 'base64url');
          bytes[at]! ^= 1;
          return bytes.toString('base64url');
        };
        const again = await reopen();
        const altered = [
          { public: flip(blob.public!, 9) }, // an attribute: no longer fixedTPM, or another that we never set
          { public: flip(blob.public!, 60) },
          { jwk: other.publicJwk },
          { label: 'another' },
          { alg: 'ES384' },
          { alg: 'none' },
          { format: 'something' },
          { version: 2 },
          { auth: 'yes' },
          { pcrs: { sha256: [7] } },
          { pcrs: {} },
          { more: 1 },
        ];
        for (const change of altered) {
          await writeFile(path, JSON.stringify({ ...blob, ...change }));
          await expect(again.getKey('a key')).rejects.toMatchObject({ code: 'key_store_corrupt' });
        }
        await writeFile(path, JSON.stringify({ ...blob, private: flip(blob.private!, 50) }));
        const signer = await again.getKey('a key');
        await expect(signer!.sign(data)).rejects.toMatchObject({ code: 'key_store_corrupt' });
        await writeFile(path, JSON.stringify(blob));
        const mended = await again.getKey('a key');
        expect(verifiesInNode(mended!, await mended!.sign(data))).toBe(true);
      }));

    test('that were put together from two do not sign, also while the TPM has one of them loaded', () =>
      inPlace(async (keys, place) => {
        const files: { path: string; blob: Record<string, string> }[] = [];
        for (const label of ['one', 'two']) {
          await keys.createKey({ label });
          const path = join(place.directory, 'tpm-keys', keyFileName(label));
          files.push({ path, blob: JSON.parse(await readFile(path, 'utf8')) as Record<string, string> });
        }
        const [one, two] = files as [(typeof files)[0], (typeof files)[0]];
        const signer = await keys.getKey('one');
        expect(verifiesInNode(signer!, await signer!.sign(data))).toBe(true);
        await writeFile(two.path, JSON.stringify({ ...two.blob, private: one.blob.private }));
        const mixed = await keys.getKey('two');
        await expect(mixed!.sign(data)).rejects.toMatchObject({ code: 'key_store_corrupt' });
        await writeFile(two.path, JSON.stringify({ ...one.blob }));
        await expect(keys.getKey('two')).rejects.toMatchObject({ code: 'key_store_corrupt' });
        await writeFile(two.path, JSON.stringify(two.blob));
        const mended = await keys.getKey('two');
        expect(verifiesInNode(mended!, await mended!.sign(data))).toBe(true);
      }));

    test.each([undefined, Buffer.alloc(32, 7)])(
      'with another label written inside, too, are that key under that label; an auth value stops it (%s)',
      (keyAuth) =>
        inPlace(async (keys, place) => {
          const one = await keys.createKey({ label: 'one' });
          const path = (label: string) => join(place.directory, 'tpm-keys', keyFileName(label));
          const blob = JSON.parse(await readFile(path('one'), 'utf8')) as object;
          await keys.createKey({ label: 'two' });
          await writeFile(path('two'), JSON.stringify({ ...blob, label: 'two' }));
          const two = await keys.getKey('two');
          expect(two!.thumbprint).toBe(one.thumbprint);
          const signing = two!.sign(data);
          if (keyAuth === undefined) expect(verifiesInNode(one, await signing)).toBe(true);
          else await expect(signing).rejects.toMatchObject({ code: 'key_store_wrong_secret' });
        }, keyAuth && { keyAuth }),
    );

    test('that say something else of their auth value are looked at again once they are mended', () =>
      inPlace(
        async (keys, place) => {
          await keys.createKey({ label: 'a key' });
          const path = await blobIn(place);
          const blob = JSON.parse(await readFile(path, 'utf8')) as object;
          await writeFile(path, JSON.stringify({ ...blob, auth: false }));
          const altered = await keys.getKey('a key');
          await expect(altered!.sign(data)).rejects.toMatchObject({ code: 'key_store_wrong_secret' });
          await writeFile(path, JSON.stringify(blob));
          const mended = await keys.getKey('a key');
          expect(verifiesInNode(mended!, await mended!.sign(data))).toBe(true);
        },
        { keyAuth: Buffer.alloc(32, 7) },
      ));

    test('the key of the secrets is not made anew beside secrets', () =>
      inPlace(async (keys, place, reopen) => {
        await keys.secrets.set('a secret', data);
        await keys.close();
        await rm(join(place.directory, 'tpm-keys', 'secrets.json'));
        const again = await reopen();
        await expect(again.secrets.get('a secret')).rejects.toMatchObject({ code: 'key_store_corrupt' });
        await expect(again.secrets.set('another', data)).rejects.toMatchObject({ code: 'key_store_corrupt' });
      }));

    test('hold no private key and no auth value', () =>
      inPlace(
        async (keys, place) => {
          await keys.createKey({ label: 'a key' });
          const text = await readFile(await blobIn(place), 'utf8');
          expect(Object.keys(JSON.parse(text) as object)).toEqual([
            'format',
            'version',
            'label',
            'alg',
            'jwk',
            'public',
            'private',
            'parent',
            'auth',
            'pcrs',
          ]);
          expect(text).not.toContain(Buffer.alloc(12, 7).toString('base64url'));
        },
        { keyAuth: Buffer.alloc(32, 7) },
      ));
  });

  describe('options', () => {
    test('tpm.keyAuth: without it the key is locked, with another one it does not work, and nothing is counted', () =>
      inPlace(
        async (keys, _place, reopen) => {
          await keys.createKey({ label: 'a key' });
          const without = await reopen({});
          await expect(without.getKey('a key')).rejects.toMatchObject({ code: 'key_store_locked' });
          const wrong = await reopen({ keyAuth: Buffer.alloc(32, 8) });
          const signer = await wrong.getKey('a key');
          for (let i = 0; i < 40; i++) {
            await expect(signer!.sign(data)).rejects.toMatchObject({ code: 'key_store_wrong_secret' });
          }
          const right = await reopen();
          const mine = await right.getKey('a key');
          expect(verifiesInNode(mine!, await mine!.sign(data))).toBe(true);
          expect(await tpm.tools('tpm2_getcap', 'properties-variable')).toMatch(/LOCKOUT_COUNTER: 0x0\b/);
        },
        { keyAuth: Buffer.alloc(32, 7) },
      ));

    test.each([
      ['alone', {}],
      ['with an auth value', { keyAuth: Buffer.alloc(32, 7) }],
      ['in salted sessions', { saltedSessions: true }],
    ])('tpm.pcrs: a key works only in the state that it was made in, %s', async (_how, more) => {
      const machine = await startSwtpm();
      const place = await makePlace();
      const keys = await openAt(place, { pcrs: { sha256: [7, 23] }, ...more }, machine);
      const signer = await keys.createKey({ label: 'a key' });
      expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
      await machine.tools('tpm2_pcrextend', `23:sha256=${'11'.repeat(32)}`);
      const refused = { code: 'key_store_locked', message: expect.stringContaining('PCRs') };
      await expect(signer.sign(data)).rejects.toMatchObject(refused);
      const certified = await keys.tpm!.certify('a key', data); // whoever asks may know about it
      expect(certified.publicArea.length).toBeGreaterThan(80);
      await machine.tools('tpm2_pcrreset', '23');
      expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
      await keys.close();
      await machine.stop();
      await place.dispose();
    });

    test('tpm.pcrs: the auth value alone does not do', () =>
      inPlace(
        async (keys, place) => {
          await keys.createKey({ label: 'a key' });
          const folder = join(place.directory, 'tpm-keys');
          const name = (await readdir(folder)).find((file) => file.endsWith('.key.json'));
          const blob = JSON.parse(await readFile(join(folder, name!), 'utf8')) as Record<string, string>;
          const [area, sensitive] = [blob.public!, blob.private!].map((text) => Buffer.from(text, 'base64url'));
          const esys = await openEsys(tpm.tcti);
          const { handle: parent } = await esys.createPrimary('owner', srkTemplate());
          const key = await esys.load(parent, { public: area!, private: sensitive! });
          const TPM_RC_AUTH_UNAVAILABLE = 0x12f;
          await expect(esys.sign(key, Buffer.alloc(32, 1))).rejects.toMatchObject({ code: TPM_RC_AUTH_UNAVAILABLE });
          for (const object of [key, parent]) await esys.flush(object);
          await esys.close();
        },
        { pcrs: { sha256: [7] } },
      ));

    test('tpm.saltedSessions: who listens on the bus learns no auth value and no secret', async () => {
      for (const saltedSessions of [true, false]) {
        const relay = await startRelay(tpm);
        const place = await makePlace();
        const keyAuth = Buffer.alloc(32, 7);
        const credential = Buffer.alloc(32, 0x5a);
        const keys = await openKeys('tpm', {
          directory: place.directory,
          tpm: { tcti: relay.tcti, keyAuth, saltedSessions },
        });
        const signer = await keys.createKey({ label: 'a key' });
        expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
        await keys.tpm!.certify('a key', data);
        await keys.secrets.set('a secret', data);
        const { publicArea: ek } = await keys.tpm!.endorsementKey();
        const { name } = parsePublic(await keys.tpm!.attestationKey());
        const made = makeCredential({ ek, name, secret: credential });
        expect(Buffer.from(await keys.tpm!.activate(made.credentialBlob, made.encryptedSecret))).toEqual(credential);
        await keys.close();
        await relay.close();
        // without them both are there to be read, which shows that the test looks at the right thing
        for (const purpose of [JSON.stringify('a key'), 'key of the secrets']) {
          expect(relay.sent().includes(Buffer.from(authValueFor(keyAuth, purpose)))).toBe(!saltedSessions);
        }
        expect(relay.received().includes(credential)).toBe(!saltedSessions);
        const created = relay.sent().indexOf(sealTemplate());
        const sealed = relay.sent().subarray(created - 34, created - 2); // before the size of the public area
        expect(created).toBeGreaterThan(0);
        expect(relay.received().includes(sealed)).toBe(!saltedSessions);
        await place.dispose();
      }
    });

    test.each([
      ['an unknown one', { keyauth: Buffer.alloc(32) }],
      ['a short auth value', { keyAuth: Buffer.alloc(15) }],
      ['an auth value as text', { keyAuth: 'x'.repeat(32) }],
      ['an auth value from somewhere', { keyAuth: 'keyring' }],
      ['no TCTI', { tcti: '' }],
      ['a deadline of nothing', { deadline: 0 }],
      ['a deadline as text', { deadline: '20000' }],
      ['no PCRs', { pcrs: {} }],
      ['PCRs of no bank', { pcrs: { sha256: [] } }],
      ['a PCR that there is not', { pcrs: { sha256: [24] } }],
      ['a PCR twice', { pcrs: { sha256: [7, 7] } }],
      ['a bank that there is not', { pcrs: { md5: [7] } }],
      ['a word for a flag', { saltedSessions: 'yes' }],
    ])('%s is refused', async (_what, options) => {
      const opening = openKeys('tpm', { directory: '/nowhere', tpm: options as OpenKeysOptions['tpm'] & object });
      await expect(opening).rejects.toMatchObject({ code: 'invalid_argument' });
    });
  });

  describe('the storage parent', () => {
    test('is the persistent one where that is standard, and keys made under the transient one still work', async () => {
      const machine = await startSwtpm();
      const place = await makePlace();
      const first = await openAt(place, {}, machine);
      const signer = await first.createKey({ label: 'a key' });
      expect(first.why).toContain('makes again');
      await first.close();
      await provision(machine, 'rsa', srkAttributes); // standard, but another key than the transient one
      const second = await openAt(place, {}, machine);
      expect(second.why).toContain('persistent');
      const found = await second.getKey('a key');
      expect(verifiesInNode(signer, await found!.sign(data))).toBe(true);
      const other = await second.createKey({ label: 'another' });
      expect(verifiesInNode(other, await other.sign(data))).toBe(true);
      await second.close();
      await machine.stop();
      await place.dispose();
    });

    test.each([
      ['would count towards the lock-out', srkAttributes.replace('|noda', ''), []],
      ['is no parent', 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign|decrypt', []],
      ['has a password', srkAttributes, ['-p', 'secret']],
    ])('is not the persistent one where that %s', async (_what, attributes, more) => {
      const machine = await startSwtpm();
      const place = await makePlace();
      await provision(machine, 'ecc', attributes, more);
      const keys = await openAt(place, {}, machine);
      const signer = await keys.createKey({ label: 'a key' });
      expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
      expect(await machine.tools('tpm2_getcap', 'properties-variable')).toMatch(/LOCKOUT_COUNTER: 0x0\b/);
      await keys.close();
      await machine.stop();
      await place.dispose();
    });

    test('where the owner has a password, says how to go on', async () => {
      const machine = await startSwtpm();
      const place = await makePlace();
      await machine.tools('tpm2_changeauth', '-c', 'o', 'secret');
      await expect(openAt(place, {}, machine)).rejects.toMatchObject({
        code: 'key_store_unavailable',
        message: expect.stringContaining('tpm2_evictcontrol'),
      });
      await machine.stop();
      await place.dispose();
    });
  });
});

const srkAttributes = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt';

async function provision(
  machine: Swtpm,
  kind: string,
  attributes: string,
  more: readonly string[] = [],
): Promise<void> {
  await machine.tools('tpm2_createprimary', '-C', 'o', '-G', kind, '-c', 'srk.ctx', '-a', attributes, ...more);
  await machine.tools('tpm2_evictcontrol', '-C', 'o', '-c', 'srk.ctx', '0x81000001');
  await machine.tools('tpm2_flushcontext', '-t');
}
