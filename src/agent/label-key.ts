/**
 * The key of the hashes in key labels. Labels stand in clear beside the keys, where a copied directory or a keychain tool shows
 * them: were everything that goes into a hash there as well, a guess at a server's name could be checked. So it is a secret of
 * the key provider's, apart from the state, and still there when that is lost.
 */
import { randomBytes } from 'node:crypto';
import { utf8 } from '../core/bytes.ts';
import { AttestedError } from '../errors.ts';
import { withDirectoryLock } from '../keys/files/lock.ts';
import type { KeyProvider, SecretStore } from '../keys/provider.ts';
import { sha256Base64url } from '../platform/crypto.ts';

const BYTES = 32;

/**
 * @param enrolment the enrolment key's thumbprint: serves where no secret can be kept, and everybody with the labels knows it
 * @throws AttestedError `key_store_*` when the secret cannot be read now
 */
export async function openLabelKey(keys: KeyProvider, clientId: string, enrolment: string): Promise<Uint8Array> {
  const { secrets, directory } = keys;
  if (secrets === undefined) return utf8(enrolment);
  const name = `attested:agent-labels:${sha256Base64url(clientId)}`;
  const known = await read(secrets, name);
  if (known !== undefined) return known;
  const make = async () => {
    // another process may have been first
    const made = await read(secrets, name);
    if (made !== undefined) return made;
    await secrets.set(name, randomBytes(BYTES));
    return read(secrets, name);
  };
  const made = await (directory === undefined
    ? make()
    : withDirectoryLock(directory, make, { name: 'agent-labels.lock' })
  ).catch(() => undefined);
  return made ?? utf8(enrolment);
}

async function read(secrets: SecretStore, name: string): Promise<Uint8Array | undefined> {
  const bytes = await secrets.get(name).catch((error: unknown) => {
    // damaged for good is lost; locked or out of reach is another matter, and may pass
    if (error instanceof AttestedError && error.code === 'key_store_corrupt') return undefined;
    throw error;
  });
  return bytes?.length === BYTES ? bytes : undefined;
}
