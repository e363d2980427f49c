/** Which attested client a request comes from, for code of the operator that runs deep inside an authorization server. */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { AttestedClient } from '../../verifier/verifier.ts';

const clients = new AsyncLocalStorage<AttestedClient>();

/**
 * The attested client whose request is being answered; undefined outside of one. For the place where the server makes its
 * access tokens: write `thumbprint` into them, and resource servers can tell the instance.
 */
export function attestedClient(): AttestedClient | undefined {
  return clients.getStore();
}

export function runFor<T>(client: AttestedClient, work: () => T): T {
  return clients.run(client, work);
}
