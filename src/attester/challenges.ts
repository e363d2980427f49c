/** The attester's own challenges: random, kept as hashes, each good for one request. */
import { randomBytes } from 'node:crypto';
import type { JsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import type { ChallengeAnswer } from '../evidence/protocol.ts';
import { sha256Base64url } from '../platform/crypto.ts';
import type { AttesterStore } from './store.ts';

export interface Challenges {
  /** Seconds for which a challenge lasts. */
  readonly ttl: number;
  /** @throws AttestedError `temporarily_unavailable` when too many are outstanding */
  create(state?: JsonObject): Promise<ChallengeAnswer>;
  /**
   * Takes a challenge and gives what was kept with it.
   * @throws AttestedError `use_attestation_challenge` when it is unknown, late or used before
   */
  take(challenge: string): Promise<JsonObject | undefined>;
}

export interface ChallengeOptions {
  store: AttesterStore;
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Seconds. */
  ttl: number;
  /** Most outstanding at once. */
  max: number;
}

/** @throws AttestedError `invalid_argument` */
export function createChallenges({ store, now, ttl, max }: ChallengeOptions): Challenges {
  if (!Number.isSafeInteger(ttl) || ttl < 1 || ttl > 600 || !Number.isSafeInteger(max) || max < 1) {
    throw new AttestedError('invalid_argument', 'a challenge lasts 1 to 600 seconds, and max is a whole number from 1');
  }
  const seconds = (): number => Math.floor(now() / 1000);
  return {
    ttl,
    async create(state) {
      const challenge = randomSecret();
      const at = seconds();
      const entry = { hash: sha256Base64url(challenge), expiresAt: at + ttl, ...(state && { state }) };
      if (!(await store.putChallenge(entry, { now: at, max }))) {
        throw new AttestedError('temporarily_unavailable', 'too many challenges are outstanding');
      }
      return { challenge, expires_in: ttl };
    },
    async take(challenge) {
      const taken = await store.takeChallenge(sha256Base64url(challenge), seconds());
      if (taken === undefined) {
        throw new AttestedError('use_attestation_challenge', 'the challenge is unknown, late or already used');
      }
      return taken.state;
    },
  };
}

/** 256 random bits, base64url. */
export function randomSecret(): string {
  return randomBytes(32).toString('base64url');
}
