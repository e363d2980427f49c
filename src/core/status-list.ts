/** Token Status List (draft-ietf-oauth-status-list): the reference in an attestation, and the list. Pure. */
import { AttestedError } from '../errors.ts';
import { decodeBase64url } from './bytes.ts';
import { isJsonObject, type JsonObject } from './json.ts';
import { numericDate, type ParsedJwt, parseJwt, refusal, requiredString, type TokenKind } from './jwt.ts';

export interface StatusReference {
  uri: string;
  idx: number;
}

const MAX_INDEX = 2 ** 27;

const kind: TokenKind = {
  name: 'Status List Token',
  typ: 'statuslist+jwt',
  code: 'invalid_client_attestation',
  headerRule: 'Token Status List §5.1',
  jwtRule: 'Token Status List §5.1',
};
export const STATUS_LIST_TYP: string = kind.typ;

/** The `status.status_list` member of a token's claims; undefined where there is none. @throws `invalid_client_attestation` */
export function readStatusReference(claims: JsonObject): StatusReference | undefined {
  if (claims.status === undefined) return undefined;
  const list = isJsonObject(claims.status) ? claims.status.status_list : undefined;
  if (isJsonObject(list) && typeof list.uri === 'string' && Number.isInteger(list.idx)) {
    const idx = list.idx as number;
    if (idx >= 0 && idx < MAX_INDEX) return { uri: list.uri, idx };
  }
  throw new AttestedError('invalid_client_attestation', 'Client Attestation has a malformed status claim', {
    rule: 'Token Status List §6.2',
  });
}

export interface ParsedStatusList extends ParsedJwt {
  uri: string;
  iat: number;
  exp: number | undefined;
  ttl: number | undefined;
  bits: 1 | 2 | 4 | 8;
  /** zlib-compressed list. */
  compressed: Uint8Array;
}

/** Reads a Status List Token; signature, times and `sub` are the caller's. @throws AttestedError `invalid_client_attestation` */
export function parseStatusListToken(text: string): ParsedStatusList {
  const jwt = parseJwt(text, kind);
  const list = jwt.payload.status_list;
  const uri = requiredString(jwt, 'sub', kind, kind.jwtRule);
  const iat = numericDate(jwt, 'iat', kind);
  const ttl = jwt.payload.ttl;
  if (iat === undefined || !isJsonObject(list)) throw refusal(kind, kind.jwtRule, 'needs iat and status_list');
  if (ttl !== undefined && !(typeof ttl === 'number' && ttl > 0))
    throw refusal(kind, kind.jwtRule, 'has a malformed ttl');
  const { bits, lst } = list;
  const compressed = typeof lst === 'string' ? decodeBase64url(lst) : undefined;
  if ((bits !== 1 && bits !== 2 && bits !== 4 && bits !== 8) || compressed === undefined) {
    throw refusal(kind, kind.jwtRule, 'has a malformed status_list');
  }
  return { ...jwt, uri, iat, exp: numericDate(jwt, 'exp', kind), ttl, bits, compressed };
}

/** Status value at an index: 0 valid, 1 invalid, 2 suspended (§7.1). Undefined beyond the list's end. */
export function statusAt(list: Uint8Array, bits: 1 | 2 | 4 | 8, index: number): number | undefined {
  const perByte = 8 / bits;
  const byte = list[Math.floor(index / perByte)];
  return byte === undefined ? undefined : (byte >> ((index % perByte) * bits)) & ((1 << bits) - 1);
}
