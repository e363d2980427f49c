/** Bad files, bad permissions, bad secrets: the right refusal, and nothing lost. */
import { execFileSync } from 'node:child_process';
import {
  chmod,
  chown,
  copyFile,
  cp,
  mkdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { AttestedError, type KeyProvider, openKeys } from 'attested/keys';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { openFileKeys } from '../../src/keys/software/files.ts';
import { keyFilesIn, machineWithId, machineWithoutId, makePlace, type Place } from './places.ts';

const machineSecret = Buffer.alloc(32, 7);
const isRoot = process.geteuid?.() === 0;
const data = Buffer.from('the bytes to be signed');
let place: Place;
const opened: KeyProvider[] = [];
const mounts: string[] = [];

beforeEach(async () => {
  place = await makePlace();
});
afterEach(async () => {
  vi.restoreAllMocks();
  for (const keys of opened.splice(0)) await keys.close();
  for (const mount of mounts.splice(0)) execFileSync('umount', [mount]);
  await place.dispose();
});

async function open(options: Parameters<typeof openKeys>[1] = { machineSecret }): Promise<KeyProvider> {
  const keys = await openKeys('software', { directory: place.directory, ...options });
  opened.push(keys);
  return keys;
}

/** A store with one key, closed again; gives the key's file. */
async function storeWithKey(): Promise<{ file: string; thumbprint: string }> {
  const keys = await open();
  const { thumbprint } = await keys.createKey({ label: 'a key' });
  await keys.close();
  const [file] = await keyFilesIn(place.store);
  return { file: file!, thumbprint };
}

async function refusal(work: Promise<unknown>): Promise<AttestedError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(AttestedError);
  return error as AttestedError;
}

type Json = Record<string, unknown>;
const edit =
  (change: (json: Json) => void) =>
  async (file: string): Promise<void> => {
    const json = JSON.parse(await readFile(file, 'utf8')) as Json;
    change(json);
    await writeFile(file, JSON.stringify(json));
  };
const part = (json: Json, name: string) => json[name] as Json;
/** Another text of the same length and alphabet. */
const flip = (text: unknown) => (String(text).startsWith('A') ? 'B' : 'A') + String(text).slice(1);

