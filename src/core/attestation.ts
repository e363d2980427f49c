/** Client Attestation JWT (ABCA §4): created by the Client Attester, read and judged by AS and RS. Pure. */
import { AttestedError } from '../errors.ts';
import { isJsonObject, type JsonObject } from './json.ts';
import { type PublicJwk, readPublicJwk } from './jwk.ts';
import {
  type JoseHeader,
  numericDate,
  type ParsedJwt,
  parseJoseHeader,
  parseJwt,
  refusal,
  requiredString,
  signJwt,
  type TokenKind,
} from './jwt.ts';
import { baseProfile, type Profile } from './profile.ts';
import { type Revision, revisionOf } from './revisions.ts';
import type { JsonWebKey, Signer } from './signer.ts';

export interface AttestationClaims {
  /** The client_id (ATT-2). */
  sub: string;
  /** Seconds since the epoch (ATT-3). */
  exp: number;
  /** Seconds since the epoch (ATT-5). */
  iat: number;
  /** The Client Instance Key (ATT-4). Only its public members are ever written. */
  cnf: { jwk: JsonWebKey };
  [claim: string]: unknown;
}

export interface CreateAttestationOptions {
  /** Default: the signer's `publicJwk.kid`, else its thumbprint. */
  kid?: string;
  /** Certificate chain, leaf first, base64 DER (RFC 7515 §4.1.6). */
  x5c?: string[];
  /** URL of the attester's JWK Set (RFC 7515 §4.1.2). */
  jku?: string;
  profile?: Profile;
}

/**
 * Creates a Client Attestation.
 *
 * @throws AttestedError `invalid_argument` when a required claim is missing or malformed, or the key is not public
 */
export async function createAttestation(
  claims: AttestationClaims,
  signer: Signer,
  options: CreateAttestationOptions = {},
): Promise<string> {
  const { sub, exp, iat, cnf, ...others } = claims;
  if (typeof sub !== 'string' || sub === '') throw invalid('sub must be the client_id', 'ATT-2');
  if (!Number.isInteger(exp)) throw invalid('exp must be whole seconds since the epoch', 'ATT-3');
  if (!Number.isInteger(iat)) throw invalid('iat must be whole seconds since the epoch', 'ATT-5');
  const jwk = readPublicJwk(cnf?.jwk, 'invalid_argument', 'ATT-4');
  const header = {
    typ: (options.profile ?? baseProfile).attestationTyp,
    kid: options.kid ?? signer.publicJwk.kid ?? signer.thumbprint,
    x5c: options.x5c,
    jku: options.jku,
  };
  return signJwt(header, { sub, iat, exp, cnf: { jwk: { ...jwk } }, ...(others as JsonObject) }, signer);
}

export interface ParsedAttestation extends ParsedJwt {
  clientId: string;
  /** The Client Instance Key, reduced to its defining members. */
  instanceKey: PublicJwk;
  exp: number;
  iat: number | undefined;
  nbf: number | undefined;
}

/**
 * Reads a Client Attestation and checks all that needs neither a clock nor a key (ATT-1 to ATT-8, VER-4).
 *
 * The caller still has to check the signature against a trusted attester and then {@link checkAttestationTimes}.
 *
 * @throws AttestedError `invalid_client_attestation`
 */
export function parseAttestation(
  text: string,
  revision: Revision = revisionOf(),
  profile: Profile = baseProfile,
  parseHeader: (segment: string, kind: TokenKind) => JoseHeader = parseJoseHeader,
): ParsedAttestation {
  const kind = attestationKind(profile);
  const jwt = parseJwt(text, kind, parseHeader);
  const sub = requiredString(jwt, 'sub', kind, 'ATT-2');
  const exp = numericDate(jwt, 'exp', kind);
  if (exp === undefined) throw refusal(kind, 'ATT-3', 'needs an exp');
  const iat = numericDate(jwt, 'iat', kind);
  if (iat === undefined && revision.attestationIat) throw refusal(kind, 'ATT-5', 'needs an iat');
  if (revision.attestationIss) requiredString(jwt, 'iss', kind, 'ATT-8');
  const { cnf } = jwt.payload;
  if (!isJsonObject(cnf) || cnf.jwk === undefined) throw refusal(kind, 'ATT-4', 'needs its key as cnf.jwk');
  return {
    ...jwt,
    clientId: profile.clientIdOf(sub),
    instanceKey: readPublicJwk(cnf.jwk),
    exp,
    iat,
    nbf: numericDate(jwt, 'nbf', kind),
  };
}

export interface AttestationTimeRules {
  /** Seconds since the epoch. */
  now: number;
  /** Seconds by which clocks may differ. */
  clockTolerance: number;
  /** Oldest acceptable age over `iat`, seconds. */
  maxAge?: number | undefined;
  /** Longest acceptable `exp - iat`, seconds. */
  maxLifetime?: number | undefined;
}

/**
 * Judges `exp`, `nbf`, `iat` and age (ATT-3, ATT-8, VER-5).
 *
 * @throws AttestedError `use_fresh_attestation` when a newer attestation would be accepted (ERR-2),
 *   `invalid_client_attestation` otherwise
 */
export function checkAttestationTimes(
  { exp, iat, nbf }: Pick<ParsedAttestation, 'exp' | 'iat' | 'nbf'>,
  { now, clockTolerance, maxAge, maxLifetime }: AttestationTimeRules,
): void {
  if (exp + clockTolerance <= now) throw stale('Client Attestation has expired', 'ATT-3');
  if (nbf !== undefined && nbf - clockTolerance > now) throw bad('Client Attestation is not valid yet', 'ATT-8');
  if (iat !== undefined && iat - clockTolerance > now)
    throw bad('Client Attestation was issued in the future', 'VER-5');
  if (iat !== undefined && iat > exp) throw bad('Client Attestation ends before it was issued', 'ATT-8');
  if (maxLifetime !== undefined && (iat === undefined || exp - iat > maxLifetime)) {
    throw bad('Client Attestation is valid for longer than this server allows', 'VER-5');
  }
  if (maxAge !== undefined && (iat === undefined || now - iat > maxAge + clockTolerance)) {
    throw stale('Client Attestation is older than this server allows', 'VER-5');
  }
}

function attestationKind(profile: Profile): TokenKind {
  return {
    name: 'Client Attestation',
    typ: profile.attestationTyp,
    code: 'invalid_client_attestation',
    headerRule: 'ATT-1',
    jwtRule: 'ATT-8',
  };
}

function invalid(why: string, rule: string): AttestedError {
  return new AttestedError('invalid_argument', why, { rule });
}
function bad(why: string, rule: string): AttestedError {
  return new AttestedError('invalid_client_attestation', why, { rule });
}
function stale(why: string, rule: string): AttestedError {
  return new AttestedError('use_fresh_attestation', why, { rule });
}
