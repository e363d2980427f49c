import { type KeyProvider, openKeys } from 'attested/keys';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { verifiesInNode } from '../contract/key-provider.ts';
import { type Keyring, skipKeychain, startKeyring } from '../support/keyring.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { makePlace, type Place } from './places.ts';

const data = Buffer.from('the bytes to be signed');

describe.skipIf(skipTpm || skipKeychain)('TPM keys whose auth value is in the keychain', () => {
  let tpm: Swtpm;
  let place: Place;
  let keyring: Keyring;
  beforeAll(async () => {
    [tpm, place, keyring] = [await startSwtpm(), await makePlace(), await startKeyring()];
    for (const [name, value] of Object.entries(keyring.env)) vi.stubEnv(name, value);
  }, 60_000);
  afterAll(async () => {
    vi.unstubAllEnvs();
    await keyring.stop();
    await tpm.stop();
    await place.dispose();
  });

  const open = (keyAuth: 'keychain' | undefined = 'keychain'): Promise<KeyProvider> =>
    openKeys('tpm', { directory: place.directory, tpm: { tcti: tpm.tcti, ...(keyAuth && { keyAuth }) } });

  test('are made and found again, and work with it only', async () => {
    const [first, second] = await Promise.all([open(), open()]); // both would make the entry
    const signer = await first.createKey({ label: 'a key' });
    expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
    const found = await second.getKey('a key');
    expect(verifiesInNode(signer, await found!.sign(data))).toBe(true);
    await first.secrets.set('a secret', data);
    await Promise.all([first.close(), second.close()]);

    const again = await open();
    expect(verifiesInNode(signer, await (await again.getKey('a key'))!.sign(data))).toBe(true);
    expect(Buffer.from((await again.secrets.get('a secret'))!)).toEqual(data);
    await again.close();

    const without = await openKeys('tpm', { directory: place.directory, tpm: { tcti: tpm.tcti } });
    await expect(without.getKey('a key')).rejects.toMatchObject({ code: 'key_store_locked' });
    await without.close();
  });

  test('are locked with the keychain', async () => {
    await keyring.lock();
    await expect(
      openKeys('tpm', {
        directory: place.directory,
        keychainTimeout: 3000,
        tpm: { tcti: tpm.tcti, keyAuth: 'keychain' },
      }),
    ).rejects.toMatchObject({ code: 'key_store_locked' });
    await keyring.unlock();
    await (await open()).close();
  });
});
