/**
 * The operating system's keychain through `@napi-rs/keyring`: Secret Service on Linux, Keychain on macOS, Credential Manager
 * on Windows.
 *
 * For a process of its own. Creating an entry talks to D-Bus synchronously, a D-Bus that does not answer so stops the event
 * loop, and a connection that failed once is not tried again in the same process.
 */
import type { AsyncEntry, EntryOptions } from '@napi-rs/keyring';

export interface KeyringEntries {
  get(service: string, account: string): Promise<Uint8Array | undefined>;
  set(service: string, account: string, secret: Uint8Array): Promise<void>;
  /** False when there was none. */
  delete(service: string, account: string): Promise<boolean>;
  /** Accounts of a service. */
  list(service: string): Promise<string[]>;
}

// The library would silently fall back to the kernel's keyring, which forgets everything at the next start.
const ONLY_SECRET_SERVICE: EntryOptions = { linux: { store: 'secret-service' } };

/** @throws Error when the package has no binary for this platform */
export async function openKeyring(): Promise<KeyringEntries> {
  const keyring = await import('@napi-rs/keyring');
  const entry = (service: string, account: string): AsyncEntry =>
    new keyring.AsyncEntry(service, account, ONLY_SECRET_SERVICE);
  return {
    async get(service, account) {
      const secret = await entry(service, account).getSecret();
      return secret === null ? undefined : Uint8Array.from(secret);
    },
    set: async (service, account, secret) => entry(service, account).setSecret(secret),
    delete: async (service, account) => entry(service, account).deleteCredential(),
    async list(service) {
      const found = await keyring.findCredentialsAsync(service);
      return [...new Set(found.map(({ account }) => account))];
    },
  };
}
