/** The keys of one endorsed attester: the strict selection of draft-mcguinness-oauth-client-attesters, by `kid` alone. */
import { keyFits } from '../../core/algorithms.ts';
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { type PublicJwk, readPublicJwk } from '../../core/jwk.ts';
import type { JoseHeader } from '../../core/jwt.ts';
import type { JsonWebKey } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { type FetchLimits, fetchJson } from '../../platform/http.ts';
import { maxAgeOf } from './max-age.ts';

export interface KeySource {
  /**
   * The one eligible key that a header names, and until when it may be relied on (milliseconds since the epoch).
   * @throws AttestedError `temporarily_unavailable`
   */
  find(header: JoseHeader, now: number): Promise<{ jwk: PublicJwk; validUntil: number } | undefined>;
}

export interface KeySourceOptions extends FetchLimits {
  /** Seconds for which a set is used at most. */
  maxAge: number;
  /** Seconds between two fetches because of an unknown `kid`, and after a failed one. */
  coolDown: number;
}

const MAX_KEYS = 64;

export function keySource(url: string, options: KeySourceOptions): KeySource {
  let held: { keys: JsonObject[]; expiresAt: number } | undefined;
  let triedAt = Number.NEGATIVE_INFINITY;
  let failure: unknown;
  let pending: Promise<void> | undefined;

  async function fetchSet(now: number): Promise<void> {
    triedAt = now;
    try {
      const { status, json, headers } = await fetchJson(url, {}, options);
      if (status !== 200 || json === undefined || !Array.isArray(json.keys) || json.keys.length > MAX_KEYS) {
        throw new AttestedError('http_failed', 'the attester did not answer with a JWK Set');
      }
      const age = maxAgeOf(headers, options.maxAge) * 1000;
      held = { keys: json.keys.filter(isJsonObject), expiresAt: now + age };
      failure = undefined;
    } catch (error) {
      failure = error;
    }
  }
  function refresh(now: number): Promise<void> {
    pending ??= fetchSet(now).finally(() => {
      pending = undefined;
    });
    return pending;
  }

  return {
    async find(header, now) {
      const rested = () => now - triedAt >= options.coolDown * 1000 || now < triedAt;
      let fresh = false;
      if (held === undefined || now >= held.expiresAt) {
        if (pending !== undefined || failure === undefined || rested()) await refresh(now);
        fresh = failure === undefined;
        if (!fresh || held === undefined) throw unavailable(failure);
      }
      const found = select(held.keys, header);
      if (found !== 'unknown' || fresh || (pending === undefined && !rested())) return known(found, held.expiresAt);
      await refresh(now);
      return known(select(held.keys, header), held.expiresAt);
    },
  };
}

function known(found: PublicJwk | 'unknown' | undefined, validUntil: number) {
  return found === undefined || found === 'unknown' ? undefined : { jwk: found, validUntil };
}

/** `unknown`: no key has the kid. Undefined: one has, or several, but none may be used. */
function select(keys: readonly JsonObject[], header: JoseHeader): PublicJwk | 'unknown' | undefined {
  const named = keys.filter(({ kid }) => kid === header.kid);
  const [key] = named;
  if (key === undefined) return 'unknown';
  const { use, key_ops: operations, alg } = key;
  if (named.length > 1 || (use !== undefined && use !== 'sig')) return undefined;
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) return undefined;
  if (alg !== undefined && alg !== header.alg) return undefined;
  try {
    const jwk = readPublicJwk(key as JsonWebKey, 'invalid_argument', 'IMPL-5');
    return keyFits(header.alg, jwk) ? jwk : undefined;
  } catch {
    return undefined;
  }
}

function unavailable(cause: unknown): AttestedError {
  return new AttestedError('temporarily_unavailable', 'the keys of an attester cannot be fetched at the moment', {
    rule: 'IMPL-5',
    cause,
  });
}
