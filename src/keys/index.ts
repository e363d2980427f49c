/** `attested/keys`: where instance keys live. */
import { AttestedError } from '../errors.ts';
import { type KeyBackend, keyKinds } from './backend.ts';
import { openBest, openNamed } from './choice.ts';
import { defaultDirectory } from './directories.ts';
import { openKeychainKeys } from './keychain.ts';
import { assertOptions, type OpenKeysOptions } from './options.ts';
import type { KeyProvider } from './provider.ts';
import { openFileKeys } from './software/files.ts';
import { openMemoryKeys } from './software/memory.ts';
import { openTpmKeys } from './tpm.ts';

export type { SignatureAlgorithm } from '../core/algorithms.ts';
export type { JsonWebKey, Signer } from '../core/signer.ts';
export type { KeyStorage } from '../core/storage.ts';
export { AttestedError, type ErrorCode } from '../errors.ts';
export { macSignerOf as macSigner } from '../platform/crypto.ts';
export type { KeyBackend } from './backend.ts';
export { defaultDirectory } from './directories.ts';
export type { OpenKeysOptions } from './options.ts';
export type { KeyInfo, KeyProvider, SecretStore } from './provider.ts';
export { generateSigner, importSigner } from './signers.ts';
export type { TpmOptions } from './tpm/options.ts';

type Opener = (options: OpenKeysOptions) => Promise<KeyProvider>;

const openers: Readonly<Record<KeyBackend, Opener>> = {
  tpm: openTpmKeys,
  keychain: openKeychainKeys,
  software: openSoftwareKeys,
};

/**
 * Opens a key provider.
 *
 * `auto` takes the first of tpm, keychain and software that is there; `why` of the provider says which, and why not the
 * others. A directory remembers the choice once its first key is made: from then on `auto` opens the same backend, whatever
 * else is there, and refuses when it is not (see `downgrade`). To move up, name the stronger backend: new keys are made in it,
 * and `auto` takes it from then on.
 *
 * `tpm` and `keychain` without a `directory` take the default one. `software` with a `directory` keeps keys in files, encrypted
 * under the passphrase or, without one, under a secret of this machine; without a `directory` it keeps them in memory.
 * `passphrase` and `machineSecret` concern files only: `auto` uses them where it comes to files.
 *
 * What files protect against: other users (by their mode) and whoever gets a copy of the directory, such as a backup. Under a
 * passphrase also whoever gets the whole disk, as far as he cannot guess it. Not: programs that run as the same user. The
 * keychain protects against the whole disk too, while it is locked. A key in a TPM cannot be copied by anybody.
 *
 * @throws AttestedError
 *   `invalid_argument` for options that are unusable or contradict each other;
 *   `key_store_unavailable` when the place cannot be used: not there, no permission, wrong owner, disk full; or when the
 *   directory's keys are in a stronger place;
 *   `key_store_locked` when the keychain is locked, or the directory was made with a secret that was not given;
 *   `key_store_wrong_secret` for a wrong passphrase, or a directory that was copied from another machine;
 *   `key_store_corrupt` when the store's files are damaged
 */
export async function openKeys(kind: 'auto' | KeyBackend, options: OpenKeysOptions = {}): Promise<KeyProvider> {
  assertOptions(options);
  if (kind !== 'auto' && !Object.hasOwn(openers, kind)) {
    throw new AttestedError('invalid_argument', `no such key provider: it is ${keyKinds.join(', ')}`);
  }
  if (kind === 'software' && options.directory === undefined) return openers.software(options);
  const placed = { ...options, directory: options.directory ?? defaultDirectory() };
  return kind === 'auto' ? openBest(openers, placed) : openNamed(openers, kind, placed);
}

async function openSoftwareKeys(options: OpenKeysOptions): Promise<KeyProvider> {
  if (options.directory !== undefined) return openFileKeys(options.directory, options);
  if (options.passphrase !== undefined || options.machineSecret !== undefined) {
    throw new AttestedError(
      'invalid_argument',
      'a passphrase or machineSecret encrypts files: name their directory too',
    );
  }
  return openMemoryKeys();
}