describe('key files', () => {
  test.each<[string, (file: string) => Promise<unknown>]>([
    ['empty', (file) => truncate(file)],
    ['truncated', async (file) => truncate(file, (await stat(file)).size >> 1)],
    ['one byte short of its last brace', async (file) => truncate(file, (await stat(file)).size - 2)],
    ['followed by other bytes', async (file) => writeFile(file, `${await readFile(file, 'utf8')}{}`)],
    ['larger than any key file', async (file) => writeFile(file, (await readFile(file, 'utf8')) + ' '.repeat(70_000))],
    ['not UTF-8', (file) => writeFile(file, Buffer.from([0xff, 0xfe]))],
    ['of a later version', edit((json) => Object.assign(json, { version: 2 }))],
    ['with a member of no known meaning', edit((json) => Object.assign(json, { more: 1 }))],
    [
      'with its ciphertext altered',
      edit((json) =>
        Object.assign(part(json, 'encryption'), { ciphertext: flip(part(json, 'encryption').ciphertext) }),
      ),
    ],
    [
      'with its tag altered',
      edit((json) => Object.assign(part(json, 'encryption'), { tag: flip(part(json, 'encryption').tag) })),
    ],
    [
      'with its tag cut short',
      edit((json) =>
        Object.assign(part(json, 'encryption'), { tag: String(part(json, 'encryption').tag).slice(0, 16) }),
      ),
    ],
    [
      'with its nonce altered',
      edit((json) => Object.assign(part(json, 'encryption'), { nonce: flip(part(json, 'encryption').nonce) })),
    ],
    [
      'with its salt altered',
      edit((json) => Object.assign(part(json, 'derivation'), { salt: flip(part(json, 'derivation').salt) })),
    ],
    ['with another algorithm', edit((json) => Object.assign(part(json, 'public'), { alg: 'ES384' }))],
    ['with the algorithm none', edit((json) => Object.assign(part(json, 'public'), { alg: 'none' }))],
    ['with another label', edit((json) => Object.assign(part(json, 'public'), { label: 'another' }))],
    [
      'with another thumbprint',
      edit((json) => Object.assign(part(json, 'public'), { thumbprint: flip(part(json, 'public').thumbprint) })),
    ],
    [
      'with a private member in its public key',
      edit((json) => Object.assign(part(json, 'public'), { jwk: { ...part(part(json, 'public'), 'jwk'), d: 'AA' } })),
    ],
  ])('KEY file %s: refused by name, left as it is', async (_what, damage) => {
    const { file } = await storeWithKey();
    const healthy = await readFile(file);
    await damage(file);
    const damaged = await readFile(file);
    const keys = await open();
    const other = await keys.createKey({ label: 'another key' });

    for (const work of [keys.getKey('a key'), keys.createKey({ label: 'a key' })]) {
      const error = await refusal(work);
      expect(error.code).toBe('key_store_corrupt');
      expect(error.message).toContain(file);
    }
    expect(await readFile(file)).toEqual(damaged);
    expect((await keys.getKey('another key'))?.thumbprint).toBe(other.thumbprint);

    await writeFile(file, healthy); // restored from a backup
    expect(await keys.getKey('a key')).toBeDefined();
  });

  test('an RSA key does not serve another algorithm because its file says so', async () => {
    const keys = await open();
    await keys.createKey({ label: 'a key', alg: 'PS256' });
    const [file] = await keyFilesIn(place.store);
    await edit((json) => Object.assign(part(json, 'public'), { alg: 'RS256' }))(file!);
    // neither where the key is in memory already, nor where it is not
    expect(await refusal(keys.getKey('a key'))).toMatchObject({ code: 'key_store_corrupt' });
    expect(await refusal((await open()).getKey('a key'))).toMatchObject({ code: 'key_store_corrupt' });
  });

  test('a signature that is asked for while its key is deleted does not bring the key back', async () => {
    const keys = await open();
    for (let round = 0; round < 6; round++) {
      const signer = await keys.createKey({ label: 'a key' });
      let deleting = true;
      const deletion = keys.deleteKey('a key').finally(() => {
        deleting = false;
      });
      const attempts: Promise<unknown>[] = [];
      while (deleting) {
        attempts.push(signer.sign(data).catch((error: AttestedError) => expect(error.code).toBe('key_not_found')));
        await new Promise(setImmediate);
      }
      await Promise.all([deletion, ...attempts]);
      expect(await refusal(signer.sign(data))).toMatchObject({ code: 'key_not_found' });
    }
  });

  test('a damaged key can be deleted, and its label used again', async () => {
    const { file } = await storeWithKey();
    await truncate(file);
    const keys = await open();
    expect(await keys.deleteKey('a key')).toBe(true);
    expect(await keys.createKey({ label: 'a key' })).toBeDefined();
  });

  test('the file of one key is not taken for another', async () => {
    const { file } = await storeWithKey();
    const keys = await open();
    await keys.createKey({ label: 'another key' });
    const other = (await keyFilesIn(place.store)).find((name) => name !== file)!;
    await keys.close();
    await copyFile(file, other);
    expect(await refusal((await open()).getKey('another key'))).toMatchObject({ code: 'key_store_corrupt' });
  });

  test('a key file from another store is refused, also where both have the same secret', async () => {
    const { file } = await storeWithKey();
    const elsewhere = await makePlace();
    const others = await openKeys('software', { directory: elsewhere.directory, machineSecret });
    await others.createKey({ label: 'a key' });
    await others.close();
    await copyFile((await keyFilesIn(elsewhere.store))[0]!, file);
    await elsewhere.dispose();
    expect(await refusal((await open()).getKey('a key'))).toMatchObject({ code: 'key_store_corrupt' });
  });

  test('a listing names the file that is damaged', async () => {
    const { file } = await storeWithKey();
    await truncate(file, 100);
    const error = await refusal((await open()).listKeys());
    expect(error.code).toBe('key_store_corrupt');
    expect(error.message).toContain(file);
  });

  test('files show neither labels in their names nor private keys in their content', async () => {
    const keys = await open();
    for (const alg of ['ES256', 'Ed25519', 'PS256'] as const) await keys.createKey({ label: `agent ${alg}`, alg });
    for (const file of await keyFilesIn(place.store)) {
      expect(file).not.toContain('agent');
      expect((await stat(file)).mode & 0o777).toBe(0o600);
      const json = JSON.parse(await readFile(file, 'utf8')) as Json;
      expect(Object.keys(part(part(json, 'public'), 'jwk'))).not.toContain('d');
      const ciphertext = Buffer.from(String(part(json, 'encryption').ciphertext), 'base64url');
      expect(ciphertext[0] === 0x30 && ciphertext[1] === ciphertext.length - 2).toBe(false); // no bare DER
    }
    expect((await stat(place.store)).mode & 0o777).toBe(0o700);
  });
});

