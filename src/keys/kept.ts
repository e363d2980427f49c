/**
 * What backends that keep keys in a place have in common: labels, one job per label at a time, keys held ready in memory, and
 * signers that notice when their key is gone. A backend says how one key is read, made, removed and used.
 */
import type { SignatureAlgorithm } from '../core/algorithms.ts';
import { type PublicJwk, readPublicJwk } from '../core/jwk.ts';
import type { Signer } from '../core/signer.ts';
import { AttestedError } from '../errors.ts';
import { unavailable } from './files/faults.ts';
import { assertLabel, assertSameAlgorithm, assertSignatureAlgorithm } from './labels.ts';
import { createLanes } from './lanes.ts';
import { createLru } from './lru.ts';
import { MAX_LOADED_KEYS } from './options.ts';
import type { KeyInfo, KeyProvider } from './provider.ts';

const LOCK_LANE = 'lock'; // no label: those are prefixed below

export interface PublicPart {
  label: string;
  alg: SignatureAlgorithm;
  jwk: PublicJwk;
  thumbprint: string;
}

/** A key in memory, ready to sign. */
export interface HeldKey {
  part: PublicPart;
}

export interface KeyPlace<Held extends HeldKey> {
  /** The key as the place has it now. `held` is what we have of the label, to be given back where it is still the same key. */
  read(label: string, held: Held | undefined): Promise<Held | undefined>;
  /** Makes a key, or leaves the one that another process made first. Runs under the lock. */
  make(label: string, alg: SignatureAlgorithm): Promise<void>;
  /** Removes a key, which may be damaged; false when there is none. Runs under the lock. */
  remove(label: string): Promise<boolean>;
  list(): Promise<KeyInfo[]>;
  sign(held: Held, data: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** Runs a job while no other process changes the place. */
  withLock<T>(job: () => Promise<T>): Promise<T>;
}

export interface KeptKeys extends Pick<KeyProvider, 'createKey' | 'getKey' | 'listKeys' | 'deleteKey' | 'close'> {
  /** @throws AttestedError `key_store_unavailable` once closed */
  assertOpen(): void;
}

/**
 * A signer works from memory. When its key was forgotten for want of room it is read again; the place is then the judge of
 * whether the key still exists. A key that *another* process deletes stays usable here until then, or until the next
 * `getKey` or `createKey` of its label.
 *
 * @param most keys held in memory
 */
export function keepKeys<Held extends HeldKey>(place: KeyPlace<Held>, most: number = MAX_LOADED_KEYS): KeptKeys {
  const loaded = createLru<Held>(most);
  const lanes = createLanes();
  let closed = false;

  const assertOpen = () => {
    if (closed) throw unavailable('the key provider is closed');
  };
  /** One job per label at a time in this process, so that no reading can bring back what a deletion has just removed. */
  const inLane = <T>(label: string, job: () => Promise<T>): Promise<T> =>
    lanes.run(`label ${label}`, async () => {
      assertOpen();
      return job();
    });
  const locked = <T>(job: () => Promise<T>): Promise<T> => lanes.run(LOCK_LANE, () => place.withLock(job));

  async function load(label: string): Promise<Held | undefined> {
    const held = await place.read(label, loaded.get(label));
    if (held === undefined) loaded.delete(label);
    else loaded.set(label, held);
    return held;
  }

  /** For a signer whose key is not in memory: it may have been deleted, or its label be another key's by now. */
  async function loadAgain(label: string, thumbprint: string): Promise<Held> {
    const held = await inLane(label, () => load(label));
    if (held?.part.thumbprint === thumbprint) return held;
    throw new AttestedError('key_not_found', 'the key of this signer was deleted');
  }

  function signerFor({ part: { label, alg, jwk, thumbprint } }: Held): Signer {
    return {
      alg,
      publicJwk: { ...jwk },
      thumbprint,
      async sign(data) {
        assertOpen();
        const held = loaded.get(label);
        return place.sign(held?.part.thumbprint === thumbprint ? held : await loadAgain(label, thumbprint), data);
      },
    };
  }

  return {
    assertOpen,

    async createKey({ label, alg = 'ES256' }) {
      assertOpen();
      assertLabel(label);
      assertSignatureAlgorithm(alg);
      return inLane(label, async () => {
        const held =
          (await load(label)) ??
          (await locked(async () => {
            const made = await load(label); // by another process, while we waited
            if (made !== undefined) return made;
            await place.make(label, alg);
            return load(label); // from the place: what is used is what was kept, also where another process was first
          }));
        if (held === undefined) throw new AttestedError('key_not_found', 'the key was deleted while it was made');
        assertSameAlgorithm(held.part.alg, alg);
        return signerFor(held);
      });
    },

    async getKey(label) {
      assertOpen();
      assertLabel(label);
      const held = await inLane(label, () => load(label));
      return held && signerFor(held);
    },

    async listKeys() {
      assertOpen();
      return (await place.list()).sort((a, b) => (a.label < b.label ? -1 : 1));
    },

    async deleteKey(label) {
      assertOpen();
      assertLabel(label);
      return inLane(label, () =>
        locked(async () => {
          loaded.delete(label); // first: whatever happens now, signers have to ask the place
          return place.remove(label);
        }),
      );
    },

    async close() {
      closed = true;
      await lanes.idle();
      loaded.clear();
    },
  };
}

export function publicPartOf(label: string, alg: SignatureAlgorithm, { publicJwk, thumbprint }: Signer): PublicPart {
  return { label, alg, jwk: readPublicJwk(publicJwk, 'invalid_argument'), thumbprint };
}

/** Do both say the same of the same key? */
export function samePublicPart(a: PublicPart, b: PublicPart): boolean {
  return a.label === b.label && a.alg === b.alg && a.thumbprint === b.thumbprint;
}
