/** What `openKeys('auto')` takes on machines with and without a TPM and a keychain, and that an identity stays where it is. */
import { chmod, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type OpenKeysOptions, openKeys } from 'attested/keys';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { rememberBackend, rememberedBackend } from '../../src/keys/backend.ts';
import { type Keyring, skipKeychain, startKeyring } from '../support/keyring.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { makePlace, type Place } from './places.ts';

const machineSecret = Buffer.alloc(32, 7);
const nowhere = 'swtpm:path=/nonexistent/socket';
let place: Place;
let keyring: Keyring | undefined;
let swtpm: Swtpm | undefined;
/** No TPM and no keychain, unless a test has its own. */
let options: OpenKeysOptions & { directory: string };
beforeEach(async () => {
  place = await makePlace();
  vi.stubEnv('DBUS_SESSION_BUS_ADDRESS', 'unix:path=/nonexistent/bus');
  vi.stubEnv('XDG_CONFIG_HOME', join(place.root, 'config'));
  options = { directory: place.directory, machineSecret, tpm: { tcti: nowhere } };
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await keyring?.stop();
  await swtpm?.stop();
  [keyring, swtpm] = [undefined, undefined];
  await place.dispose();
});

async function withKeyring(): Promise<Keyring> {
  keyring = await startKeyring();
  for (const [name, value] of Object.entries(keyring.env)) vi.stubEnv(name, value);
  return keyring;
}

async function withTpm(): Promise<Swtpm> {
  swtpm = await startSwtpm();
  options.tpm = { tcti: swtpm.tcti };
  return swtpm;
}

const file = () => join(place.directory, 'backend.json');
const unavailable = (...words: string[]) => ({
  code: 'key_store_unavailable',
  message: expect.stringMatching(new RegExp(words.join('.*'), 's')),
});

/** Opens, makes the key, closes; gives what tells the identity. */
async function identity(kind: Parameters<typeof openKeys>[0], more: OpenKeysOptions = {}) {
  const keys = await openKeys(kind, { ...options, ...more });
  try {
    return { kind: keys.kind, thumbprint: (await keys.createKey({ label: 'a key' })).thumbprint, why: keys.why };
  } finally {
    await keys.close();
  }
}

