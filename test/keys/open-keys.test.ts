import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { openKeys } from 'attested/keys';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { directoriesOf } from '../../src/keys/directories.ts';
import { makePlace, type Place } from './places.ts';

const machineSecret = Buffer.alloc(32, 7);
let place: Place;
beforeEach(async () => {
  place = await makePlace();
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await place.dispose();
});

describe('openKeys', () => {
  test.each(['none', '', 'Software', '__proto__', 'toString'])('there is no provider %j', async (kind) => {
    await expect(openKeys(kind as 'auto')).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  test('software without a directory keeps keys in memory, and says so', async () => {
    const keys = await openKeys('software');
    expect(keys.directory).toBeUndefined();
    expect(keys.why).toContain('end with it');
    await keys.close();
  });

  test('software with a directory keeps files there, and says what they are encrypted under', async () => {
    const keys = await openKeys('software', { directory: place.directory, machineSecret });
    expect(keys).toMatchObject({ kind: 'software', assurance: 'software', directory: place.directory });
    expect(keys.why).toContain(place.store);
    expect((await stat(place.directory)).mode & 0o777).toBe(0o700);
    await keys.close();
  });

  test('a relative directory is the one it was at opening, and is told as an absolute path', async () => {
    const keys = await openKeys('software', { directory: join(place.directory, '..', 'state'), machineSecret });
    expect(keys.directory).toBe(resolve(place.directory));
    await keys.close();
  });

  test.each([
    ['an empty directory', { directory: '' }],
    ['a directory with NUL', { directory: 'a\0b' }],
    ['an empty passphrase', { directory: '/tmp', passphrase: '' }],
    ['a short machineSecret', { directory: '/tmp', machineSecret: Buffer.alloc(15) }],
    ['a machineSecret that is text', { directory: '/tmp', machineSecret: 'x'.repeat(32) as unknown as Uint8Array }],
    ['two secrets', { directory: '/tmp', passphrase: 'x', machineSecret }],
    ['a passphrase and no directory', { passphrase: 'x' }],
    ['a machineSecret and no directory', { machineSecret }],
    ['too cheap a scrypt', { directory: '/tmp', passphrase: 'x', scryptLog2N: 13 }],
    ['too dear a scrypt', { directory: '/tmp', passphrase: 'x', scryptLog2N: 19 }],
    ['room for no key', { directory: '/tmp', maxLoadedKeys: 0 }],
    ['a downgrade that is neither refused nor allowed', { directory: '/tmp', downgrade: true as unknown as 'allow' }],
    ['a keychain service that is empty', { directory: '/tmp', keychainService: '' }],
    ['a keychain that has no time', { directory: '/tmp', keychainTimeout: 99 }],
    ['a TPM option that there is not', { directory: '/tmp', tpm: { tctl: 'device' } as object }],
  ])('refuses %s', async (_what, options) => {
    await expect(openKeys('software', options)).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  test('a misspelt option is named on standard error, and changes nothing else', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const keys = await openKeys('software', { dir: '/nowhere' } as never);
    expect(keys.directory).toBeUndefined();
    expect(warned).toHaveBeenCalledExactlyOnceWith(expect.stringContaining('knows the options directory'), {
      type: 'AttestedWarning',
      code: 'unknown_option',
    });
    warned.mockClear();
    await openKeys('software', {});
    expect(warned).not.toHaveBeenCalled();
    warned.mockRestore();
    await keys.close();
  });
});

describe('directories', () => {
  const home = resolve('/home/agent');
  test.each<[string, Record<string, string>, NodeJS.Platform, string]>([
    ['Linux', {}, 'linux', '/home/agent/.local/state/attested'],
    ['XDG', { XDG_STATE_HOME: '/var/state' }, 'linux', '/var/state/attested'],
    [
      'a relative XDG directory, which counts as none',
      { XDG_STATE_HOME: 'state' },
      'linux',
      '/home/agent/.local/state/attested',
    ],
    ['ATTESTED_HOME', { ATTESTED_HOME: '/srv/keys', XDG_STATE_HOME: '/var/state' }, 'linux', '/srv/keys'],
    ['ATTESTED_HOME, empty', { ATTESTED_HOME: '' }, 'linux', '/home/agent/.local/state/attested'],
    ['macOS', {}, 'darwin', '/home/agent/Library/Application Support/attested'],
    ['Windows', { LOCALAPPDATA: '/users/agent/local' }, 'win32', '/users/agent/local/attested'],
    ['Windows without its variable', {}, 'win32', '/home/agent/AppData/Local/attested'],
  ])('%s', (_what, env, platform, expected) => {
    const { state, machine } = directoriesOf({ env, platform, home });
    expect(state).toBe(expected);
    // a copy of the state directory never takes the machine's secret along
    expect(machine.startsWith(`${expected}/`)).toBe(false);
    expect(machine).toMatch(/\/attested-machine$/);
  });
});
