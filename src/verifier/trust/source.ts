/** Whom a server believes (VER-3, IMPL-5). Each kind of trust is one function that makes a `TrustSource`. */
import type { KeyObject } from 'node:crypto';
import { keyFits, type MacAlgorithm } from '../../core/algorithms.ts';
import { type PublicJwk, readPublicJwk } from '../../core/jwk.ts';
import type { JoseHeader } from '../../core/jwt.ts';
import type { JsonWebKey } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { importPublicKey, thumbprintOf } from '../../platform/crypto.ts';
import type { FetchLike } from '../../platform/http.ts';

/** A key that may have signed an attestation, and what its owner is entitled to. */
export interface TrustedKey {
  key: KeyObject;
  /** Name of the attester: an operator's name for it, a URL, a certificate subject or a key's thumbprint. */
  attester: string;
  /** The client_ids this attester may speak for; undefined = any. */
  clients: ReadonlySet<string> | undefined;
  /** Until when this may be relied on without asking the source again, milliseconds since the epoch. */
  validUntil: number;
  /** Origins from which a status list of this attester may be fetched. */
  statusOrigins: readonly string[];
  /**
   * The key that a status list of this attester with such a header is signed with. Absent: the sources are asked, which for
   * one that finds keys by client cannot be.
   */
  statusKey?: (header: JoseHeader, now: number) => Promise<KeyObject | undefined>;
  /** Fetches status lists of this attester, where its place is not the operator's choice. Default: the verifier's `status.fetch`. */
  statusFetch?: FetchLike;
}

export interface TrustSource {
  /** Algorithms of MAC keys, where the source has any: they are accepted only because an operator configured them. */
  readonly macAlgorithms?: readonly MacAlgorithm[];
  /** Whether the source asks clients' documents whom they endorse; the server's metadata then says so. */
  readonly endorsements?: true;
  /**
   * The keys that a token with this header may have been signed with, all fitting its algorithm; empty when this source
   * knows none. A header selects among configured keys and never introduces one.
   *
   * @param now milliseconds since the epoch
   * @param about what the token claims of itself, not verified yet
   * @throws AttestedError `temporarily_unavailable` when the source cannot tell at the moment, `invalid_client_attestation`
   *   when the header itself is refused
   */
  find(header: JoseHeader, now: number, about?: TokenClaims): TrustedKey[] | Promise<TrustedKey[]>;
}

/** Claims by which a source may choose where to look. Nothing of them is proved before the signature is. */
export interface TokenClaims {
  clientId: string;
  issuer: string | undefined;
}

export interface TrustOptions {
  /** The client_ids this attester may speak for. Absent: any. */
  clients?: readonly string[];
  /** Name of the attester in results and logs. */
  attester?: string;
}

/** So many keys are tried for one token at most. */
const MAX_CANDIDATES = 8;

export interface JwksEntry {
  kid: string | undefined;
  alg: string | undefined;
  jwk: PublicJwk;
  trusted: TrustedKey;
}

/** Imports the signature keys of a JWK Set; entries for other purposes or of unsupported types are left out when `lenient`. */
export function importJwks(
  keys: readonly JsonWebKey[],
  trusted: Omit<TrustedKey, 'key' | 'attester'> & { attester: string | undefined },
  lenient: boolean,
): JwksEntry[] {
  const entries: JwksEntry[] = [];
  for (const key of keys) {
    try {
      const jwk = readPublicJwk(key, 'invalid_argument', 'IMPL-5');
      entries.push({
        kid: typeof key.kid === 'string' ? key.kid : undefined,
        alg: typeof key.alg === 'string' ? key.alg : undefined,
        jwk,
        trusted: {
          ...trusted,
          key: importPublicKey(jwk, 'invalid_argument'),
          attester: trusted.attester ?? thumbprintOf(jwk),
        },
      });
    } catch (error) {
      if (!lenient) throw error;
    }
  }
  return entries;
}

/**
 * The entries that fit a header, always by key type, curve and `alg`; by `kid` where both sides have one, exact ones first.
 */
export function selectKeys(entries: readonly JwksEntry[], header: JoseHeader): TrustedKey[] {
  const fitting = entries.filter(({ alg, jwk }) => keyFits(header.alg, { ...jwk, alg }));
  const exact = fitting.filter(({ kid }) => kid !== undefined && kid === header.kid);
  const nameless = fitting.filter(({ kid }) => kid === undefined || header.kid === undefined);
  return [...exact, ...nameless].slice(0, MAX_CANDIDATES).map(({ trusted }) => trusted);
}

/** @throws AttestedError `invalid_argument` for anything but a list: of a text, each letter would count as a client_id */
export function clientSet(clients: readonly string[] | undefined): ReadonlySet<string> | undefined {
  if (clients === undefined) return undefined;
  if (!Array.isArray(clients) || !clients.every((clientId) => typeof clientId === 'string')) {
    throw new AttestedError('invalid_argument', 'clients must be a list of client_ids', { rule: 'VER-3' });
  }
  return new Set(clients);
}

/** An attester may speak for a client only where its entry says so (VER-3). */
export function isEntitled({ clients }: TrustedKey, clientId: string): boolean {
  return clients === undefined || clients.has(clientId);
}

export function notEntitled(): AttestedError {
  return new AttestedError('invalid_client_attestation', 'this attester may not speak for that client', {
    rule: 'VER-3',
  });
}