describe('with neither', () => {
  test('auto takes files, and says why not the others', async () => {
    const keys = await openKeys('auto', options);
    expect(keys).toMatchObject({ kind: 'software', assurance: 'software', directory: place.directory });
    expect(keys.why).toMatch(/^software: .*; not tpm: .*; not keychain: .*DBUS_SESSION_BUS_ADDRESS/);
    const signer = await keys.createKey({ label: 'a key' });
    expect(await keys.listKeys()).toHaveLength(1);
    await keys.close();
    await expect(signer.sign(new Uint8Array())).rejects.toMatchObject({ code: 'key_store_unavailable' });
  });

  test('auto without a directory takes the default one', async () => {
    vi.stubEnv('ATTESTED_HOME', place.directory);
    const { directory: _, ...rest } = options;
    const keys = await openKeys('auto', rest);
    expect(keys.directory).toBe(place.directory);
    await keys.close();
  });

  test('auto does not go on to other keys when a store is there and does not open', async () => {
    await (await openKeys('auto', options)).close();
    const other = { ...options, machineSecret: Buffer.alloc(32, 8) };
    await expect(openKeys('auto', other)).rejects.toMatchObject({ code: 'key_store_wrong_secret' });
  });

  test('auto with no place at all names every reason', async () => {
    await expect(openKeys('auto', { ...options, directory: '/dev/null/nowhere' })).rejects.toMatchObject(
      unavailable('not a directory'),
    );
    const directory = join(place.root, 'read-only');
    await writeFile(directory, 'in the way');
    await expect(openKeys('auto', { ...options, directory: join(directory, 'state') })).rejects.toMatchObject({
      code: 'key_store_unavailable',
    });
  });

  test('the choice is remembered with the first key, not before, in a private file', async () => {
    const keys = await openKeys('auto', options);
    expect(await rememberedBackend(place.directory)).toBeUndefined();
    await expect(keys.createKey({ label: '' })).rejects.toMatchObject({ code: 'invalid_argument' });
    await keys.getKey('a key');
    await expect(stat(file())).rejects.toMatchObject({ code: 'ENOENT' });
    await keys.createKey({ label: 'a key' });
    expect(JSON.parse(await readFile(file(), 'utf8'))).toEqual({
      format: 'attested key backend',
      version: 1,
      backend: 'software',
    });
    expect((await stat(file())).mode & 0o777).toBe(0o600);
    await keys.close();
  });

  test('a secret is remembered like a key', async () => {
    const keys = await openKeys('auto', options);
    await keys.secrets.set('a secret', Buffer.from('x'));
    expect(await rememberedBackend(place.directory)).toBe('software');
    await keys.close();
    await expect(keys.secrets.set('a secret', Buffer.from('x'))).rejects.toMatchObject({
      code: 'key_store_unavailable',
    });
  });

  test.each([
    ['empty', '', 'key_store_corrupt'],
    ['of another version', '{"format":"attested key backend","version":2,"backend":"tpm"}', 'key_store_corrupt'],
    [
      'with a backend that is unknown',
      '{"format":"attested key backend","version":1,"backend":"none"}',
      'key_store_corrupt',
    ],
    ['with a member more', '{"format":"attested key backend","version":1,"backend":"tpm","x":1}', 'key_store_corrupt'],
  ])('a backend file that is %s is no file to go on without', async (_what, content, code) => {
    await identity('auto');
    await writeFile(file(), content);
    await expect(openKeys('auto', options)).rejects.toMatchObject({ code, message: expect.stringContaining(file()) });
    await expect(openKeys('software', options)).rejects.toMatchObject({ code });
    expect(await readFile(file(), 'utf8')).toBe(content);
  });

  test('a backend file that others may write is refused', async () => {
    await identity('auto');
    await chmod(file(), 0o666);
    await expect(openKeys('auto', options)).rejects.toMatchObject(unavailable('chmod 600'));
  });

  test('of two that choose at once the first one is kept, and the other one is told', async () => {
    const [first, second] = [await openKeys('auto', options), await openKeys('auto', options)];
    await rememberBackend(place.directory, 'tpm', () => false); // a third process, which could reach a TPM
    for (const keys of [first, second]) {
      await expect(keys.createKey({ label: 'a key' })).rejects.toMatchObject(
        unavailable('has chosen tpm', 'open the keys again'),
      );
      expect(await keys.listKeys()).toEqual([]);
      await keys.close();
    }
    await expect(openKeys('auto', options)).rejects.toMatchObject(unavailable('in the TPM'));
  });

  test('many at once agree', async () => {
    const results = await Promise.all(Array.from({ length: 6 }, () => identity('auto')));
    expect(new Set(results.map(({ thumbprint }) => thumbprint)).size).toBe(1);
  });
});

