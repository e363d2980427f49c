/**
 * Identities: one instance key per server scope (PRIV-1). A scope is the protected resource that a request is for, or the
 * authorization server where no resource is named. The AS that issues a resource's tokens sees the resource's key, and
 * that is no loss: the token itself names the key to both, so the two are linked whatever the client does.
 */
import type { SignatureAlgorithm } from '../core/algorithms.ts';
import { encodeBase64url, utf8 } from '../core/bytes.ts';
import type { Signer } from '../core/signer.ts';
import type { KeyStorage } from '../core/storage.ts';
import { AttestedError } from '../errors.ts';
import type { KeyProvider } from '../keys/provider.ts';
import { hmacSha256, sha256Base64url } from '../platform/crypto.ts';
import type { Events } from './events.ts';
import type { StateStore } from './state.ts';
import type { Warnings } from './warnings.ts';

export interface Identity {
  /** Key label: the identity's name inside the agent. */
  label: string;
  scope: string;
  generation: number;
  signer: Signer;
  storage: KeyStorage;
}

export interface Identities {
  /** The identity in use for a scope; its key is made now if there is none. */
  current(scope: string): Promise<Identity>;
  /** An identity of any generation; undefined when its key is gone. */
  byLabel(label: string): Promise<Identity | undefined>;
  /** The next generation of a scope, not yet in use. */
  next(scope: string): Promise<Identity>;
  /** Puts an identity to use in place of its scope's older ones. */
  adopt(identity: Identity): void;
  /** Destroys the older generations of an identity's scope. */
  deleteOlder(identity: Identity): Promise<void>;
}

/** The scope of all servers where the operator chose to share one identity. */
export const SHARED_SCOPE = '*';

/**
 * One text for one server: a resource with and without the slash of its empty path is the same. The query is left out, so
 * that a server cannot have us make keys without end by renaming itself.
 */
export function scopeOf(server: string): string {
  if (!URL.canParse(server)) return server;
  const { origin, pathname, href } = new URL(server);
  return origin === 'null' ? href : origin + pathname;
}

const MAX_CLIENT_IN_LABEL = 120;

/** `attested:<client_id>`, or a hash of it where a key label could not hold it. */
export function labelPrefix(clientId: string): string {
  const printable = /^[\x21-\x7e]+$/.test(clientId) && clientId.length <= MAX_CLIENT_IN_LABEL;
  return `attested:${printable ? clientId : sha256Base64url(clientId)}`;
}

/**
 * @param labelKey keys the hash of the scope in labels: labels show up in keychains and TPM tools and must not list the
 *   servers; and it is still there when the state file is lost, so that the keys are found again.
 */
export function openIdentities(options: {
  keys: KeyProvider;
  store: StateStore;
  clientId: string;
  labelKey: Uint8Array;
  alg: SignatureAlgorithm;
  events: Events;
  warnings: Warnings;
}): Identities {
  const { keys, store, clientId, labelKey, alg, events, warnings } = options;
  const opened = new Map<string, Promise<Identity | undefined>>();
  let inventory: Promise<string[]> | undefined;

  const stem = (scope: string): string => {
    const hash = encodeBase64url(hmacSha256(labelKey, utf8(scope)).subarray(0, 16));
    return `${labelPrefix(clientId)}:${hash}:g`;
  };

  async function generationOf(scope: string): Promise<number> {
    const known = store.current.get(scope);
    if (known !== undefined) return known;
    // the state does not know the scope: it is new, or the state was lost and the keys know better
    inventory ??= keys.listKeys().then((list) => list.map(({ label }) => label));
    const prefix = stem(scope);
    const labels = await inventory.catch((error: unknown) => {
      inventory = undefined; // one failure is not for ever: a locked or damaged store may be mended meanwhile
      throw error;
    });
    const found = labels.filter((label) => label.startsWith(prefix)).map((label) => Number(label.slice(prefix.length)));
    const newest = Math.max(0, ...found.filter(Number.isSafeInteger));
    return scope === SHARED_SCOPE ? sharedGeneration(newest) : Math.max(1, newest);
  }

  /**
   * Who has seen a shared key only the state knows. A key that it does not know may have been anywhere, so another takes its
   * place. The state is written before a key is made, so what another process has just made is known.
   */
  function sharedGeneration(newest: number): Promise<number> {
    return store.update(() => {
      const written = store.current.get(SHARED_SCOPE);
      if (written !== undefined) return written;
      if (newest > 0) {
        const message = 'nobody remembers which servers have seen the shared key: a new one takes its place';
        warnings.emit({ code: 'state', message });
      }
      store.current.set(SHARED_SCOPE, newest + 1);
      return newest + 1;
    });
  }

  function open(scope: string, generation: number, create: boolean): Promise<Identity | undefined> {
    const label = `${stem(scope)}${generation}`;
    const known = opened.get(label);
    if (known !== undefined) return known;
    const opening = (async () => {
      const signer = create ? await keys.createKey({ label, alg }) : await keys.getKey(label);
      if (signer === undefined) return undefined;
      const stored = store.identities.get(label);
      if (stored === undefined || stored.thumbprint !== signer.thumbprint) {
        // another key under the old label (someone deleted it): nothing that was known of the old key holds
        const { thumbprint } = signer;
        store.identities.set(label, { scope, generation, thumbprint, seenBy: [], tokens: [], joined: new Map() });
        events.emit({ type: 'identity', server: scope, thumbprint, generation });
      }
      return { label, scope, generation, signer: watched(signer, label, scope), storage: keys.assurance };
    })();
    opened.set(label, opening);
    opening.then(
      (identity) => identity === undefined && opened.delete(label),
      () => opened.delete(label),
    );
    return opening;
  }

  /** A key that another process has destroyed (rotation without keepOld) is forgotten, so that the next request finds its heir. */
  function watched(signer: Signer, label: string, scope: string): Signer {
    const { alg, publicJwk, thumbprint } = signer;
    const sign = async (data: Uint8Array): Promise<Uint8Array> => {
      try {
        return await signer.sign(data);
      } catch (error) {
        if (error instanceof AttestedError && error.code === 'key_not_found') {
          opened.delete(label);
          store.drop(label);
          store.current.delete(scope);
          inventory = undefined;
        }
        throw error;
      }
    };
    return { alg, publicJwk, thumbprint, sign };
  }

  return {
    async current(scope) {
      const generation = await generationOf(scope);
      store.current.set(scope, generation);
      return (await open(scope, generation, true)) as Identity;
    },
    async byLabel(label) {
      const stored = store.identities.get(label);
      return stored === undefined ? undefined : open(stored.scope, stored.generation, false);
    },
    async next(scope) {
      return (await open(scope, (await generationOf(scope)) + 1, true)) as Identity;
    },
    adopt(identity) {
      store.current.set(identity.scope, identity.generation);
    },
    async deleteOlder(identity) {
      for (const [label, stored] of [...store.identities]) {
        if (stored.scope !== identity.scope || stored.generation >= identity.generation) continue;
        await keys.deleteKey(label);
        opened.delete(label);
        store.drop(label);
      }
    },
  };
}
