/**
 * What an agent remembers between runs: which identities it has, their attestations, who has seen them, and which token
 * belongs to which identity. Nothing in it is a secret key; it is private all the same, since it names the servers that
 * the agent talks to, so it is one file that only its owner can read.
 *
 * Names of servers are kept as they are, not hashed: a warning must name both servers (PRIV-2) also after a restart, and a
 * hash whose key lies in the same file hides nothing from whoever has the file. Key labels, which other tools of the
 * operating system show, carry only keyed hashes (see identity.ts).
 */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { fromUtf8 } from '../core/bytes.ts';
import { isJsonObject, type JsonObject, parseJsonObject } from '../core/json.ts';
import { randomId, sha256Base64url } from '../platform/crypto.ts';
import { makePrivateDirectory, readFileIfThere, writePrivateFile } from '../platform/files.ts';
import { BoundedMap } from './bounded.ts';
import type { Warnings } from './warnings.ts';

export interface StoredIdentity {
  scope: string;
  generation: number;
  thumbprint: string;
  attestation?: string;
  /** Seconds since the epoch by this machine's clock. */
  receivedAt?: number;
  /** Seconds from `receivedAt` for which the attestation is good. */
  lifetime?: number;
  /** Servers that have seen the key (PRIV-2). */
  seenBy: string[];
  /** Authorization server → the one resource server that its token was used at, and which counts as one with it. */
  joined: Map<string, string>;
}

export interface StateStore {
  /** By key label. */
  readonly identities: Map<string, StoredIdentity>;
  /** Scope → generation in use. */
  readonly current: Map<string, number>;
  /** Hash of a token or other bound artifact → label of the identity that it is bound to, and the token's scheme. */
  readonly artifacts: BoundedMap<string, Artifact>;
  /** The attester knows this instance: no enrolment token is needed any more. */
  enrolled: boolean;
  /** Takes in what another process has written since. */
  refresh(): Promise<void>;
  /** Writes the state; never fails, since a full disk must not stop requests: it warns. */
  save(): Promise<void>;
  /** Forgets an identity for good. */
  drop(label: string): void;
}

export interface Artifact {
  label: string;
  scheme: 'Bearer' | 'DPoP';
  /** The server for which it was asked: the resource, or else the issuer. */
  audience: string;
  /** The authorization server that it came from; empty where that is not known. */
  issuer: string;
}

const MAX_ARTIFACTS = 512;

/** Opens the state of one client. Without a directory it lives in memory. */
export async function openState(
  directory: string | undefined,
  clientId: string,
  warnings: Warnings,
): Promise<StateStore> {
  const identities = new Map<string, StoredIdentity>();
  const current = new Map<string, number>();
  const artifacts = new BoundedMap<string, Artifact>(MAX_ARTIFACTS);
  const dropped = new Set<string>();
  const path =
    directory === undefined ? undefined : join(directory, `agent-${sha256Base64url(clientId).slice(0, 22)}.json`);
  let writing: Promise<void> = Promise.resolve();
  let queued: Promise<void> | undefined;

  const store: StateStore = {
    identities,
    current,
    artifacts,
    enrolled: false,
    refresh,
    save() {
      if (path === undefined) return Promise.resolve();
      // one write at a time; whoever asks while one waits shares it
      queued ??= writing = writing.then(async () => {
        queued = undefined;
        try {
          await refresh();
          await writePrivateFile(path, JSON.stringify(serialize(store)));
        } catch {
          warnings.emit({ code: 'state', message: 'the agent could not write its state; it continues in memory' });
        }
      });
      return queued;
    },
    drop(label) {
      dropped.add(label);
      identities.delete(label);
      for (const [hash, artifact] of [...artifacts.entries()]) if (artifact.label === label) artifacts.delete(hash);
    },
  };

  async function refresh(): Promise<void> {
    if (path === undefined) return;
    const bytes = await readFileIfThere(path);
    if (bytes === undefined) return;
    const text = fromUtf8(bytes);
    const json = text === undefined ? undefined : parseJsonObject(text);
    if (json === undefined || json.version !== 1) {
      await rename(path, `${path}.unreadable-${randomId()}`).catch(() => undefined);
      warnings.emit({ code: 'state', message: 'the agent state was unreadable; it was set aside and is built anew' });
      return;
    }
    merge(store, json, dropped);
  }

  if (directory !== undefined) await makePrivateDirectory(directory);
  await refresh();
  return store;
}

function serialize(store: StateStore): JsonObject {
  return {
    version: 1,
    enrolled: store.enrolled,
    current: [...store.current],
    identities: [...store.identities].map(([label, { joined, ...rest }]) => ({ label, joined: [...joined], ...rest })),
    artifacts: [...store.artifacts.entries()].map(([hash, artifact]) => ({ hash, ...artifact })),
  } as unknown as JsonObject;
}

/** Adds what the file knows; entries of another shape are left out, so that a damaged part costs only itself. */
function merge(store: StateStore, json: JsonObject, dropped: ReadonlySet<string>): void {
  if (json.enrolled === true) store.enrolled = true;
  for (const item of listOf(json.current)) {
    if (!Array.isArray(item) || typeof item[0] !== 'string' || !isCount(item[1])) continue;
    store.current.set(item[0], Math.max(item[1], store.current.get(item[0]) ?? 0));
  }
  for (const item of listOf(json.identities)) {
    const entry = readIdentity(item);
    if (entry === undefined || dropped.has(entry.label)) continue;
    const known = store.identities.get(entry.label);
    if (known === undefined) {
      store.identities.set(entry.label, entry.identity);
      continue;
    }
    // the key was made anew under its label: what the file knows is the old key's
    if (known.thumbprint !== entry.identity.thumbprint) continue;
    for (const name of entry.identity.seenBy) if (!known.seenBy.includes(name)) known.seenBy.push(name);
    for (const [issuer, resource] of entry.identity.joined) {
      if (!known.joined.has(issuer)) known.joined.set(issuer, resource);
    }
    const { attestation, receivedAt, lifetime } = entry.identity;
    if (attestation !== undefined && (receivedAt ?? 0) > (known.receivedAt ?? 0)) {
      Object.assign(known, { attestation, receivedAt, lifetime });
    }
  }
  for (const item of listOf(json.artifacts)) {
    if (!isJsonObject(item)) continue;
    const { hash, label, scheme, audience, issuer } = item;
    if (typeof hash !== 'string' || typeof label !== 'string') continue;
    if (typeof audience !== 'string' || typeof issuer !== 'string') continue;
    if (dropped.has(label) || (scheme !== 'Bearer' && scheme !== 'DPoP')) continue;
    if (store.artifacts.get(hash) === undefined) store.artifacts.set(hash, { label, scheme, audience, issuer });
  }
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
    seenBy: listOf(item.seenBy).filter((name) => typeof name === 'string'),
    joined: new Map(
      listOf(item.joined).filter(
        (pair): pair is [string, string] =>
          Array.isArray(pair) && typeof pair[0] === 'string' && typeof pair[1] === 'string',
      ),
    ),
  };
  if (typeof attestation === 'string' && isCount(receivedAt) && isCount(lifetime)) {
    Object.assign(identity, { attestation, receivedAt, lifetime });
  }
  return { label, identity };
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
