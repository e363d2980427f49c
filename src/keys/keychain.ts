/** Keys in the operating system's keychain, which keeps them from other users and encrypts them at rest. */
import { resolve } from 'node:path';
import { AttestedError } from '../errors.ts';
import { defaultDirectory } from './directories.ts';
import { keepKeys } from './kept.ts';
import { connectKeychain, type Keychain } from './keychain/client.ts';
import { type EntryKey, newEntry, openEntry, signWith } from './keychain/entry.ts';
import { openKeychainStore } from './keychain/store.ts';
import { isLabel } from './labels.ts';
import type { OpenKeysOptions } from './options.ts';
import type { KeyInfo, KeyProvider } from './provider.ts';
import { fileSecrets } from './secrets.ts';

export const KEYCHAIN_SERVICE = 'attested';
export const KEYCHAIN_TIMEOUT = 60_000;

/**
 * Opens the user's keychain: Secret Service on Linux, Keychain on macOS, Credential Manager on Windows. Each key is an entry
 * of the service `attested` whose account is the label, so the keys are the user's: who opens the keychain with another
 * directory finds the same ones.
 *
 * Keys are made in this process, and imported non-extractable when they are read. Programs that run as the same user can
 * read the entries while the keychain is unlocked, on Linux without being asked.
 *
 * @throws AttestedError `key_store_locked` when the keychain is locked, denies access or waits for a person for too long;
 *   `key_store_unavailable` when there is none; `key_store_corrupt` for a damaged directory
 */
export async function openKeychainKeys(options: OpenKeysOptions = {}): Promise<KeyProvider> {
  const { directory = defaultDirectory(), keychainService: service = KEYCHAIN_SERVICE } = options;
  const home = resolve(directory);
  const keychain = connectKeychain(options.keychainTimeout ?? KEYCHAIN_TIMEOUT);
  try {
    const store = await openKeychainStore(home, service, keychain);
    const { assertOpen, close, ...keys } = keepKeys<EntryKey>(
      {
        async read(label, held) {
          const entry = await keychain.get(service, label);
          return entry && openEntry(label, entry, held);
        },
        make: (label, alg) => makeEntry(service, label, newEntry(alg), keychain),
        remove: (label) => keychain.delete(service, label),
        list: () => listEntries(service, keychain),
        sign: signWith,
        withLock: store.withLock,
      },
      options.maxLoadedKeys,
    );
    return {
      kind: 'keychain',
      assurance: 'keychain',
      why: `${NAMES[process.platform] ?? NAMES.linux}: other users and whoever gets the disk cannot read the keys, programs that run as the same user can`,
      directory: home,
      ...keys,
      secrets: fileSecrets({ directory: store.directory, key: async () => store.root, assertOpen }),
      async close() {
        await close();
        keychain.close();
      },
    };
  } catch (error) {
    keychain.close();
    throw error;
  }
}

const NAMES: Partial<Record<NodeJS.Platform, string>> = {
  linux: "the user's keychain (Secret Service)",
  darwin: "the user's keychain (macOS Keychain)",
  win32: "the user's keychain (Windows Credential Manager)",
};

/** An entry is read again before and after it is written: some system may have let two of us through the lock. */
async function makeEntry(service: string, label: string, entry: Uint8Array, keychain: Keychain): Promise<void> {
  if ((await keychain.get(service, label)) !== undefined) return;
  try {
    await keychain.set(service, label, entry);
  } finally {
    entry.fill(0);
  }
}

/** Entries of ours; what else is kept under the service is no key, and is left alone. */
async function listEntries(service: string, keychain: Keychain): Promise<KeyInfo[]> {
  const keys: KeyInfo[] = [];
  for (const label of (await keychain.list(service)).filter(isLabel)) {
    const entry = await keychain.get(service, label);
    if (entry === undefined) continue; // deleted since
    try {
      const { alg, thumbprint } = (await openEntry(label, entry, undefined)).part;
      keys.push({ label, alg, thumbprint });
    } catch (error) {
      if (!(error instanceof AttestedError)) throw error;
    }
  }
  return keys;
}
