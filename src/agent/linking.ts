/**
 * What besides the key may tell servers that they serve one agent: claims of the attestation, its status entry, the client_id.
 *
 * One instance sees its own attestations only, so it cannot know which claims differ between two instances. It goes by names
 * that are known to mean one device or person, and by values that look random. Both err: a serial number under a harmless name
 * is missed, and a build's hash, which a million devices share, is taken for one.
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { parseSegment } from '../core/jwt.ts';
import { sha256Base64url } from '../platform/crypto.ts';
import type { IdentityLink } from './remembered.ts';

export interface LinkingFact {
  kind: IdentityLink['kind'];
  /** For people: the claim's path, the client_id, the status list's place. */
  name: string;
  /** Hash over kind, name and value. */
  digest: string;
  /** A single server can already tell this device or instance by it, from the first request on. */
  unique: boolean;
}

/** Claims that every attestation has, or that say the same of many devices. */
const COMMON = new Set(
  (
    'iss sub aud exp nbf iat cnf status key_storage key_evidence key_type user_authentication attestation_method vct ' +
    'eat_profile eat_nonce hwmodel hwversion oemid oemboot dbgstat swname swversion intuse'
  ).split(' '),
);

/** Names, without case and punctuation, that mean one device, instance or person. */
const TELLING =
  /^(ueid|sueids?|imei|imsi|meid|iccid|udid|uuid|guid|idf[av]|aaid|gaid|sid|ip|ipv[46]|mac|hostname|fqdn|ek|ekcert|akname)$|serial|macaddr|ipaddr|email|phone|username|(device|hardware|hw|machine|instance|installation|install|android|advertising|user|account|subscriber|chassis|board|product|system)(id|uuid|identifier)$|fingerprint/;

/** An attestation's own number: a link only where one attestation's appears in another. */
const PER_ATTESTATION = 'jti';

const MAX_FACTS = 64;
const MAX_NAME = 80;

/** @param attestation one of our own: it was checked when it came */
export function linkingFacts(clientId: string, attestation: string): LinkingFact[] {
  const payload = parseSegment(attestation.split('.')[1] ?? '') ?? {};
  const facts = [...clientFacts(clientId), ...statusFacts(payload)];
  walk(payload, '', (path, name, value) => {
    if (facts.length >= MAX_FACTS) return;
    const numbered = name === PER_ATTESTATION;
    if (numbered || TELLING.test(name.toLowerCase().replace(/[^a-z0-9]/g, '')) || looksRandom(value)) {
      facts.push(factOf('claim', path, value, !numbered));
    }
  });
  return facts;
}

/** Dynamic registration and key-derived names give every instance a client_id of its own. */
export function looksUniqueToInstance(clientId: string): boolean {
  return clientId.split(/[/?&=:#.@~]/).some(looksRandom);
}

function clientFacts(clientId: string): LinkingFact[] {
  return looksUniqueToInstance(clientId) ? [factOf('client_id', clientId, '', true)] : [];
}

/** Another index for every attestation, says Token Status List §13.2: the same one in two of them links them. */
function statusFacts({ status }: JsonObject): LinkingFact[] {
  const list = isJsonObject(status) ? status.status_list : undefined;
  if (!isJsonObject(list) || typeof list.uri !== 'string' || typeof list.idx !== 'number') return [];
  return [factOf('status', list.uri, list.idx, false)];
}

function factOf(kind: LinkingFact['kind'], name: string, value: unknown, unique: boolean): LinkingFact {
  const digest = sha256Base64url(JSON.stringify([kind, name, value]));
  return { kind, name: printable(name), digest, unique };
}

/** Visits texts and numbers, with the path to each and the nearest member's name. */
function walk(
  value: unknown,
  path: string,
  visit: (path: string, name: string, value: string | number) => void,
  name = '',
): void {
  if (typeof value === 'string' || typeof value === 'number') visit(path, name, value);
  else if (Array.isArray(value)) for (const item of value) walk(item, path, visit, name);
  else if (isJsonObject(value)) {
    for (const [member, item] of Object.entries(value)) {
      if (path === '' && COMMON.has(member)) continue;
      walk(item, path === '' ? member : `${path}.${member}`, visit, member);
    }
  }
}

const UUID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/i;
const HEX = /^[0-9a-f]{16,}$/i;
const TOKEN = /^[\w+/=-]{16,}$/;
/** Bits per character; English words have about 4 over long texts but few of the digits and capitals asked for below. */
const RANDOM_ENTROPY = 3.4;

/** A UUID, a long hexadecimal number, or one word of mixed characters that hardly repeat. */
function looksRandom(value: string | number): boolean {
  if (typeof value !== 'string') return false;
  if (UUID.test(value) || (HEX.test(value) && /\d/.test(value) && entropy(value) > 2)) return true;
  const mixed = [/[a-z]/, /[A-Z]/, /\d/].filter((kind) => kind.test(value)).length >= 2;
  return TOKEN.test(value) && mixed && /\d/.test(value) && entropy(value) >= RANDOM_ENTROPY && !isWordy(value);
}

/** `weather-agent-2026-build`: words and numbers between separators, none of them long and mixed. */
function isWordy(value: string): boolean {
  return value.split(/[-_/+=]/).every((part) => /^([a-z]*\d{0,4}|\d+|[A-Z]?[a-z]+)$/.test(part) && part.length < 16);
}

/** Shannon entropy of a text's own characters, bits per character. */
function entropy(text: string): number {
  const counts = new Map<string, number>();
  for (const character of text) counts.set(character, (counts.get(character) ?? 0) + 1);
  let bits = 0;
  for (const count of counts.values()) bits -= (count / text.length) * Math.log2(count / text.length);
  return bits;
}

/** Names come from the attester: short, and nothing that a terminal or a log would obey. */
function printable(text: string): string {
  const clean = text.replace(/[^\x20-\x7e]/g, '?');
  return clean.length > MAX_NAME ? `${clean.slice(0, MAX_NAME - 1)}…` : clean;
}
