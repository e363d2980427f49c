/** `attested/keys`: where instance keys live. */
import { AttestedError } from '../errors.ts';
import { defaultDirectory } from './directories.ts';
import { openKeychainKeys } from './keychain.ts';
import { assertOptions, type OpenKeysOptions } from './options.ts';
import type { KeyProvider } from './provider.ts';
import { openFileKeys } from './software/files.ts';
import { openMemoryKeys } from './software/memory.ts';

export type { SignatureAlgorithm } from '../core/algorithms.ts';
export type { JsonWebKey, Signer } from '../core/signer.ts';
export type { KeyStorage } from '../core/storage.ts';
export { AttestedError, type ErrorCode } from '../errors.ts';
export { macSignerOf as macSigner } from '../platform/crypto.ts';
export { defaultDirectory } from './directories.ts';
export type { OpenKeysOptions } from './options.ts';
export type { KeyInfo, KeyProvider, SecretStore } from './provider.ts';
export { generateSigner, importSigner } from './signers.ts';

/** A place for keys; `auto` takes the best that this machine has. */
export type KeyBackend = KeyProvider['kind'];
type Opener = (options: OpenKeysOptions) => Promise<KeyProvider>;

const openers: Readonly<Record<KeyBackend, Opener>> = {
  tpm: notInThisVersion('keys in a TPM'),
  keychain: openKeychainKeys,
  software: openSoftwareKeys,
};

/** From the strongest to the weakest. */
const order: readonly KeyBackend[] = ['tpm', 'keychain', 'software'];

/**
 * Opens a key provider.
 *
 * `auto` takes the first of tpm, keychain and software that is there; `why` of the provider says which, and why not the
 * others. `software` with a `directory` keeps keys in files, encrypted under the passphrase or, without one, under a secret
 * of this machine; without a `directory` it keeps them in memory.
 *
 * What files protect against: other users (by their mode) and whoever gets a copy of the directory, such as a backup. Under a
 * passphrase also whoever gets the whole disk, as far as he cannot guess it. Not: programs that run as the same user.
 *
 * @throws AttestedError
 *   `invalid_argument` for options that are unusable or contradict each other;
 *   `key_store_unavailable` when the place cannot be used: not in this version, no permission, wrong owner, disk full;
 *   `key_store_locked` when the directory was made with a secret that was not given;
 *   `key_store_wrong_secret` for a wrong passphrase, or a directory that was copied from another machine;
 *   `key_store_corrupt` when the store's files are damaged
 */
export async function openKeys(kind: 'auto' | KeyBackend, options: OpenKeysOptions = {}): Promise<KeyProvider> {
  assertOptions(options);
  if (kind === 'auto') return openBest({ ...options, directory: options.directory ?? defaultDirectory() });
  if (!Object.hasOwn(openers, kind)) {
    throw new AttestedError('invalid_argument', `no such key provider: it is auto, ${order.join(', ')}`);
  }
  return openers[kind](options);
}

/** Only a backend that is not there is passed over: a wrong passphrase or a damaged store must not lead to other keys. */
async function openBest(options: OpenKeysOptions): Promise<KeyProvider> {
  const passedOver: string[] = [];
  const causes: unknown[] = [];
  for (const kind of order) {
    try {
      const provider = await openers[kind](options);
      return { ...provider, why: [`${kind}: ${provider.why}`, ...passedOver].join('; ') };
    } catch (error) {
      if (!(error instanceof AttestedError) || error.code !== 'key_store_unavailable') throw error;
      passedOver.push(`not ${kind}: ${error.message}`);
      causes.push(error);
    }
  }
  throw new AttestedError('key_store_unavailable', `no place for keys; ${passedOver.join('; ')}`, {
    cause: new AggregateError(causes),
  });
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

function notInThisVersion(what: string): Opener {
  return async () => {
    throw new AttestedError('key_store_unavailable', `${what} are not in this version`);
  };
}
