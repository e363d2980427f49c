/** What the demo leaves in the user's keychain: nothing. */
import { connectKeychain } from '../../keys/keychain/client.ts';

/** Milliseconds. */
const WITHIN = 5000;

/** Deletes every entry of a service that is the demo's own, and of the one beside it where the secrets' key is. */
export async function forgetKeychain(service: string): Promise<void> {
  const keychain = connectKeychain(WITHIN);
  try {
    for (const each of [service, `${service} secrets`]) {
      for (const account of await keychain.list(each)) await keychain.delete(each, account);
    }
  } finally {
    keychain.close();
  }
}
