/** Replay memory: a proof's `jti` is accepted once inside its window (VER-8, IMPL-4). */
import { AttestedError } from '../errors.ts';
import { sha256Base64url } from '../platform/crypto.ts';

export interface ReplayEntry {
  /** Kind of proof and instance thumbprint: the same `jti` of two instances does not collide. */
  instance: string;
  jti: string;
  /** The proof's own time, seconds since the epoch; already inside the accepted window. */
  createdAt: number;
  /** When the proof falls out of the window by itself, seconds since the epoch. */
  expiresAt: number;
  /** Seconds since the epoch. */
  now: number;
}

export interface ReplayStore {
  /**
   * Remembers a proof. True for exactly one caller per (instance, jti), however many nodes ask at once.
   *
   * @throws AttestedError `temporarily_unavailable` when the store cannot answer: the request is then refused, never let through
   */
  claim(entry: ReplayEntry): boolean | Promise<boolean>;
}

/** Width of a bucket of {@link memoryReplay}, seconds. */
const BUCKET = 60;
/** Characters past which a hash stands for a jti: the client chooses it, and a million of 1 kB would fill the memory. */
const LONG = 64;

/**
 * Replay memory of this process: one set per minute of creation time, dropped whole when its window has passed. Use a
 * shared store where more than one process serves the same audience.
 *
 * It never forgets early: when `maxEntries` are live, further requests are refused (`temporarily_unavailable`), and should
 * the clock go back, proofs of a time already dropped are refused as replays.
 *
 * @param options.maxEntries about 150 bytes each. Default 1,000,000
 */
export function memoryReplay({ maxEntries = 1_000_000 }: { maxEntries?: number } = {}): ReplayStore {
  const buckets = new Map<number, { ids: Set<string>; expiresAt: number }>();
  let live = 0;
  let droppedUpTo = Number.NEGATIVE_INFINITY;
  let sweptAt = Number.NEGATIVE_INFINITY;

  function sweep(now: number): void {
    if (now === sweptAt) return;
    sweptAt = now;
    for (const [number, { ids, expiresAt }] of buckets) {
      if (expiresAt >= now) continue;
      buckets.delete(number);
      live -= ids.size;
      droppedUpTo = Math.max(droppedUpTo, number);
    }
  }

  return {
    claim({ instance, jti, createdAt, expiresAt, now }) {
      sweep(now);
      const number = Math.floor(createdAt / BUCKET);
      if (number <= droppedUpTo) return false;
      const id = `${instance} ${jti.length > LONG ? sha256Base64url(jti) : jti}`;
      for (const { ids } of buckets.values()) if (ids.has(id)) return false;
      if (live >= maxEntries) {
        throw new AttestedError('temporarily_unavailable', 'the replay memory is full', { rule: 'IMPL-4' });
      }
      // a bucket is kept until its very last second is outside the window: what is dropped is refused from then on
      const bucketEnds = expiresAt - createdAt + (number + 1) * BUCKET;
      const bucket = buckets.get(number);
      if (bucket === undefined) buckets.set(number, { ids: new Set([id]), expiresAt: bucketEnds });
      else {
        bucket.ids.add(id);
        bucket.expiresAt = Math.max(bucket.expiresAt, bucketEnds);
      }
      live++;
      return true;
    },
  };
}
