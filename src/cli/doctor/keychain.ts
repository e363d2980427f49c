/** Does the keychain take, give and forget an entry? Anything less would be a guess: a locked one looks empty at times. */
import { randomUUID } from 'node:crypto';
import { AttestedError } from '../../errors.ts';
import { connectKeychain } from '../../keys/keychain/client.ts';
import { newEntry, openEntry, signWith } from '../../keys/keychain/entry.ts';
import { signLatency } from './measure.ts';

export interface KeychainReport {
  state: 'works' | 'locked' | 'unavailable';
  message: string;
  /** Milliseconds for reading one entry. */
  reading?: number;
  /** Milliseconds, ES256. */
  signature?: number;
}

const SERVICE = 'attested doctor';

/** @param deadline milliseconds for each call: somebody may be asked for a password */
export async function examineKeychain(deadline: number): Promise<KeychainReport> {
  const keychain = connectKeychain(deadline);
  const account = randomUUID();
  let isWritten = false;
  try {
    await keychain.set(SERVICE, account, newEntry('ES256'));
    isWritten = true;
    const begun = performance.now();
    const entry = await keychain.get(SERVICE, account);
    const reading = Math.round((performance.now() - begun) * 10) / 10;
    if (entry === undefined)
      return { state: 'unavailable', message: 'the keychain does not keep what is written to it' };
    const key = await openEntry(account, entry, undefined);
    return { state: 'works', message: 'works', reading, signature: await signLatency((data) => signWith(key, data)) };
  } catch (error) {
    if (!(error instanceof AttestedError)) throw error;
    return { state: error.code === 'key_store_locked' ? 'locked' : 'unavailable', message: error.message };
  } finally {
    // where this fails, nothing is left to be done
    if (isWritten) await keychain.delete(SERVICE, account).catch(() => false);
    keychain.close();
  }
}
