/** Where each backend has its files: below the directory that the user names, which others of our files may share. */
import type { KeyProvider } from '../provider.ts';
import { openPrivateDirectory, removeStaleTemporaries } from './guarded.ts';

export const placeNames: Readonly<Record<KeyProvider['kind'], string>> = {
  tpm: 'tpm-keys',
  keychain: 'keychain',
  software: 'software-keys',
};

/**
 * Opens a backend's private directory, made now if there is none, and removes what interrupted writes left behind in it.
 * @returns its real path
 * @throws AttestedError `key_store_unavailable`
 */
export async function openPlace(home: string, kind: KeyProvider['kind']): Promise<string> {
  const directory = await openPrivateDirectory(home, placeNames[kind]);
  await removeStaleTemporaries(directory, Date.now());
  return directory;
}
