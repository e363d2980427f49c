/** Compact JWS with a JSON object inside (RFC 7515 §7.1, RFC 7519): strict reading and writing. Pure. */
import { AttestedError, type ErrorCode } from '../errors.ts';
import { algorithmRow } from './algorithms.ts';
import { decodeBase64url, decodeTextBase64url, encodeBase64url, encodeTextBase64url, utf8 } from './bytes.ts';
import { type JsonObject, parseJsonObject } from './json.ts';
import type { Signer } from './signer.ts';

export interface JoseHeader extends JsonObject {
  alg: string;
  typ: string;
}

export interface ParsedJwt {
  /** The token exactly as it came. */
  text: string;
  header: JoseHeader;
  payload: JsonObject;
  /** ASCII text under the signature: `text` up to its last dot. */
  signingInput: string;
  signature: Uint8Array;
}

/** How a kind of token names itself in errors, and with which code it is refused. */
export interface TokenKind {
  name: string;
  typ: string;
  code: ErrorCode;
  /** Requirement id for a wrong `typ` or a missing `alg`. */
  headerRule: string;
  /** Requirement id for everything RFC 7519 asks of any JWT. */
  jwtRule: string;
}

const LATEST_DATE = 253402300799; // 9999-12-31T23:59:59Z

/**
 * Reads a token without judging its signature or its times.
 *
 * Refuses: anything but three parts of strict base64url; a header or payload that is not one JSON object in UTF-8 with
 * unique members; another `typ`; an `alg` that is not in the algorithm table (so `none`); any `crit` or `b64`, since no
 * extension is supported here; a `kid` that is not a string.
 *
 * @throws AttestedError with the kind's code
 */
export function parseJwt(
  text: string,
  kind: TokenKind,
  parseHeader: typeof parseJoseHeader = parseJoseHeader,
): ParsedJwt {
  const first = text.indexOf('.');
  const last = text.lastIndexOf('.');
  if (first <= 0 || last === first || text.indexOf('.', first + 1) !== last) {
    throw refusal(kind, kind.jwtRule, 'is not a compact JWT of three parts');
  }
  const header = parseHeader(text.slice(0, first), kind);
  const payload = parseSegment(text.slice(first + 1, last));
  if (payload === undefined) throw refusal(kind, kind.jwtRule, 'has a payload that is not one well-formed JSON object');
  const signature = decodeBase64url(text.slice(last + 1));
  if (signature === undefined || signature.length === 0) {
    throw refusal(kind, kind.jwtRule, 'has a malformed signature part');
  }
  return { text, header, payload, signingInput: text.slice(0, last), signature };
}

/** Reads and checks the header part. Depends on nothing but its arguments, so a verifier may remember its results. */
export function parseJoseHeader(segment: string, kind: TokenKind): JoseHeader {
  const header = parseSegment(segment);
  if (header === undefined) throw refusal(kind, kind.jwtRule, 'has a header that is not one well-formed JSON object');
  if (header.typ !== kind.typ) throw refusal(kind, kind.headerRule, `must have the typ ${kind.typ}`);
  if (algorithmRow(header.alg) === undefined) throw refusal(kind, kind.headerRule, 'has a missing or unknown alg');
  if (header.crit !== undefined || header.b64 !== undefined) {
    throw refusal(kind, kind.jwtRule, 'demands a JOSE extension (crit or b64); none is supported');
  }
  if (header.kid !== undefined && typeof header.kid !== 'string') {
    throw refusal(kind, kind.jwtRule, 'has a kid that is not a string');
  }
  return header as JoseHeader;
}

/** A part of a token as the JSON object that it holds; undefined when it is malformed. */
export function parseSegment(segment: string): JsonObject | undefined {
  const text = decodeTextBase64url(segment);
  return text === undefined ? undefined : parseJsonObject(text);
}

/**
 * Signs a JWT. Undefined members are left out.
 * @returns the compact serialization
 */
export async function signJwt(header: JsonObject, payload: JsonObject, signer: Signer): Promise<string> {
  const input = signingInput(encodeSegment({ alg: signer.alg, ...header }), payload);
  return compact(input, await signer.sign(utf8(input)));
}

/** The text under the signature, with a header that is encoded already: a signer's proofs differ in their payload only. */
export function signingInput(header: string, payload: JsonObject): string {
  return `${header}.${encodeSegment(payload)}`;
}

/**
 * The compact serialization of a signed text.
 * @throws AttestedError `invalid_argument` when a signer gives something else than bytes, such as WebCrypto's ArrayBuffer
 */
export function compact(input: string, signature: Uint8Array): string {
  if (!(signature?.length > 0)) {
    throw new AttestedError('invalid_argument', 'the signer gave no signature as a Uint8Array');
  }
  return `${input}.${encodeBase64url(signature)}`;
}

const headersOf = new WeakMap<Signer, Map<string, string>>();

/** The encoded header of a signer's tokens of one `typ`, made at first use. */
export function headerSegment(signer: Signer, typ: string, make: () => JsonObject = () => ({})): string {
  let segments = headersOf.get(signer);
  if (segments === undefined) {
    // proofs are signed, never MAC-protected (POP-1)
    if ((algorithmRow(signer?.alg)?.kty ?? 'oct') === 'oct') {
      throw new AttestedError('invalid_argument', 'a proof needs a signer with a signature algorithm', {
        rule: 'POP-1',
      });
    }
    segments = new Map();
    headersOf.set(signer, segments);
  }
  let segment = segments.get(typ);
  if (segment === undefined) {
    segment = encodeSegment({ alg: signer.alg, typ, ...make() });
    segments.set(typ, segment);
  }
  return segment;
}

export function encodeSegment(value: JsonObject): string {
  return encodeTextBase64url(JSON.stringify(value));
}

export function refusal(kind: TokenKind, rule: string, why: string): AttestedError {
  return new AttestedError(kind.code, `${kind.name} ${why}`, { rule });
}

/** A NumericDate in whole seconds since the epoch. Absent gives undefined; anything else that is not one is refused. */
export function numericDate(
  jwt: ParsedJwt,
  claim: string,
  kind: TokenKind,
  rule: string = kind.jwtRule,
): number | undefined {
  const value = jwt.payload[claim];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > LATEST_DATE) {
    throw refusal(kind, rule, `has a ${claim} that is not a whole number of seconds since the epoch`);
  }
  return value;
}

/** A required non-empty string claim. */
export function requiredString(jwt: ParsedJwt, claim: string, kind: TokenKind, rule: string): string {
  const value = jwt.payload[claim];
  if (typeof value !== 'string' || value === '')
    throw refusal(kind, rule, `needs a ${claim} that is a non-empty string`);
  return value;
}
