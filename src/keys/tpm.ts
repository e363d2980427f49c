/** Keys in a TPM 2.0: made there, used there, never outside. */
import { join, resolve } from 'node:path';
import { defaultDirectory } from './directories.ts';
import { removePrivateFile } from './files/guarded.ts';
import { keyFileName, listKeyFiles } from './files/key-files.ts';
import { withDirectoryLock } from './files/lock.ts';
import { openPlace } from './files/place.ts';
import { keepKeys } from './kept.ts';
import { KEYCHAIN_SERVICE, KEYCHAIN_TIMEOUT } from './keychain.ts';
import type { OpenKeysOptions } from './options.ts';
import type { KeyProvider } from './provider.ts';
import { fileSecrets } from './secrets.ts';
import { algorithmsOf } from './tpm/algorithms.ts';
import { parseKeyBlob } from './tpm/blobs.ts';
import { createCommand, DEADLINE } from './tpm/commands.ts';
import { createDevice } from './tpm/device.ts';
import { keyAuthFromKeychain } from './tpm/key-auth.ts';
import { createTpmKeys, type TpmKey } from './tpm/keys.ts';
import type { Opened } from './tpm/protocol.ts';
import { type SharedTpm, shareTpm } from './tpm/registry.ts';
import { addressOf, chooseTcti, type Tcti } from './tpm/tcti.ts';

/**
 * Opens the machine's TPM. Keys are made in it and wrapped by its storage key; the wrapped blobs are files, of use in this TPM
 * only. The TPM is talked to by a helper process, so that one which hangs or crashes takes nothing along: each request ends
 * by its deadline, and the next one has a new helper.
 *
 * Nothing in the TPM is changed for good: no persistent key, no password, no ownership.
 *
 * @throws AttestedError `key_store_unavailable` when there is no TPM, no tpm2-tss, no permission or no answer;
 *   `key_store_unavailable` also for the directory, as with keys in files
 */
export async function openTpmKeys(options: OpenKeysOptions = {}): Promise<KeyProvider> {
  const tcti = chooseTcti(options.tpm?.tcti);
  const shared = shareTpm(addressOf(tcti));
  try {
    return await openOn(shared, tcti, options);
  } catch (error) {
    await shared.release();
    throw error;
  }
}

async function openOn(shared: SharedTpm, tcti: Tcti, options: OpenKeysOptions): Promise<KeyProvider> {
  const { directory: parent = defaultDirectory(), maxLoadedKeys, tpm = {} } = options;
  const home = resolve(parent);
  const command = createCommand(shared.request, tpm.deadline ?? DEADLINE);
  const [opened, directory] = await Promise.all([command('open', []), openPlace(home, 'tpm')]);
  const use = { keyAuth: await keyAuthOf(directory, options), salted: tpm.saltedSessions ?? false };
  const available = algorithmsOf(opened);
  const { read, make, sign, secretsKey } = createTpmKeys({
    command,
    directory,
    use,
    pcrs: tpm.pcrs && structuredClone(tpm.pcrs),
    available,
    parent: opened.parent.name,
  });
  const { assertOpen, close, ...keys } = keepKeys<TpmKey>(
    {
      read,
      make,
      sign,
      remove: (label) => withDirectoryLock(directory, () => removePrivateFile(join(directory, keyFileName(label)))),
      list: () => listKeyFiles(directory, (...file) => parseKeyBlob(...file).part),
      // the TPM may take its time: the directory is locked for the moment of writing only, and there the first one wins
      withLock: (job) => job(),
    },
    maxLoadedKeys,
  );
  return {
    kind: 'tpm',
    assurance: 'hardware',
    why: why(tcti, opened),
    directory: home,
    ...keys,
    tpm: createDevice({
      command,
      directory,
      use,
      assertOpen,
      keyOf: async (label) => (await read(label, undefined))?.key,
    }),
    secrets: fileSecrets({ directory, key: secretsKey, assertOpen }),
    async close() {
      await close();
      await shared.release();
    },
  };
}

async function keyAuthOf(directory: string, options: OpenKeysOptions): Promise<Uint8Array | undefined> {
  const { tpm: { keyAuth } = {}, keychainService = KEYCHAIN_SERVICE, keychainTimeout = KEYCHAIN_TIMEOUT } = options;
  if (keyAuth === 'keychain') return keyAuthFromKeychain(directory, keychainService, keychainTimeout);
  return keyAuth && Uint8Array.from(keyAuth);
}

function why({ tcti, managed }: Tcti, { parent }: Opened): string {
  const through = managed
    ? 'through a resource manager'
    : 'without a resource manager, sharing its few slots with others';
  const under = parent.persistent ? 'its persistent storage key' : 'a storage key that it makes again each time';
  return `a TPM 2.0 (${tcti.split(':', 1)[0]}), ${through}, under ${under}: keys cannot be copied off this machine, programs that run as the same user can use them on it`;
}
