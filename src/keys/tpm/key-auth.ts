/** `tpm.keyAuth: 'keychain'`: the secret behind the keys' auth values is random, and an entry of the user's keychain. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { AttestedError } from '../../errors.ts';
import { createPrivateFile } from '../../platform/files.ts';
import { corrupt, fileWork, unavailable } from '../files/faults.ts';
import { readPrivateFile } from '../files/guarded.ts';
import { readJsonFile, writeJsonFile } from '../files/json-file.ts';
import { withDirectoryLock } from '../files/lock.ts';
import { connectKeychain, type Keychain } from '../keychain/client.ts';

const FILE = 'key-auth.json';
const FORMAT = 'attested TPM key auth';
const VERSION = 1;
const ACCOUNT = /^[0-9a-f]{32}$/;
const SECRET_BYTES = 32;

/**
 * The secret of this directory, made the first time. The directory keeps the entry's name, so that a keychain which lost the
 * entry, or is another one, is not taken for a new beginning.
 *
 * @param service of the keychain's entries
 * @param deadline of one call to the keychain, milliseconds
 * @throws AttestedError `key_store_locked` when the keychain is locked or has no such entry; `key_store_unavailable`
 */
export async function keyAuthFromKeychain(directory: string, service: string, deadline: number): Promise<Uint8Array> {
  const keychain = connectKeychain(deadline);
  const entries = `${service} TPM`;
  try {
    const account =
      (await readAccount(directory)) ?? (await withDirectoryLock(directory, () => make(directory, entries, keychain)));
    const secret = await keychain.get(entries, account);
    if (secret?.length === SECRET_BYTES) return secret;
    throw new AttestedError(
      'key_store_locked',
      `the keychain does not have the auth value of the TPM keys in ${directory}: it is another keychain, or the entry was deleted`,
    );
  } finally {
    keychain.close();
  }
}

async function readAccount(directory: string): Promise<string | undefined> {
  const path = join(directory, FILE);
  const content = await readPrivateFile(path);
  if (content === undefined) return undefined;
  const { json, reader } = readJsonFile(path, content);
  const file = reader.object(json, ['format', 'version', 'account']);
  if (file.format !== FORMAT || file.version !== VERSION) reader.refuse('is no file of a known version');
  const account = reader.text(file.account);
  return ACCOUNT.test(account) ? account : reader.refuse('is damaged');
}

/** The entry first: a file that names no entry would lock everybody out. */
async function make(directory: string, entries: string, keychain: Keychain): Promise<string> {
  const made = await readAccount(directory); // by another process, while we waited
  if (made !== undefined) return made;
  const account = randomBytes(16).toString('hex');
  const secret = randomBytes(SECRET_BYTES);
  await keychain.set(entries, account, secret);
  const kept = await keychain.get(entries, account);
  if (kept === undefined || !secret.equals(kept)) throw unavailable('the keychain does not keep what is written to it');
  const path = join(directory, FILE);
  await fileWork(`write ${path}`, () =>
    createPrivateFile(path, writeJsonFile({ format: FORMAT, version: VERSION, account })),
  );
  const written = await readAccount(directory); // of the process that was first, should the lock have been taken from us
  if (written === undefined) throw corrupt(path, 'was removed while it was made');
  return written;
}
