/** Challenges and DPoP nonces that a server gives and gets back (ABCA §6, CHA-5; RFC 9449 §8). */
import { randomBytes } from 'node:crypto';
import { decodeBase64url, encodeBase64url, utf8 } from '../core/bytes.ts';
import { AttestedError } from '../errors.ts';
import { equalInConstantTime, hmacSha256, sha256Base64url } from '../platform/crypto.ts';

export interface ChallengeContext {
  /** A value made for one purpose or server is worth nothing for another. */
  purpose: 'challenge' | 'dpop-nonce';
  audience: string;
  /** Milliseconds since the epoch. */
  now: number;
}

/** `ageing`: still good, but the server should hand out a new one with its answer. */
export type ChallengeVerdict = 'good' | 'ageing' | 'bad';

/** A kind of challenge. Everything may be synchronous or not. */
export interface Challenges {
  issue(context: ChallengeContext): string | Promise<string>;
  /** Judges a value without using it up: called before the proof's signature is checked. */
  check(value: string, context: ChallengeContext): ChallengeVerdict | Promise<ChallengeVerdict>;
  /** Uses a value up, after everything else has passed. False when somebody was faster. Absent: values may be reused. */
  spend?(value: string, context: ChallengeContext): boolean | Promise<boolean>;
}

const VERSION = 1;
const BODY_BYTES = 1 + 6 + 8;
const MAC_BYTES = 16;
const TEXT_LENGTH = Math.ceil(((BODY_BYTES + MAC_BYTES) * 4) / 3);
const MAX_REMEMBERED = 10_000;

/**
 * Self-contained challenges: time and randomness inside, authenticated by HMAC-SHA-256, bound to audience and purpose. Any
 * node that has the key can check them and nothing is stored. They prove freshness; replay is the `jti` memory's part.
 *
 * @param options.keys secrets of 32 bytes or more (a string counts as its UTF-8 bytes). The first makes new challenges, all
 *   are accepted, so that keys can roll over: add the new one last, then move it first, then drop the old one. Default: a
 *   random key of this process
 * @param options.ttl seconds for which a challenge is good. Default 300
 * @throws AttestedError `invalid_argument` for a short key, or a ttl that is no number over zero
 */
export function sealedChallenges(options: { keys?: readonly (Uint8Array | string)[]; ttl?: number } = {}): Challenges {
  const ttl = lifetimeOf(options);
  const keys = (options.keys ?? [randomBytes(32)]).map((key) => {
    const bytes = typeof key === 'string' ? utf8(key) : key;
    if (!(bytes instanceof Uint8Array && bytes.length >= 32))
      throw new AttestedError('invalid_argument', 'a challenge key needs 32 bytes or more', { rule: 'CHA-5' });
    return hmacSha256(bytes, utf8('attested sealed challenge v1'));
  });
  const [current] = keys;
  if (current === undefined)
    throw new AttestedError('invalid_argument', 'sealed challenges need a key', { rule: 'CHA-5' });

  const macOf = (key: Uint8Array, body: Uint8Array, { purpose, audience }: ChallengeContext) =>
    hmacSha256(key, Buffer.concat([body, Buffer.from(`${purpose}\0${audience}`)])).subarray(0, MAC_BYTES);

  // clients use one challenge for many proofs, and an HMAC costs ten times everything else here: authentic values are
  // remembered. Their age is judged every time.
  const authentic = new Map<string, number>();

  /** When an authentic value was issued, milliseconds since the epoch; undefined for all others. */
  function issueTime(value: string, context: ChallengeContext): number | undefined {
    if (value.length !== TEXT_LENGTH) return undefined;
    const id = `${context.purpose} ${context.audience} ${value}`;
    const known = authentic.get(id);
    if (known !== undefined) return known;
    const bytes = decodeBase64url(value);
    if (bytes === undefined || bytes[0] !== VERSION) return undefined;
    const body = bytes.subarray(0, BODY_BYTES);
    const mac = bytes.subarray(BODY_BYTES);
    if (!keys.some((key) => equalInConstantTime(mac, macOf(key, body, context)))) return undefined;
    const issuedAt = Buffer.from(body).readUIntBE(1, 6);
    if (authentic.size >= MAX_REMEMBERED) authentic.delete(authentic.keys().next().value as string);
    authentic.set(id, issuedAt);
    return issuedAt;
  }

  return {
    issue(context) {
      const body = randomBytes(BODY_BYTES);
      body.writeUInt8(VERSION, 0);
      body.writeUIntBE(Math.floor(context.now), 1, 6);
      return encodeBase64url(Buffer.concat([body, macOf(current, body, context)]));
    },
    check(value, context) {
      const issuedAt = issueTime(value, context);
      if (issuedAt === undefined) return 'bad';
      const age = context.now - issuedAt;
      // a node whose clock is a little behind the issuer's sees a small negative age
      if (age > ttl || age < -ttl) return 'bad';
      return age > ttl / 2 ? 'ageing' : 'good';
    },
  };
}

