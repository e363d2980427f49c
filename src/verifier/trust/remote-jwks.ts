/** Trust in the keys that an attester publishes at a configured URL (IMPL-5). */

import { isJsonObject } from '../../core/json.ts';
import type { JsonWebKey } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { assertSafeUrl, type FetchLimits, fetchJson } from '../../platform/http.ts';
import { clientSet, importJwks, type JwksEntry, selectKeys, type TrustOptions, type TrustSource } from './source.ts';

export interface RemoteJwksOptions extends TrustOptions, FetchLimits {
  /** Seconds for which a fetched set is used before it is fetched again. Default 600. */
  cacheFor?: number;
  /** Seconds between two fetches at least, whatever `kid` tokens ask for. Default 30. */
  coolDown?: number;
  /** Seconds past `cacheFor` for which an old set is still used while the attester cannot be reached. Default 3600. */
  staleFor?: number;
}

const MAX_KEYS = 64;

/**
 * Trusts the JWK Set at a URL, fetched when needed. A `kid` that is not in the set causes a new fetch, at most one per
 * cool-down, so that key roll-over works and forged tokens cannot make us hammer the attester. Keys that are no longer in
 * the set stop counting with the next fetch.
 *
 * @throws AttestedError `invalid_argument` for a URL that is neither https nor on this machine, or times that are no numbers
 */
export function remoteJwks(url: string, options: RemoteJwksOptions = {}): TrustSource {
  const { origin } = assertSafeUrl(url);
  const [cacheFor, coolDown, staleFor] = [
    milliseconds(options.cacheFor ?? 600),
    milliseconds(options.coolDown ?? 30),
    milliseconds(options.staleFor ?? 3600),
  ];
  const clients = clientSet(options.clients);
  let entries: JwksEntry[] | undefined;
  let fetchedAt = 0;
  let triedAt = Number.NEGATIVE_INFINITY;
  let failure: unknown;
  let pending: Promise<void> | undefined;

  async function fetchSet(now: number): Promise<void> {
    triedAt = now;
    try {
      const { status, json } = await fetchJson(url, {}, options);
      if (status !== 200 || json === undefined || !Array.isArray(json.keys) || json.keys.length > MAX_KEYS) {
        throw new AttestedError('http_failed', 'the attester did not answer with a JWK Set');
      }
      const trusted = { attester: options.attester ?? url, clients, statusOrigins: [origin] };
      const keys = json.keys.filter((key) => isJsonObject(key)) as JsonWebKey[];
      // attestations remembered with a key of the old set have to be judged by the new one
      for (const { trusted } of entries ?? []) trusted.validUntil = now;
      entries = importJwks(keys, { ...trusted, validUntil: now + cacheFor }, true);
      fetchedAt = now;
      failure = undefined;
    } catch (error) {
      failure = error;
      // an old set serves on for a while; each use asks again once the cool-down is over
      for (const { trusted } of entries ?? []) trusted.validUntil = now + coolDown;
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
      const cooledDown = () => now - triedAt >= coolDown || now < triedAt;
      if (
        (entries === undefined || now - fetchedAt >= cacheFor || now < fetchedAt) &&
        (pending !== undefined || cooledDown())
      ) {
        await refresh(now);
      }
      if (entries === undefined || now - fetchedAt >= cacheFor + staleFor) {
        throw new AttestedError('temporarily_unavailable', 'the keys of an attester cannot be fetched at the moment', {
          rule: 'IMPL-5',
          cause: failure,
        });
      }
      const found = selectKeys(entries, header);
      // a fetch that somebody else's new kid has started is worth waiting for
      if (found.length > 0 || (pending === undefined && !cooledDown())) return found;
      await refresh(now);
      return selectKeys(entries, header);
    },
  };
}

/** Nothing is older than NaN: with it keys would count for ever. */
function milliseconds(seconds: number): number {
  if (typeof seconds === 'number' && seconds >= 0) return seconds * 1000;
  throw new AttestedError('invalid_argument', 'cacheFor, coolDown and staleFor are numbers of seconds, zero or more');
}
