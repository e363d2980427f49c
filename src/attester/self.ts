/** A client that attests itself. */
import type { JsonObject } from '../core/json.ts';
import type { Signer } from '../core/signer.ts';
import { type Attester, createAttester } from './attester.ts';

export interface SelfAttesterOptions {
  clientId: string;
  /** The client's own attester key, which servers have to know as speaking for this client_id and no other. */
  signer: Signer | readonly Signer[];
  /** Default a name that resolves nowhere: nothing is fetched from a self-attester. */
  issuer?: string;
  /** Seconds. Default 3600. */
  lifetime?: number;
  claims?: JsonObject;
  /** Milliseconds since the epoch. Default `Date.now`. */
  now?: () => number;
}

/**
 * An attester inside the agent's own process, for one client_id.
 *
 * What its attestations prove is possession of the client's own attester key and of the instance key, nothing else: no
 * second party has looked at the machine or the key's storage, and who copies the attester key can attest any key. It
 * lets everybody in who reaches its handler, so never serve that handler to a network. There is no status list, since
 * nobody could fetch it: keep the lifetime short.
 *
 * @throws AttestedError `invalid_argument`
 */
export function selfAttester(options: SelfAttesterOptions): Attester {
  const { clientId, signer, issuer = 'https://self-attester.invalid', lifetime = 3600, claims = {}, now } = options;
  const client = { lifetime, claims, enrolment: { allow: 'any' as const } };
  return createAttester({
    issuer,
    signer,
    policy: { clients: { [clientId]: client } },
    statusList: false,
    ...(now && { now }),
  });
}
