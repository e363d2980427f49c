/** DPoP proof (RFC 9449 §4), alone or as the proof of possession of the combined mode (ABCA §5.2). Pure. */
import { AttestedError } from '../errors.ts';
import { utf8 } from './bytes.ts';
import { type PublicJwk, readPublicJwk } from './jwk.ts';
import {
  compact,
  headerSegment,
  type JoseHeader,
  numericDate,
  type ParsedJwt,
  parseJoseHeader,
  parseJwt,
  refusal,
  requiredString,
  signingInput,
  type TokenKind,
} from './jwt.ts';
import type { Signer } from './signer.ts';

declare class URL {
  constructor(text: string);
  protocol: string;
  origin: string;
  pathname: string;
}

const kind: TokenKind = {
  name: 'DPoP proof',
  typ: 'dpop+jwt',
  code: 'invalid_dpop_proof',
  headerRule: 'DPOP-2',
  jwtRule: 'DPOP-2',
};

/** Replay memories keep it: without a bound a single client could fill them. */
const MAX_JTI = 512;

export interface DpopProofInput {
  method: string;
  /** The request's URL; query and fragment are left out of the proof. */
  url: string;
  /** The server's most recent DPoP nonce. */
  nonce?: string | undefined;
  /** base64url SHA-256 of the access token that the request carries. */
  ath?: string | undefined;
  jti: string;
  /** Seconds since the epoch. */
  issuedAt: number;
}

/** Creates a DPoP proof. */
export async function createDpopProof(input: DpopProofInput, signer: Signer): Promise<string> {
  const htu = comparableUrl(input.url);
  if (htu === undefined) throw new AttestedError('invalid_argument', 'the URL for a DPoP proof must be absolute');
  const header = headerSegment(signer, kind.typ, () => ({
    jwk: { ...readPublicJwk(signer.publicJwk, 'invalid_argument', 'DPOP-2') },
  }));
  const { method: htm, jti, issuedAt: iat, nonce, ath } = input;
  const text = signingInput(header, { htm, htu, jti, iat, nonce, ath });
  return compact(text, await signer.sign(utf8(text)));
}

export interface ParsedDpopProof extends ParsedJwt {
  key: PublicJwk;
  htm: string;
  htu: string;
  jti: string;
  iat: number;
  exp: number | undefined;
  nbf: number | undefined;
  nonce: string | undefined;
  ath: string | undefined;
}

/**
 * Reads a DPoP proof and checks all that needs neither a clock, a key nor the request (RFC 9449 §4.3, steps 2 to 7).
 *
 * @throws AttestedError `invalid_dpop_proof`
 */
export function parseDpopProof(
  text: string,
  parseHeader: (segment: string, kind: TokenKind) => JoseHeader = parseJoseHeader,
): ParsedDpopProof {
  const jwt = parseJwt(text, kind, parseHeader);
  if (jwt.header.alg.startsWith('HS')) throw refusal(kind, 'DPOP-2', 'must be signed with an asymmetric algorithm');
  const key = readPublicJwk(jwt.header.jwk, 'invalid_dpop_proof', 'DPOP-2');
  const iat = numericDate(jwt, 'iat', kind);
  if (iat === undefined) throw refusal(kind, 'DPOP-2', 'needs an iat');
  // RFC 9449 gives them no part, but a JWT that says so itself is not valid outside them (RFC 7519 §4.1)
  const exp = numericDate(jwt, 'exp', kind);
  const nbf = numericDate(jwt, 'nbf', kind);
  const jti = requiredString(jwt, 'jti', kind, 'DPOP-2');
  if (jti.length > MAX_JTI) throw refusal(kind, 'DPOP-2', `has a jti of more than ${MAX_JTI} characters`);
  return {
    ...jwt,
    key,
    htm: requiredString(jwt, 'htm', kind, 'DPOP-2'),
    htu: requiredString(jwt, 'htu', kind, 'DPOP-2'),
    jti,
    iat,
    exp,
    nbf,
    nonce: optionalString(jwt, 'nonce'),
    ath: optionalString(jwt, 'ath'),
  };
}

export interface DpopRequest {
  method: string;
  url: string;
  /** base64url SHA-256 of the access token in the request, where there is one. */
  ath?: string | undefined;
}

/**
 * Compares a proof with the request that carried it (RFC 9449 §4.3, steps 8, 9 and 12).
 *
 * @throws AttestedError `invalid_dpop_proof`
 */
export function checkDpopRequest(proof: ParsedDpopProof, request: DpopRequest): void {
  if (proof.htm !== request.method) throw refusal(kind, 'DPOP-2', 'is for another HTTP method (htm)');
  const url = comparableUrl(request.url);
  if (url === undefined || comparableUrl(proof.htu) !== url) throw refusal(kind, 'DPOP-2', 'is for another URL (htu)');
  if (request.ath !== undefined && proof.ath !== request.ath) {
    throw refusal(kind, 'DPOP-2', 'is not for this access token (ath)');
  }
}

/** Judges the proof's time window (RFC 9449 §4.3 step 11). @throws AttestedError `invalid_dpop_proof` */
export function checkDpopTimes(
  { iat, exp, nbf }: Pick<ParsedDpopProof, 'iat' | 'exp' | 'nbf'>,
  { now, clockTolerance, maxPopAge }: { now: number; clockTolerance: number; maxPopAge: number },
): void {
  if (exp !== undefined && exp + clockTolerance <= now) throw refusal(kind, 'DPOP-2', 'has expired');
  if (nbf !== undefined && nbf - clockTolerance > now) throw refusal(kind, 'DPOP-2', 'is not valid yet');
  if (iat - clockTolerance > now) throw refusal(kind, 'DPOP-2', 'was issued in the future');
  if (now - iat > maxPopAge + clockTolerance) throw refusal(kind, 'DPOP-2', 'is too old');
}

function optionalString(jwt: ParsedJwt, claim: string): string | undefined {
  return jwt.payload[claim] === undefined ? undefined : requiredString(jwt, claim, kind, 'DPOP-2');
}

/** Scheme, authority and path in normal form, without query and fragment (RFC 9449 §4.3 step 9). */
function comparableUrl(text: string): string | undefined {
  try {
    const url = new URL(text);
    return url.protocol === 'https:' || url.protocol === 'http:' ? url.origin + url.pathname : undefined;
  } catch {
    return undefined;
  }
}
