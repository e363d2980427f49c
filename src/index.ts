/** `attested`: creating and taking apart the tokens of Attestation-Based Client Authentication. */
import {
  type AttestationClaims,
  type CreateAttestationOptions,
  createAttestation as create,
} from './core/attestation.ts';
import { createDpopProof as createProof } from './core/dpop.ts';
import { createPop as createPopJwt, type PopInput } from './core/pop.ts';
import { type RevisionNumber, revisionOf } from './core/revisions.ts';
import type { Signer } from './core/signer.ts';
import { AttestedError } from './errors.ts';
import { randomId, sha256Base64url } from './platform/crypto.ts';

export { type Algorithm, type SignatureAlgorithm, signatureAlgorithms } from './core/algorithms.ts';
export type { AttestationClaims, CreateAttestationOptions, ParsedAttestation } from './core/attestation.ts';
export { parseAttestation } from './core/attestation.ts';
export { joinAttestation, splitAttestation } from './core/concatenated.ts';
export { type ParsedDpopProof, parseDpopProof } from './core/dpop.ts';
export type { JsonObject } from './core/json.ts';
export type { PublicJwk } from './core/jwk.ts';
export { clientMetadata, type PopMethod } from './core/metadata.ts';
export { type ParsedPop, parsePop } from './core/pop.ts';
export { defineProfile, type Profile } from './core/profile.ts';
export { NEWEST_REVISION, type RevisionNumber, revisions } from './core/revisions.ts';
export type { JsonWebKey, Signer } from './core/signer.ts';
export { AttestedError, type ErrorCode, type ErrorDetails } from './errors.ts';

/**
 * Creates a Client Attestation JWT (ABCA §4).
 *
 * @param claims `sub` (client_id), `exp` (seconds), `cnf.jwk` (public key); `iat` defaults to now; others as they are
 * @throws AttestedError `invalid_argument`
 */
export async function createAttestation(
  claims: Omit<AttestationClaims, 'iat'> & { iat?: number },
  signer: Signer,
  options: CreateAttestationOptions = {},
): Promise<string> {
  if (typeof signer?.sign !== 'function') throw new AttestedError('invalid_argument', 'an attestation needs a signer');
  return create({ ...claims, iat: required(claims).iat ?? seconds() } as AttestationClaims, signer, options);
}

export interface CreatePopInput extends Omit<PopInput, 'jti' | 'issuedAt' | 'revision'> {
  /** Default: 128 random bits. */
  jti?: string;
  /** Seconds since the epoch. Default: now. */
  issuedAt?: number;
  /** Default: the newest. */
  revision?: RevisionNumber;
}

/**
 * Creates a Client Attestation PoP JWT (ABCA §5.1). Make a new one for every request (POP-9).
 *
 * @throws AttestedError `invalid_argument`
 */
export async function createPop(input: CreatePopInput, signer: Signer): Promise<string> {
  const { audience, challenge, jti = randomId(), issuedAt = seconds(), clientId, lifetime, ...rest } = required(input);
  const revision = revisionOf(rest.revision);
  // awaited here: a promise returned from an async function takes three turns of the queue
  return await createPopJwt(
    { audience, challenge, jti, issuedAt, clientId, lifetime, revision, profile: rest.profile },
    signer,
  );
}

export interface CreateDpopProofInput {
  method: string;
  url: string;
  nonce?: string | undefined;
  /** The access token the request carries, for `ath`. */
  accessToken?: string | undefined;
  jti?: string;
  /** Seconds since the epoch. Default: now. */
  issuedAt?: number;
}

/**
 * Creates a DPoP proof (RFC 9449 §4.2); with the instance key it is also the proof of the combined mode (ABCA §5.2).
 *
 * @throws AttestedError `invalid_argument`
 */
export async function createDpopProof(input: CreateDpopProofInput, signer: Signer): Promise<string> {
  const { method, url, nonce, accessToken } = required(input);
  return createProof(
    {
      method,
      url,
      nonce,
      ath: accessToken === undefined ? undefined : sha256Base64url(accessToken),
      jti: input.jti ?? randomId(),
      issuedAt: input.issuedAt ?? seconds(),
    },
    signer,
  );
}

/** What callers without types may leave out. */
function required<T>(input: T): T {
  if (input === undefined || input === null) throw new AttestedError('invalid_argument', 'what to put in is missing');
  return input;
}

function seconds(): number {
  return Math.floor(Date.now() / 1000);
}