describe('permissions', () => {
  test.each([
    ['a key file readable by its group', 'key', 0o640, 'chmod 600'],
    ['a key file readable by all', 'key', 0o604, 'chmod 600'],
    ['a key file writable by its group', 'key', 0o620, 'chmod 600'],
    ['a store header readable by all', 'header', 0o644, 'chmod 600'],
    ['a store directory that others may enter', 'store', 0o711, 'chmod 700'],
    ['a directory around it that others may write', 'directory', 0o777, 'chmod go-w'],
  ])('%s: refused, with the command that mends it', async (_what, which, mode, command) => {
    const { file, thumbprint } = await storeWithKey();
    const paths: Record<string, string> = {
      key: file,
      header: join(place.store, 'store.json'),
      store: place.store,
      directory: place.directory,
    };
    const path = paths[which]!;
    const before = (await stat(path)).mode;
    await chmod(path, mode);
    const error = await refusal(open().then((keys) => keys.getKey('a key')));
    expect(error.code).toBe('key_store_unavailable');
    expect(error.message).toContain(path);
    expect(error.message).toContain(command);
    await chmod(path, before);
    expect((await (await open()).getKey('a key'))?.thumbprint).toBe(thumbprint);
  });

  test("another user's files: refused", async () => {
    const { file } = await storeWithKey();
    if (isRoot) await chown(file, 65_534, 65_534);
    const keys = await open();
    // where a file cannot be given away, we pretend to be somebody else instead
    if (!isRoot) vi.spyOn(process as { geteuid: () => number }, 'geteuid').mockReturnValue(process.getuid!() + 1);
    const error = await refusal(keys.getKey('a key'));
    expect(error.code).toBe('key_store_unavailable');
    expect(error.message).toContain('belongs to another user');
  });

  test('a symbolic link in the place of a key file or of the store: refused, and not followed', async () => {
    const { file } = await storeWithKey();
    await rename(file, join(place.root, 'moved'));
    await symlink(join(place.root, 'moved'), file);
    const keys = await open();
    expect(await refusal(keys.getKey('a key'))).toMatchObject({ code: 'key_store_unavailable' });
    expect(await refusal(keys.createKey({ label: 'a key' }))).toMatchObject({ code: 'key_store_unavailable' });
    expect(await keys.deleteKey('a key')).toBe(true); // removes the link, not what it points to
    expect((await stat(join(place.root, 'moved'))).isFile()).toBe(true);

    await rename(place.store, join(place.root, 'elsewhere'));
    await symlink(join(place.root, 'elsewhere'), place.store);
    expect(await refusal(open())).toMatchObject({ code: 'key_store_unavailable' });
  });

  test('a dangling link in the place of a key file does not lead a new key to where it points', async () => {
    const { file } = await storeWithKey();
    await rm(file);
    await symlink(join(place.root, 'target'), file);
    expect(await refusal((await open()).createKey({ label: 'a key' }))).toBeInstanceOf(AttestedError);
    await expect(stat(join(place.root, 'target'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('a pipe or a directory in the place of a key file: refused at once', async () => {
    const { file } = await storeWithKey();
    const keys = await open();
    await rm(file);
    execFileSync('mkfifo', ['-m', '600', file]);
    expect(await refusal(keys.getKey('a key'))).toMatchObject({ code: 'key_store_unavailable' });
    await rm(file);
    await mkdir(file, { mode: 0o700 });
    expect(await refusal(keys.getKey('a key'))).toMatchObject({ code: 'key_store_unavailable' });
    expect(await refusal(keys.deleteKey('a key'))).toMatchObject({ code: 'key_store_unavailable' });
  });

  test('a file in the place of the directory: unavailable', async () => {
    await writeFile(place.directory, '');
    expect(await refusal(open())).toMatchObject({ code: 'key_store_unavailable' });
  });
});

describe('secrets', () => {
  const passphrase = 'correct horse battery staple';
  const cheap = { scryptLog2N: 14 };

  test('wrong passphrase: refused, and the keys stay', async () => {
    const keys = await open({ passphrase, ...cheap });
    const { thumbprint } = await keys.createKey({ label: 'a key' });
    for (const wrong of ['Correct horse battery staple', `${passphrase} `, 'x']) {
      const error = await refusal(open({ passphrase: wrong }));
      expect(error.code).toBe('key_store_wrong_secret');
      expect(error.message).not.toContain(wrong === 'x' ? passphrase : wrong);
    }
    expect((await (await open({ passphrase })).getKey('a key'))?.thumbprint).toBe(thumbprint);
  });

  test('a passphrase is the same however its accents are composed', async () => {
    await open({ passphrase: 'cl\u00e9', ...cheap });
    expect(await open({ passphrase: 'cle\u0301' })).toBeDefined();
  });

  test.each([
    ['a passphrase', { passphrase, ...cheap }, {}, 'key_store_locked'],
    ['a passphrase', { passphrase, ...cheap }, { machineSecret }, 'key_store_locked'],
    ['a given secret', { machineSecret }, {}, 'key_store_locked'],
    ['a given secret', { machineSecret }, { machineSecret: Buffer.alloc(32, 8) }, 'key_store_wrong_secret'],
    ['a given secret', { machineSecret }, { passphrase }, 'key_store_locked'],
  ])('a store under %s, opened otherwise: refused', async (_what, made, tried, code) => {
    await open(made);
    expect(await refusal(open(tried))).toMatchObject({ code });
  });

  test("a store under the machine's secret is not opened by a passphrase or another secret", async () => {
    const machine = await machineWithId(place.root, 'a'.repeat(32));
    opened.push(await openFileKeys(place.directory, {}, machine));
    for (const options of [{ passphrase }, { machineSecret }]) {
      const error = await refusal(openFileKeys(place.directory, options, machine));
      expect(error).toMatchObject({ code: 'key_store_wrong_secret' });
    }
  });

  test('a directory copied to another machine: refused in words that say so', async () => {
    const here = await machineWithId(place.root, 'a'.repeat(32));
    const keys = await openFileKeys(place.directory, {}, here);
    await keys.createKey({ label: 'a key' });
    await keys.close();
    const copy = join(place.root, 'copy');
    await cp(place.directory, copy, { recursive: true, preserveTimestamps: true });

    const others = [await machineWithId(place.root, 'b'.repeat(32)), machineWithoutId(place.root)];
    for (const there of others) {
      const error = await refusal(openFileKeys(copy, {}, there));
      expect(error.code).toBe('key_store_wrong_secret');
      expect(error.message).toContain('another machine');
    }
    const back = await openFileKeys(copy, {}, here); // copying did it no harm
    expect((await (await back.getKey('a key'))?.sign(data))?.length).toBe(64);
    await back.close();
  });

  test('without a machine id a random secret outside the directory does its work', async () => {
    const here = machineWithoutId(place.root, 'here');
    const keys = await openFileKeys(place.directory, {}, here);
    await keys.close();
    expect((await stat(here.secretFile)).mode & 0o777).toBe(0o600);
    await (await openFileKeys(place.directory, {}, here)).close();
    expect(await refusal(openFileKeys(place.directory, {}, machineWithoutId(place.root, 'there')))).toMatchObject({
      code: 'key_store_wrong_secret',
    });
    await truncate(here.secretFile, 5);
    expect(await refusal(openFileKeys(place.directory, {}, here))).toMatchObject({ code: 'key_store_corrupt' });
  });

  test('a store stays with the secret it was made with when the machine gets an id later', async () => {
    const before = machineWithoutId(place.root);
    await (await openFileKeys(place.directory, {}, before)).close();
    const after = { ...(await machineWithId(place.root, 'c'.repeat(32))), secretFile: before.secretFile };
    await (await openFileKeys(place.directory, {}, after)).close();
  });

  test.each(['', 'uninitialized', '0'.repeat(32), 'A'.repeat(32), 'short'])('the machine id %j is none', async (id) => {
    const machine = await machineWithId(place.root, id);
    await (await openFileKeys(place.directory, {}, machine)).close();
    expect((await stat(machine.secretFile)).size).toBe(32);
  });

  test('a secret file that would be copied together with the keys is refused', async () => {
    const machine = machineWithoutId(place.directory);
    const inside = { ...machine, secretFile: join(place.store, 'secret') };
    expect(await refusal(openFileKeys(place.directory, {}, inside))).toMatchObject({ code: 'key_store_unavailable' });
  });
});

describe('disks', () => {
  async function mountTmpfs(options: string): Promise<boolean> {
    await mkdir(place.directory, { mode: 0o700 });
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `mode=700,${options}`, 'tmpfs', place.directory], {
        stdio: 'ignore',
      });
    } catch {
      return false;
    }
    mounts.push(place.directory);
    return true;
  }

  test('disk full: unavailable, earlier keys stay, and it goes on when there is room', async ({ skip }) => {
    if (!(await mountTmpfs('size=64k'))) return skip('mounting needs root');
    const keys = await open();
    const { thumbprint } = await keys.createKey({ label: 'a key' });
    const filler = join(place.directory, 'filler');
    const filling = writeFile(filler, Buffer.alloc(128 * 1024));
    await expect(filling).rejects.toMatchObject({ code: 'ENOSPC' });
    const error = await refusal(keys.createKey({ label: 'another key' }));
    expect(error.code).toBe('key_store_unavailable');
    expect(error.message).toContain('the disk is full');
    expect((await keys.listKeys()).map((key) => key.thumbprint)).toEqual([thumbprint]);
    expect((await (await open()).getKey('a key'))?.thumbprint).toBe(thumbprint);
    await rm(filler);
    expect(await keys.createKey({ label: 'another key' })).toBeDefined();
  });

  test('a full disk makes no half of a store', async ({ skip }) => {
    if (!(await mountTmpfs('size=64k'))) return skip('mounting needs root');
    const filler = join(place.directory, 'filler');
    await expect(writeFile(filler, Buffer.alloc(128 * 1024))).rejects.toMatchObject({ code: 'ENOSPC' });
    expect(await refusal(open())).toMatchObject({ code: 'key_store_unavailable' });
    await rm(filler);
    const keys = await open();
    expect(await keys.createKey({ label: 'a key' })).toBeDefined();
  });

  test('read-only: keys that are there work, new ones are refused', async ({ skip }) => {
    if (isRoot && !(await mountTmpfs('size=1m'))) return skip('root can write everywhere, and mounting is not allowed');
    const keys = await open();
    const { thumbprint } = await keys.createKey({ label: 'a key' });
    await keys.close();
    if (isRoot) execFileSync('mount', ['-o', 'remount,ro', place.directory]);
    else await chmod(place.store, 0o500);
    const again = await open();
    const signer = await again.getKey('a key');
    expect(signer?.thumbprint).toBe(thumbprint);
    expect((await signer!.sign(data)).length).toBe(64);
    expect(await refusal(again.createKey({ label: 'another key' }))).toMatchObject({ code: 'key_store_unavailable' });
    expect(await refusal(again.deleteKey('a key'))).toMatchObject({ code: 'key_store_unavailable' });
    expect(await again.getKey('a key')).toBeDefined();
    if (!isRoot) await chmod(place.store, 0o700);
  });
});
