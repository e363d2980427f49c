/** What every key backend must do. A backend's test file calls this with a way to open it. */
import { createHash, createPublicKey, verify } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { inspect } from 'node:util';
import type { KeyProvider, SignatureAlgorithm, Signer } from 'attested/keys';
import { calculateJwkThumbprint, compactVerify, importJWK } from 'jose';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

export interface OpenedForTest {
  provider: KeyProvider;
  /** Opens the same place once more, as another process would; absent for a backend that keeps nothing. */
  reopen?: () => Promise<KeyProvider>;
  /** Removes everything the test left. */
  dispose: () => Promise<void>;
}

const data = Buffer.from('the bytes to be signed');

export function describeKeyProvider(
  name: string,
  open: () => Promise<OpenedForTest>,
  algorithms: readonly SignatureAlgorithm[],
): void {
  describe(`key provider: ${name}`, () => {
    let opened: OpenedForTest;
    let keys: KeyProvider;
    beforeEach(async () => {
      opened = await open();
      keys = opened.provider;
    });
    afterEach(async () => {
      await keys.close();
      await opened.dispose();
    });

    test('says what it is, and where its keys are', () => {
      expect(['software', 'keychain', 'tpm']).toContain(keys.kind);
      expect(['software', 'keychain', 'hardware']).toContain(keys.assurance);
      expect(keys.why).toMatch(/\w+ \w+/);
      expect(keys.directory === undefined).toBe(opened.reopen === undefined);
    });

    test.each(algorithms)('%s: signs what node:crypto and jose verify', async (alg) => {
      const signer = await keys.createKey({ label: 'a key', alg });
      expect(signer.alg).toBe(alg);
      expect(signer.thumbprint).toBe(await calculateJwkThumbprint(signer.publicJwk));
      const signature = await signer.sign(data);
      expect(verifiesInNode(signer, signature)).toBe(true);
      expect(verifiesInNode(signer, signature, Buffer.from('other bytes'))).toBe(false);
      await expect(verifiesInJose(signer)).resolves.toBe(true);
    });

    test('makes ES256 keys unless told otherwise', async () => {
      const signer = await keys.createKey({ label: 'a key' });
      expect(signer).toMatchObject({ alg: 'ES256', publicJwk: { kty: 'EC', crv: 'P-256' } });
    });

    test('a label has one key: made once, found again', async () => {
      const first = await keys.createKey({ label: 'a key' });
      const second = await keys.createKey({ label: 'a key' });
      const found = await keys.getKey('a key');
      expect(second.thumbprint).toBe(first.thumbprint);
      expect(found).toMatchObject({ alg: 'ES256', thumbprint: first.thumbprint, publicJwk: first.publicJwk });
      expect(verifiesInNode(first, await found!.sign(data))).toBe(true);
    });

    test('many who ask at once get one key', async () => {
      const signers = await Promise.all(Array.from({ length: 20 }, () => keys.createKey({ label: 'a key' })));
      expect(new Set(signers.map(({ thumbprint }) => thumbprint)).size).toBe(1);
      expect(await keys.listKeys()).toHaveLength(1);
    });

    test('labels do not share keys', async () => {
      const labels = ['a', 'b', 'A', 'a ', 'a/b'];
      const signers = await Promise.all(labels.map((label) => keys.createKey({ label })));
      expect(new Set(signers.map(({ thumbprint }) => thumbprint)).size).toBe(labels.length);
    });

    test('refuses another algorithm for a label that is taken, and keeps the key', async () => {
      const signer = await keys.createKey({ label: 'a key', alg: algorithms[0]! });
      for (const alg of algorithms.slice(1)) {
        await expect(keys.createKey({ label: 'a key', alg })).rejects.toMatchObject({ code: 'invalid_argument' });
      }
      expect(await keys.listKeys()).toEqual([{ label: 'a key', alg: algorithms[0], thumbprint: signer.thumbprint }]);
    });

    test.each(['none', 'HS256', 'es256', '', '__proto__', 'constructor'])('refuses the algorithm %j', async (alg) => {
      const request = { label: 'a key', alg: alg as SignatureAlgorithm };
      await expect(keys.createKey(request)).rejects.toMatchObject({ code: 'invalid_argument' });
      expect(await keys.listKeys()).toEqual([]);
    });

    test.each([
      ['empty', ''],
      ['257 characters', 'x'.repeat(257)],
      ['a line end', 'a\n'],
      ['a tab', 'a\tb'],
      ['NUL', 'a\0b'],
      ['DEL', 'a\x7f'],
      ['a letter with an accent', 'clé'],
      ['a character of another script', '鍵'],
      ['a full-width letter', 'ａ'],
      ['a zero-width space', 'a\u200bb'],
      ['half a surrogate pair', '\ud800'],
      ['a number', 7],
      ['undefined', undefined],
      ['an array', ['a']],
    ])('refuses a label: %s', async (_what, label) => {
      const refused = { code: 'invalid_argument' };
      await expect(keys.createKey({ label: label as string })).rejects.toMatchObject(refused);
      await expect(keys.getKey(label as string)).rejects.toMatchObject(refused);
      await expect(keys.deleteKey(label as string)).rejects.toMatchObject(refused);
      expect(await keys.listKeys()).toEqual([]);
    });

    test.each([
      '../../escape',
      '/etc/passwd',
      'C:\\Windows\\key',
      '.',
      '..',
      'con',
      '~',
      '%2e%2e%2f',
      'https://server.example/mcp?a=b#c',
      '__proto__',
      'constructor',
      '$(id)',
      "'; drop table keys; --",
      ' ',
      'x'.repeat(256),
    ])('takes the label %j as a name and nothing more', async (label) => {
      const signer = await keys.createKey({ label });
      expect((await keys.getKey(label))?.thumbprint).toBe(signer.thumbprint);
      expect(await keys.listKeys()).toEqual([{ label, alg: 'ES256', thumbprint: signer.thumbprint }]);
      expect(await keys.deleteKey(label)).toBe(true);
    });

    test('lists all keys by label', async () => {
      for (const label of ['b', 'c', 'a', 'B']) await keys.createKey({ label });
      expect((await keys.listKeys()).map(({ label }) => label)).toEqual(['B', 'a', 'b', 'c']);
    });

    test('finds nothing under a label that was never used', async () => {
      expect(await keys.getKey('nobody')).toBeUndefined();
      expect(await keys.deleteKey('nobody')).toBe(false);
      expect(await keys.listKeys()).toEqual([]);
    });

    test('a deleted key is gone, for its signers too, and its label is free', async () => {
      const signer = await keys.createKey({ label: 'a key' });
      await keys.createKey({ label: 'another' });
      expect(await keys.deleteKey('a key')).toBe(true);
      expect(await keys.deleteKey('a key')).toBe(false);
      await expect(signer.sign(data)).rejects.toMatchObject({ code: 'key_not_found' });
      expect(await keys.getKey('a key')).toBeUndefined();
      expect((await keys.listKeys()).map(({ label }) => label)).toEqual(['another']);

      const successor = await keys.createKey({ label: 'a key' });
      expect(successor.thumbprint).not.toBe(signer.thumbprint);
      expect(verifiesInNode(successor, await successor.sign(data))).toBe(true);
      await expect(signer.sign(data)).rejects.toMatchObject({ code: 'key_not_found' });
    });

    test('creations and deletions at once leave one state: the key or no key', async () => {
      const jobs = Array.from({ length: 12 }, (_, i) =>
        i % 3 === 2 ? keys.deleteKey('a key') : keys.createKey({ label: 'a key' }),
      );
      await Promise.all(jobs);
      const listed = await keys.listKeys();
      const found = await keys.getKey('a key');
      expect(listed.map(({ thumbprint }) => thumbprint)).toEqual(found ? [found.thumbprint] : []);
    });

    test('after close nothing works, and close may be called again', async () => {
      const signer = await keys.createKey({ label: 'a key' });
      await keys.close();
      await keys.close();
      const refused = { code: 'key_store_unavailable' };
      await expect(signer.sign(data)).rejects.toMatchObject(refused);
      await expect(keys.createKey({ label: 'a key' })).rejects.toMatchObject(refused);
      await expect(keys.getKey('a key')).rejects.toMatchObject(refused);
      await expect(keys.listKeys()).rejects.toMatchObject(refused);
      await expect(keys.deleteKey('a key')).rejects.toMatchObject(refused);
    });

    test('what a caller does to a public key changes no key', async () => {
      const signer = await keys.createKey({ label: 'a key' });
      const { x } = signer.publicJwk;
      signer.publicJwk.x = 'altered';
      const found = await keys.getKey('a key');
      expect(found?.publicJwk.x).toBe(x);
      expect(verifiesInNode(found!, await signer.sign(data))).toBe(true);
    });

    test.each(algorithms)('%s: no property, JSON or inspection shows private material', async (alg) => {
      const signer = await keys.createKey({ label: 'a key', alg });
      for (const value of [signer, keys, await keys.getKey('a key'), await keys.listKeys()]) {
        const shown = inspect(value, { depth: Infinity, showHidden: true, getters: true }) + JSON.stringify(value);
        expect(shown).not.toMatch(/PrivateKeyObject|KeyObject|PRIVATE KEY|\b(d|p|q|dp|dq|qi)"?: ?["']/);
      }
      expect(Object.keys(signer.publicJwk).sort()).toEqual(publicMembers[signer.publicJwk.kty!]);
      expect(Reflect.ownKeys(signer).sort()).toEqual(['alg', 'publicJwk', 'sign', 'thumbprint']);
    });

    test('keys outlive the provider where it says so', async () => {
      const { reopen } = opened;
      if (reopen === undefined) return expect(keys.directory).toBeUndefined();
      const made: Signer[] = [];
      for (const alg of algorithms) made.push(await keys.createKey({ label: `key for ${alg}`, alg }));
      const listed = await keys.listKeys();
      await keys.close();

      const again = await reopen();
      expect(again.directory).toBe(keys.directory);
      expect(await again.listKeys()).toEqual(listed);
      for (const signer of made) {
        const found = await again.getKey(`key for ${signer.alg}`);
        expect(found).toMatchObject({ alg: signer.alg, thumbprint: signer.thumbprint, publicJwk: signer.publicJwk });
        expect(verifiesInNode(signer, await found!.sign(data))).toBe(true);
      }
      expect(await again.deleteKey('key for ES256')).toBe(true);
      await again.close();

      const third = await reopen();
      expect(await third.getKey('key for ES256')).toBeUndefined();
      await third.close();
    });

    describe('secrets', () => {
      const secret = Buffer.from('a refresh token, say');

      test('are kept under a name, replaced, and gone once deleted', async () => {
        const { secrets } = keys;
        expect(await secrets.get('a secret')).toBeUndefined();
        expect(await secrets.delete('a secret')).toBe(false);
        await secrets.set('a secret', secret);
        await secrets.set('another', Buffer.from('of another kind'));
        expect(Buffer.from((await secrets.get('a secret'))!)).toEqual(secret);
        await secrets.set('a secret', Buffer.from('newer'));
        expect(Buffer.from((await secrets.get('a secret'))!).toString()).toBe('newer');
        expect(await secrets.delete('a secret')).toBe(true);
        expect(await secrets.delete('a secret')).toBe(false);
        expect(await secrets.get('a secret')).toBeUndefined();
        expect(Buffer.from((await secrets.get('another'))!).toString()).toBe('of another kind');
      });

      test('are what they were when they were set, whatever callers do to their bytes', async () => {
        const mine = Buffer.from(secret);
        const setting = keys.secrets.set('a secret', mine);
        mine.fill(0);
        await setting;
        const theirs = await keys.secrets.get('a secret');
        theirs!.fill(0);
        expect(Buffer.from((await keys.secrets.get('a secret'))!)).toEqual(secret);
      });

      test('may be empty, any bytes, and 65536 of them, but not one more', async () => {
        const { secrets } = keys;
        const refused = { code: 'invalid_argument' };
        const bytes = Uint8Array.from({ length: 65_536 }, (_, i) => (i * 7) % 256);
        for (const value of [new Uint8Array(), Buffer.from([0, 255, 10, 0]), bytes]) {
          await secrets.set('a secret', value);
          expect(Buffer.from((await secrets.get('a secret'))!).equals(value)).toBe(true);
        }
        await expect(secrets.set('a secret', new Uint8Array(65_537))).rejects.toMatchObject(refused);
        await expect(secrets.set('a secret', 'text' as never)).rejects.toMatchObject(refused);
        expect(await secrets.get('a secret')).toHaveLength(65_536);
      });

      test.each([
        '../../escape',
        'a/b',
        'C:\\Windows',
        'con',
        '__proto__',
        'https://server.example/mcp?a=b#c',
        ' ',
        'x'.repeat(256),
      ])('take the name %j as a name and nothing more', async (name) => {
        await keys.secrets.set(name, secret);
        expect(Buffer.from((await keys.secrets.get(name))!)).toEqual(secret);
        expect(await keys.secrets.get(`${name.slice(1)}!`)).toBeUndefined();
        expect(await keys.listKeys()).toEqual([]);
        expect(await keys.secrets.delete(name)).toBe(true);
      });

      test.each([
        ['empty', ''],
        ['257 characters', 'x'.repeat(257)],
        ['a line end', 'a\n'],
        ['NUL', 'a\0b'],
        ['a letter with an accent', 'clé'],
        ['a number', 7],
        ['undefined', undefined],
      ])('refuse a name: %s', async (_what, name) => {
        const refused = { code: 'invalid_argument' };
        await expect(keys.secrets.set(name as string, secret)).rejects.toMatchObject(refused);
        await expect(keys.secrets.get(name as string)).rejects.toMatchObject(refused);
        await expect(keys.secrets.delete(name as string)).rejects.toMatchObject(refused);
      });

      test('and keys of the same name do not touch each other', async () => {
        const signer = await keys.createKey({ label: 'a name' });
        await keys.secrets.set('a name', secret);
        expect(await keys.listKeys()).toHaveLength(1);
        expect(await keys.deleteKey('a name')).toBe(true);
        expect(Buffer.from((await keys.secrets.get('a name'))!)).toEqual(secret);
        const successor = await keys.createKey({ label: 'a name' });
        expect(successor.thumbprint).not.toBe(signer.thumbprint);
        expect(await keys.secrets.delete('a name')).toBe(true);
        expect((await keys.getKey('a name'))?.thumbprint).toBe(successor.thumbprint);
      });

      test('of many who write at once, the last stays whole', async () => {
        await Promise.all(Array.from({ length: 10 }, (_, i) => keys.secrets.set('a secret', Buffer.alloc(5000, i))));
        expect(Buffer.from((await keys.secrets.get('a secret'))!).equals(Buffer.alloc(5000, 9))).toBe(true);
      });

      test('are not seen by inspection', async () => {
        await keys.secrets.set('its name', secret);
        await keys.secrets.get('its name');
        const shown = inspect(keys, { depth: Infinity, showHidden: true, getters: true }) + JSON.stringify(keys);
        expect(shown).not.toMatch(/refresh token/);
        expect(shown).not.toMatch(/KeyObject|its name/);
      });

      test('are not to be had after close', async () => {
        await keys.secrets.set('a secret', secret);
        await keys.close();
        const refused = { code: 'key_store_unavailable' };
        await expect(keys.secrets.get('a secret')).rejects.toMatchObject(refused);
        await expect(keys.secrets.set('a secret', secret)).rejects.toMatchObject(refused);
        await expect(keys.secrets.delete('a secret')).rejects.toMatchObject(refused);
      });

      test('outlive the provider, and are seen by another of the same place', async () => {
        if (opened.reopen === undefined) return expect(keys.directory).toBeUndefined();
        const other = await opened.reopen();
        await keys.secrets.set('a secret', secret);
        expect(Buffer.from((await other.secrets.get('a secret'))!)).toEqual(secret);
        await other.secrets.set('a secret', Buffer.from('of the other'));
        expect(Buffer.from((await keys.secrets.get('a secret'))!).toString()).toBe('of the other');
        await Promise.all([keys.close(), other.close()]);

        const again = await opened.reopen();
        expect(Buffer.from((await again.secrets.get('a secret'))!).toString()).toBe('of the other');
        await again.secrets.delete('a secret');
        await again.close();
      });

      test('are nowhere in clear on the disk, nor are their names', async () => {
        if (keys.directory === undefined) return expect(opened.reopen).toBeUndefined();
        await keys.secrets.set('https://server.example', secret);
        const files = (await readdir(keys.directory, { recursive: true, withFileTypes: true })).filter((file) =>
          file.isFile(),
        );
        expect(files.filter(({ name }) => /^[0-9a-f]{64}\.secret\.json$/.test(name))).toHaveLength(1);
        const hash = createHash('sha256').update('https://server.example').digest('hex');
        for (const { parentPath, name } of files) {
          const path = join(parentPath, name);
          const content = await readFile(path);
          expect(`${name} ${content}`).not.toMatch(
            new RegExp(`server.example|${hash}|refresh|${secret.toString('base64').slice(0, 16)}`),
          );
          if (name.endsWith('.secret.json')) expect((await stat(path)).mode & 0o777).toBe(0o600);
        }
      });
    });

    test('two providers of one place agree on one key', async () => {
      if (opened.reopen === undefined) return expect(keys.directory).toBeUndefined();
      const other = await opened.reopen();
      const [mine, theirs] = await Promise.all([
        keys.createKey({ label: 'a key' }),
        other.createKey({ label: 'a key' }),
      ]);
      expect(theirs.thumbprint).toBe(mine.thumbprint);

      // a label that the other one deletes and makes again is seen anew, not as remembered
      await other.deleteKey('a key');
      expect(await keys.getKey('a key')).toBeUndefined();
      await expect(mine.sign(data)).rejects.toMatchObject({ code: 'key_not_found' });
      const made = await other.createKey({ label: 'a key' });
      expect((await keys.createKey({ label: 'a key' })).thumbprint).toBe(made.thumbprint);
      await other.close();
    });
  });
}

const publicMembers: Record<string, string[]> = {
  EC: ['crv', 'kty', 'x', 'y'],
  OKP: ['crv', 'kty', 'x'],
  RSA: ['e', 'kty', 'n'],
};

/** An oracle beside our own code: the public key as node imports it, with node's own r‖s decoding. */
export function verifiesInNode({ alg, publicJwk }: Signer, signature: Uint8Array, signed: Uint8Array = data): boolean {
  const key = createPublicKey({ key: { ...publicJwk }, format: 'jwk' });
  const hash = publicJwk.kty === 'OKP' ? null : `sha${alg.slice(2)}`;
  const padding = alg.startsWith('PS') ? { padding: 6, saltLength: -1 } : {};
  return verify(hash, signed, { key, dsaEncoding: 'ieee-p1363', ...padding }, signature);
}

async function verifiesInJose(signer: Signer): Promise<boolean> {
  const key = await importJWK(signer.publicJwk, signer.alg);

  const header = Buffer.from(JSON.stringify({ alg: signer.alg })).toString('base64url');
  const input = `${header}.${data.toString('base64url')}`;
  const signature = Buffer.from(await signer.sign(Buffer.from(input))).toString('base64url');
  const { payload } = await compactVerify(`${input}.${signature}`, key, { algorithms: [signer.alg] });
  return Buffer.from(payload).equals(data);
}