/** What {@link storedChallenges} keeps its values in. Every method may be synchronous or not. */
export interface ChallengeStore {
  /** Keeps an id for so many milliseconds. */
  put(id: string, ttl: number): void | Promise<void>;
  has(id: string): boolean | Promise<boolean>;
  /** Removes an id. True for exactly one caller, however many ask at once. */
  take(id: string): boolean | Promise<boolean>;
}

/**
 * Single-use challenges kept in a store that all nodes share. The store sees only a hash of each value. Stronger than
 * sealed ones (one proof per challenge), at the price of a store access per request and state that strangers can fill: give
 * the store a bound.
 *
 * @param options.ttl seconds for which a challenge is good. Default 300
 * @throws AttestedError `invalid_argument` for a ttl that is no number over zero, or a store that is none
 */
export function storedChallenges(
  store: ChallengeStore = memoryChallengeStore(),
  options: { ttl?: number } = {},
): Challenges {
  const ttl = lifetimeOf(options);
  if (![store?.put, store?.has, store?.take].every((method) => typeof method === 'function')) {
    throw new AttestedError('invalid_argument', 'a challenge store has the methods put, has and take', {
      rule: 'CHA-5',
    });
  }
  const idOf = (value: string, { purpose, audience }: ChallengeContext) =>
    sha256Base64url(`${purpose}\0${audience}\0${value}`);
  return {
    async issue(context) {
      const value = randomBytes(32).toString('base64url');
      await answered(() => store.put(idOf(value, context), ttl));
      return value;
    },
    async check(value, context) {
      return value.length <= 64 && (await answered(() => store.has(idOf(value, context)))) ? 'ageing' : 'bad';
    },
    spend: (value, context) => answered(() => store.take(idOf(value, context))),
  };
}

/** In milliseconds. Nothing is older than NaN, which is what `Number()` makes of a setting that is not there. */
function lifetimeOf({ ttl = 300 }: { ttl?: number }): number {
  if (typeof ttl === 'number' && ttl > 0) return ttl * 1000;
  throw new AttestedError('invalid_argument', 'the ttl of challenges is a number of seconds over zero', {
    rule: 'CHA-5',
  });
}

async function answered<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new AttestedError('temporarily_unavailable', 'the challenge store does not answer', { rule: 'CHA-5', cause });
  }
}

/**
 * A bounded store in this process's memory. When it is full the oldest challenge goes, whose owner will be asked to use a
 * new one.
 */
export function memoryChallengeStore({
  maxEntries = 100_000,
  now = Date.now,
}: {
  maxEntries?: number;
  now?: () => number;
} = {}): ChallengeStore {
  const expiries = new Map<string, number>();
  const isLive = (id: string) => (expiries.get(id) ?? Number.NEGATIVE_INFINITY) > now();
  return {
    put(id, ttl) {
      for (const [oldest, expiry] of expiries) {
        if (expiry > now() && expiries.size < maxEntries) break;
        expiries.delete(oldest);
      }
      expiries.set(id, now() + ttl);
    },
    has: isLive,
    take(id) {
      const live = isLive(id);
      expiries.delete(id);
      return live;
    },
  };
}
