/** Client Attestation PoP JWT (ABCA §5.1): created by the Client Instance, read and judged by AS and RS. Pure. */
import { AttestedError } from '../errors.ts';
import { utf8 } from './bytes.ts';
import type { JsonObject } from './json.ts';
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
import { baseProfile, type Profile } from './profile.ts';
import { type Revision, revisionOf } from './revisions.ts';
import type { Signer } from './signer.ts';

export interface PopInput {
  /** The AS issuer identifier, or the RS resource identifier: exactly as the server's own metadata writes it (POP-2). */
  audience: string;
  /** The server's most recent challenge, if it gave one (POP-5). */
  challenge?: string | undefined;
  /** Unique identifier (POP-3). */
  jti: string;
  /** Seconds since the epoch (POP-4). */
  issuedAt: number;
  /** Needed by revisions to -07, which carry it as `iss`. */
  clientId?: string | undefined;
  /** Seconds until `exp`, which revisions -04 and -05 demand. */
  lifetime?: number | undefined;
  revision?: Revision | undefined;
  profile?: Profile | undefined;
}

/**
 * Creates a Client Attestation PoP. Make a new one for every request and target (POP-9).
 *
 * @throws AttestedError `invalid_argument` for what every server would refuse, and when the revision asks for a client_id and
 *   none is given
 */
export async function createPop(input: PopInput, signer: Signer): Promise<string> {
  const { audience, challenge, jti, issuedAt, clientId, revision = revisionOf(), profile = baseProfile } = input;
  if (typeof audience !== 'string' || audience === '') throw unusable('one audience', 'POP-2');
  if (typeof jti !== 'string' || jti === '') throw unusable('a jti that is a non-empty string', 'POP-3');
  if (!Number.isInteger(issuedAt)) throw unusable('issuedAt in whole seconds since the epoch', 'POP-4');
  if (challenge !== undefined && typeof challenge !== 'string') throw unusable('a challenge that is a string', 'POP-5');
  if (revision.popIss && clientId === undefined) {
    throw new AttestedError('invalid_argument', 'this draft revision needs the client_id in the PoP');
  }
  const claims: JsonObject = { aud: audience, jti, iat: issuedAt };
  if (challenge !== undefined) claims[revision.challengeClaim] = challenge;
  if (revision.popIss) claims.iss = clientId;
  if (revision.popExp) claims.exp = issuedAt + (input.lifetime ?? 60);
  const text = signingInput(headerSegment(signer, profile.popTyp), claims);
  return compact(text, await signer.sign(utf8(text)));
}

function unusable(what: string, rule: string): AttestedError {
  return new AttestedError('invalid_argument', `a PoP needs ${what}`, { rule });
}

export interface ParsedPop extends ParsedJwt {
  audience: string;
  jti: string;
  /** Absent only where the revision makes it optional; then `exp` is there. */
  iat: number | undefined;
  exp: number | undefined;
  nbf: number | undefined;
  challenge: string | undefined;
  /** Only in revisions that demand it: the client_id. */
  issuer: string | undefined;
}

const MAX_JTI = 512;

/**
 * Reads a PoP and checks all that needs neither a clock nor a key (POP-1 to POP-5, POP-7).
 *
 * @throws AttestedError `invalid_client_attestation`
 */
export function parsePop(
  text: string,
  revision: Revision = revisionOf(),
  profile: Profile = baseProfile,
  parseHeader: (segment: string, kind: TokenKind) => JoseHeader = parseJoseHeader,
): ParsedPop {
  const kind = popKind(profile);
  const jwt = parseJwt(text, kind, parseHeader);
  if (jwt.header.alg.startsWith('HS')) throw refusal(kind, 'POP-1', 'must be signed with an asymmetric algorithm');
  const audience = requiredString(jwt, 'aud', kind, 'POP-2');
  const jti = requiredString(jwt, 'jti', kind, 'POP-3');
  if (jti.length > MAX_JTI) throw refusal(kind, 'POP-3', `has a jti of more than ${MAX_JTI} characters`);
  const iat = numericDate(jwt, 'iat', kind, 'POP-4');
  const exp = numericDate(jwt, 'exp', kind, 'POP-4');
  if (iat === undefined && revision.popIat) throw refusal(kind, 'POP-4', 'needs an iat');
  if (exp === undefined && (revision.popExp || iat === undefined)) throw refusal(kind, 'POP-4', 'needs an exp');
  const nbf = numericDate(jwt, 'nbf', kind, 'POP-4');
  const challenge = jwt.payload[revision.challengeClaim];
  if (challenge !== undefined && typeof challenge !== 'string') {
    throw refusal(kind, 'POP-5', 'has a challenge that is not a string');
  }
  const issuer = revision.popIss ? requiredString(jwt, 'iss', kind, 'POP-7') : undefined;
  return { ...jwt, audience, jti, iat, exp, nbf, challenge, issuer };
}

export interface PopTimeRules {
  now: number;
  clockTolerance: number;
  /** Oldest acceptable age over `iat`, seconds. */
  maxPopAge: number;
}

/**
 * Judges the PoP's time window (POP-4), before anything is looked up anywhere (IMPL-4).
 *
 * @returns the time of creation by which replay memory is organised, seconds since the epoch
 * @throws AttestedError `invalid_client_attestation`
 */
export function checkPopTimes(
  { iat, exp, nbf }: Pick<ParsedPop, 'iat' | 'exp'> & { nbf?: number | undefined },
  { now, clockTolerance, maxPopAge }: PopTimeRules,
): number {
  if (exp !== undefined && exp + clockTolerance <= now) throw late('Client Attestation PoP has expired');
  if (nbf !== undefined && nbf - clockTolerance > now) throw late('Client Attestation PoP is not valid yet');
  // without an iat (-04 to -06) the window is counted back from exp, so that an exp far ahead is no way around it
  const created = iat ?? (exp as number) - maxPopAge;
  if (created - clockTolerance > now) throw late('Client Attestation PoP was issued in the future');
  if (now - created > maxPopAge + clockTolerance) throw late('Client Attestation PoP is too old');
  return created;
}

function late(why: string): AttestedError {
  return new AttestedError('invalid_client_attestation', why, { rule: 'POP-4' });
}

function popKind(profile: Profile): TokenKind {
  return {
    name: 'Client Attestation PoP',
    typ: profile.popTyp,
    code: 'invalid_client_attestation',
    headerRule: 'POP-1',
    jwtRule: 'POP-1',
  };
}
