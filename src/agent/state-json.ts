/** The state as JSON, and how what a file says is taken in: it may be another process's, newer or older than ours. */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { type AgentState, addTokenPath, type IdentityLink, type StoredIdentity } from './remembered.ts';

export function serialize(store: AgentState): JsonObject {
  return {
    client_id: store.clientId,
    enrolled: store.enrolled,
    current: [...store.current],
    identities: [...store.identities].map(([label, { joined, ...rest }]) => ({ label, joined: [...joined], ...rest })),
    artifacts: [...store.artifacts.entries()].map(([hash, artifact]) => ({ hash, ...artifact })),
    links: [...store.links.entries()].map(([digest, link]) => ({ digest, ...link })),
  } as unknown as JsonObject;
}

/** Adds what the file knows; entries of another shape are left out, so that a damaged part costs only itself. */
export function merge(store: AgentState, json: JsonObject, dropped: ReadonlySet<string>): void {
  if (json.enrolled === true) store.enrolled = true;
  for (const item of listOf(json.current)) {
    if (!Array.isArray(item) || typeof item[0] !== 'string' || !isCount(item[1])) continue;
    store.current.set(item[0], Math.max(item[1], store.current.get(item[0]) ?? 0));
  }
  for (const item of listOf(json.identities)) {
    const entry = readIdentity(item);
    if (entry !== undefined && !dropped.has(entry.label)) mergeIdentity(store, entry.label, entry.identity);
  }
  for (const item of listOf(json.artifacts)) {
    if (!isJsonObject(item)) continue;
    const { hash, label, scheme, audience, issuer } = item;
    if (typeof hash !== 'string' || typeof label !== 'string') continue;
    if (typeof audience !== 'string' || typeof issuer !== 'string') continue;
    if (dropped.has(label) || (scheme !== 'Bearer' && scheme !== 'DPoP')) continue;
    if (store.artifacts.get(hash) === undefined) store.artifacts.set(hash, { label, scheme, audience, issuer });
  }
  for (const item of listOf(json.links)) {
    const entry = readLink(item);
    if (entry === undefined) continue;
    const known = store.links.get(entry.digest);
    if (known === undefined) store.links.set(entry.digest, entry.link);
    else addAll(known.seenBy, entry.link.seenBy);
  }
}

function mergeIdentity({ identities }: AgentState, label: string, from: StoredIdentity): void {
  const known = identities.get(label);
  if (known === undefined) {
    identities.set(label, from);
    return;
  }
  // the key was made anew under its label: what the file knows is the old key's
  if (known.thumbprint !== from.thumbprint) return;
  addAll(known.seenBy, from.seenBy);
  for (const [issuer, audience] of from.tokens) addTokenPath(known, issuer, audience);
  for (const [issuer, resource] of from.joined) if (!known.joined.has(issuer)) known.joined.set(issuer, resource);
  const { attestation, receivedAt, lifetime } = from;
  if (attestation !== undefined && (receivedAt ?? 0) > (known.receivedAt ?? 0)) {
    Object.assign(known, { attestation, receivedAt, lifetime });
  }
}

function addAll(into: string[], from: readonly string[]): void {
  for (const name of from) if (!into.includes(name)) into.push(name);
}

function readIdentity(item: unknown): { label: string; identity: StoredIdentity } | undefined {
  if (!isJsonObject(item)) return undefined;
  const { label, scope, generation, thumbprint, attestation, receivedAt, lifetime } = item;
  if (typeof label !== 'string' || typeof scope !== 'string' || !isCount(generation)) return undefined;
  if (typeof thumbprint !== 'string') return undefined;
  const identity: StoredIdentity = {
    scope,
    generation,
    thumbprint,
    seenBy: textsOf(item.seenBy),
    tokens: pairsOf(item.tokens),
    joined: new Map(pairsOf(item.joined)),
  };
  if (typeof attestation === 'string' && isCount(receivedAt) && isCount(lifetime)) {
    Object.assign(identity, { attestation, receivedAt, lifetime });
  }
  return { label, identity };
}

function readLink(item: unknown): { digest: string; link: IdentityLink } | undefined {
  if (!isJsonObject(item)) return undefined;
  const { digest, kind, name } = item;
  if (typeof digest !== 'string' || typeof name !== 'string') return undefined;
  if (kind !== 'claim' && kind !== 'client_id' && kind !== 'status') return undefined;
  return { digest, link: { kind, name, seenBy: textsOf(item.seenBy) } };
}

function pairsOf(value: unknown): [string, string][] {
  return listOf(value).filter(
    (pair): pair is [string, string] =>
      Array.isArray(pair) && typeof pair[0] === 'string' && typeof pair[1] === 'string',
  );
}

function textsOf(value: unknown): string[] {
  return listOf(value).filter((item) => typeof item === 'string');
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
