/**
 * The provider's directory beside the keychain. The keychain's entries belong to the user, whatever the directory; what is
 * kept here are the secrets, sealed under a key that is itself an entry, and the name of that entry.
 */
import { createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AttestedError } from '../../errors.ts';
import { createPrivateFile } from '../../platform/files.ts';
import { machineSecretFile } from '../directories.ts';
import { corrupt, fileWork, unavailable } from '../files/faults.ts';
import { openPrivateDirectory, readPrivateFile } from '../files/guarded.ts';
import { readJsonFile, writeJsonFile } from '../files/json-file.ts';
import { withDirectoryLock } from '../files/lock.ts';
import { openPlace, placeNames } from '../files/place.ts';
import { isSecretFileName } from '../secrets.ts';
import type { Keychain } from './client.ts';

const HEADER = 'keychain.json';
const FORMAT = 'attested keychain store';
const VERSION = 1;
const ID = /^[0-9a-f]{32}$/;
const KEY_BYTES = 32;

export interface KeychainStore {
  directory: string;
  /** The root key of the secrets. */
  root: KeyObject;
  withLock: <T>(job: () => Promise<T>) => Promise<T>;
}

/**
 * Opens the directory and sees that the keychain works, by reading the secrets' key, or writing it the first time.
 * @throws AttestedError `key_store_*`
 */
export async function openKeychainStore(home: string, service: string, keychain: Keychain): Promise<KeychainStore> {
  const directory = await openPlace(home, 'keychain');
  // one lock for the user, as there is one keychain: agents with directories of their own may ask for the same label
  const lockDirectory = await openPrivateDirectory(dirname(machineSecretFile()), placeNames.keychain);
  const withLock = <T>(job: () => Promise<T>): Promise<T> => withDirectoryLock(lockDirectory, job);
  const id = (await readId(directory)) ?? (await makeId(directory));
  const entry = { service: `${service} secrets`, account: id };
  const root = (await readRoot(entry, keychain)) ?? (await withLock(() => makeRoot(entry, directory, keychain)));
  return { directory, root, withLock };
}

interface Entry {
  service: string;
  account: string;
}

async function readId(directory: string): Promise<string | undefined> {
  const path = join(directory, HEADER);
  const content = await readPrivateFile(path);
  if (content === undefined) return undefined;
  const { json, reader } = readJsonFile(path, content);
  const file = reader.object(json, ['format', 'version', 'secrets']);
  if (file.format !== FORMAT || file.version !== VERSION) reader.refuse('is no keychain store of a known version');
  const id = reader.text(file.secrets);
  return ID.test(id) ? id : reader.refuse('is damaged');
}

async function makeId(directory: string): Promise<string> {
  const path = join(directory, HEADER);
  await assertNoSecrets(directory, `${path} is missing`);
  const secrets = randomBytes(16).toString('hex');
  const content = writeJsonFile({ format: FORMAT, version: VERSION, secrets });
  await fileWork(`write ${path}`, () => createPrivateFile(path, content));
  const kept = await readId(directory); // of the process that was first
  if (kept === undefined) throw unavailable(`${path} was removed while it was in use`);
  return kept;
}

async function readRoot({ service, account }: Entry, keychain: Keychain): Promise<KeyObject | undefined> {
  const secret = await keychain.get(service, account);
  if (secret === undefined) return undefined;
  if (secret.length !== KEY_BYTES) {
    throw new AttestedError('key_store_corrupt', 'the keychain entry of the secrets is damaged; it was left as it is');
  }
  const root = createSecretKey(secret);
  secret.fill(0);
  return root;
}

async function makeRoot(entry: Entry, directory: string, keychain: Keychain): Promise<KeyObject> {
  const made = await readRoot(entry, keychain); // by another process, while we waited
  if (made !== undefined) return made;
  await assertNoSecrets(directory, 'the keychain has lost the key (or is another keychain)');
  await keychain.set(entry.service, entry.account, randomBytes(KEY_BYTES));
  const root = await readRoot(entry, keychain);
  if (root === undefined) throw unavailable('the keychain does not keep what is written to it');
  return root;
}

/** A new root key would make every secret that is there unreadable, and nobody would know why. */
async function assertNoSecrets(directory: string, why: string): Promise<void> {
  const names = await fileWork(`list ${directory}`, () => readdir(directory));
  if (names.some(isSecretFileName)) {
    throw corrupt(directory, `holds secrets, but ${why}: restore it, or delete the files that end in .secret.json`);
  }
}
