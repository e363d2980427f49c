/** What each member of a token says, in plain words. */

import { isJsonObject, type JsonObject, type JsonValue } from '../../core/json.ts';
import { readPublicJwk } from '../../core/jwk.ts';
import { thumbprintOf } from '../../platform/crypto.ts';
import { redact } from './decode.ts';
import type { Kind } from './recognise.ts';

export interface Field {
  in: 'header' | 'claims';
  name: string;
  value: JsonValue;
  meaning: string;
}

type Explain = (value: JsonValue, context: { now: number; kind: Kind; token: JsonObject }) => string;

const HEADER: Readonly<Record<string, Explain>> = {
  typ: () => 'what kind of token this is',
  alg: () => 'how it is signed',
  kid: () => 'name of the signing key, among those the server already knows',
  jwk: keyMeaning,
  jku: () => "URL of the signer's keys; a server follows it only where it is on its allow-list",
  x5c: (value) =>
    `certificate chain of the signer, ${Array.isArray(value) ? value.length : 0} certificates; counts only up to a configured anchor`,
  crit: () => 'extensions that the reader must understand; we support none',
};

const CLAIMS: Readonly<Record<string, Explain>> = {
  iss: (_value, { kind }) =>
    kind === 'attestation' ? 'the Client Attester (revisions to -07 demand it)' : 'who made it',
  sub: (_value, { kind }) =>
    kind === 'attestation' ? 'the client_id' : kind === 'status-list' ? "the list's own URL" : 'subject',
  client_id: () => 'the client that the token was issued to',
  aud: () => 'the one server it is for',
  exp: (value, { now }) => `ends ${when(value, now)}`,
  nbf: (value, { now }) => `counts from ${when(value, now)}`,
  iat: (value, { now }) => `made ${when(value, now)}`,
  jti: () => 'unique name: a server accepts it once',
  challenge: () => "the server's challenge: shows that the proof is fresh",
  nonce: (_value, { kind }) =>
    kind === 'dpop' ? "the server's DPoP nonce" : "the server's challenge, as -04 and -05 name it",
  htm: () => 'HTTP method of the request it is for',
  htu: () => 'URL of the request it is for',
  ath: () => 'hash of the access token it goes with',
  cnf: (value, context) =>
    isJsonObject(value) && value.jwk !== undefined
      ? `the Client Instance Key: ${keyMeaning(value.jwk as JsonValue, context)}`
      : 'the key that the token is bound to',
  key_storage: () => 'where the instance key lives, as the attester says',
  key_evidence: () => 'on what evidence the attester says so',
  status: (value) => {
    const list = isJsonObject(value) ? value.status_list : undefined;
    return isJsonObject(list) ? `revocation: entry ${String(list.idx)} of the list at the uri` : 'revocation';
  },
  ttl: (value) => `seconds for which the list may be kept: ${duration(Number(value))}`,
  status_list: (value) =>
    isJsonObject(value) ? `the list: ${String(value.bits)} bit per entry, compressed` : 'the list',
  scope: () => 'what the access token allows',
  client_instance_jkt: () => 'thumbprint of the client instance that the access token was issued to',
};

export function explain(
  kind: Kind,
  header: JsonObject | undefined,
  payload: JsonObject | undefined,
  now: number,
): Field[] {
  const rows = (part: Field['in'], token: JsonObject, table: Readonly<Record<string, Explain>>): Field[] =>
    Object.entries(token).map(([name, value]) => ({
      in: part,
      name,
      value: redact(value as JsonValue),
      meaning: Object.hasOwn(table, name)
        ? (table[name] as Explain)(value as JsonValue, { now, kind, token })
        : 'not known here; ignored, as unknown members are',
    }));
  return [...rows('header', header ?? {}, HEADER), ...rows('claims', payload ?? {}, CLAIMS)];
}

function keyMeaning(value: JsonValue, _context?: unknown): string {
  try {
    const jwk = readPublicJwk(value);
    const name = jwk.kty === 'RSA' ? 'RSA' : `${jwk.kty} ${jwk.crv}`;
    return `${name} key, thumbprint ${thumbprintOf(jwk)}`;
  } catch (error) {
    return `not a usable public key: ${(error as Error).message}`;
  }
}

/** A time in UTC and how far it is from now. */
export function when(value: JsonValue, now: number): string {
  if (typeof value !== 'number' || !Number.isFinite(value) || Math.abs(value) > 8.64e12)
    return 'at no time that can be read';
  const difference = value - now;
  const distance =
    difference === 0 ? 'now' : difference < 0 ? `${duration(-difference)} ago` : `in ${duration(difference)}`;
  return `${new Date(value * 1000).toISOString().replace('.000', '')}, ${distance}`;
}

const UNITS = [
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
] as const;

export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return 'unknown';
  for (const [unit, size] of UNITS) {
    if (seconds < 2 * size) continue;
    const count = Math.floor(seconds / size);
    return `${count} ${unit}s`;
  }
  const count = Math.round(seconds);
  return `${count} second${count === 1 ? '' : 's'}`;
}
