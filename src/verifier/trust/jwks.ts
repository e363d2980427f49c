/** Trust in keys that were exchanged beforehand (IMPL-5). */
import type { JsonWebKey } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { clientSet, importJwks, selectKeys, type TrustOptions, type TrustSource } from './source.ts';

export interface JwksOptions extends TrustOptions {
  /** The attester's public keys. */
  keys: readonly JsonWebKey[];
  /** Origins from which this attester's status lists may be fetched, such as `https://attester.example`. */
  statusOrigins?: readonly string[];
}

/** Trusts the given public keys. @throws AttestedError `invalid_argument` when there are no keys, or one is private, weak or unsupported */
export function jwks({ keys, clients, attester, statusOrigins = [] }: JwksOptions): TrustSource {
  if (!Array.isArray(keys)) throw new AttestedError('invalid_argument', 'jwks takes a JWK Set: { keys: […], clients }');
  const entries = importJwks(
    keys,
    { attester, clients: clientSet(clients), validUntil: Number.POSITIVE_INFINITY, statusOrigins },
    false,
  );
  // one source is one attester, so that a list signed with one of its keys judges what it signed with another
  const name = attester ?? entries[0]?.trusted.attester;
  if (name !== undefined) for (const { trusted } of entries) trusted.attester = name;
  return { find: (header) => selectKeys(entries, header) };
}