describe.skipIf(skipTpm)('with a TPM', () => {
  test('auto takes it, and finds the same identity again', async () => {
    await withTpm();
    const first = await identity('auto');
    expect(first).toMatchObject({ kind: 'tpm', why: expect.stringMatching(/^tpm: [^;]*$/) });
    expect(await identity('auto')).toMatchObject({ kind: 'tpm', thumbprint: first.thumbprint });
  });

  test('an identity in a TPM that does not answer is not replaced by a weaker one', async () => {
    const { kill, restart } = await withTpm();
    const { thumbprint } = await identity('auto');
    await kill();
    await expect(openKeys('auto', options)).rejects.toMatchObject(
      unavailable('in the TPM, which cannot be used', "downgrade: 'allow'"),
    );
    await expect(openKeys('software', options)).rejects.toMatchObject(unavailable('in the TPM', "downgrade: 'allow'"));
    await expect(stat(place.store)).rejects.toMatchObject({ code: 'ENOENT' });
    await restart();
    expect(await identity('auto')).toMatchObject({ kind: 'tpm', thumbprint });
  });

  test('it is given up where that is allowed, for good', async () => {
    const { kill, restart } = await withTpm();
    const { thumbprint } = await identity('auto');
    await kill();
    const looked = await openKeys('auto', { ...options, downgrade: 'allow' });
    expect(looked).toMatchObject({ kind: 'software', why: expect.stringContaining('not tpm: ') });
    await looked.close();
    expect(await rememberedBackend(place.directory)).toBe('tpm'); // until a key is made
    const weaker = await identity('auto', { downgrade: 'allow' });
    expect(weaker.kind).toBe('software');
    expect(weaker.thumbprint).not.toBe(thumbprint);
    await restart();
    const again = await identity('auto');
    expect(again).toMatchObject({ kind: 'software', thumbprint: weaker.thumbprint });
    expect(again.why).toContain("openKeys('tpm', { directory })");
    // and taken up again by name: the old key is still there
    expect(await identity('tpm')).toMatchObject({ kind: 'tpm', thumbprint });
    expect(await identity('auto')).toMatchObject({ kind: 'tpm', thumbprint });
  });

  test('software by name is weaker too, and opens where that is allowed', async () => {
    await withTpm();
    await identity('auto');
    await expect(openKeys('software', options)).rejects.toMatchObject(unavailable('in the TPM'));
    const keys = await openKeys('software', { ...options, downgrade: 'allow' });
    expect(keys.kind).toBe('software');
    await keys.close();
    expect(await identity('auto')).toMatchObject({ kind: 'tpm' });
    const memory = await openKeys('software'); // no directory, no identity to give up
    await memory.createKey({ label: 'a key' });
    await memory.close();
  });

  test('a directory from before backend.json stays with its files, and says how to move up', async () => {
    const { thumbprint } = await identity('software');
    await rm(file());
    await withTpm();
    const again = await identity('auto');
    expect(again).toMatchObject({ kind: 'software', thumbprint });
    expect(again.why).toMatch(/there is a TPM: openKeys\('tpm', \{ directory \}\)/);
    expect(await rememberedBackend(place.directory)).toBe('software');
    const stronger = await identity('tpm');
    expect(stronger.thumbprint).not.toBe(thumbprint);
    expect(await identity('auto')).toMatchObject({ kind: 'tpm', thumbprint: stronger.thumbprint });
  });

  test('a directory that lost its backend.json is still known to be in the TPM', async () => {
    const { kill } = await withTpm();
    await identity('auto');
    await rm(file());
    await kill();
    await expect(openKeys('auto', options)).rejects.toMatchObject(unavailable('in the TPM'));
  });
});

describe.skipIf(skipKeychain)('with a keychain', () => {
  test('auto takes it where there is no TPM', async () => {
    await withKeyring();
    const first = await identity('auto');
    expect(first).toMatchObject({ kind: 'keychain', why: expect.stringMatching(/^keychain: .*; not tpm: /) });
    expect(await identity('auto')).toMatchObject({ kind: 'keychain', thumbprint: first.thumbprint });
  });

  test('an identity in a keychain that is gone or locked is not replaced by a weaker one', async () => {
    const { kill, unlock, lock } = await withKeyring();
    const { thumbprint } = await identity('auto');
    await kill();
    await expect(openKeys('auto', options)).rejects.toMatchObject(
      unavailable('keychain, which cannot be used', "downgrade: 'allow'"),
    );
    await expect(openKeys('software', options)).rejects.toMatchObject(unavailable('keychain'));
    await lock();
    await expect(openKeys('auto', options)).rejects.toMatchObject({ code: 'key_store_locked' });
    await unlock();
    expect(await identity('auto')).toMatchObject({ kind: 'keychain', thumbprint });
  });

  test('one that is locked at the first start is not passed over without a word', async () => {
    const { lock } = await withKeyring();
    const elsewhere = { ...options, directory: join(place.root, 'elsewhere') };
    await (await openKeys('auto', elsewhere)).close(); // the keychain has a collection now
    await lock();
    await expect(openKeys('auto', options)).rejects.toMatchObject({
      code: 'key_store_locked',
      message: expect.stringContaining("openKeys('software', { directory })"),
    });
    expect(await identity('software')).toMatchObject({ kind: 'software' });
    expect(await identity('auto')).toMatchObject({ kind: 'software' });
  });

  test.skipIf(skipTpm)('a TPM goes before it, and a way up from it is told', async () => {
    await withKeyring();
    const { thumbprint } = await identity('auto');
    await withTpm();
    const again = await identity('auto');
    expect(again).toMatchObject({ kind: 'keychain', thumbprint });
    expect(again.why).toContain('there is a TPM');
    await expect(identity('auto', { directory: join(place.root, 'new') })).resolves.toMatchObject({ kind: 'tpm' });
  });
});
