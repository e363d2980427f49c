/** Revocation by Token Status List: fetched from the attester's own origin, verified with the attester's own keys. */
import { promisify } from 'node:util';
import { inflate } from 'node:zlib';
import type { JoseHeader } from '../core/jwt.ts';
import { parseStatusListToken, type StatusReference, statusAt } from '../core/status-list.ts';
import { AttestedError } from '../errors.ts';
import { verifySignature } from '../platform/crypto.ts';
import { type FetchLimits, fetchText } from '../platform/http.ts';
import type { TrustedKey, TrustSource } from './trust/source.ts';

export interface StatusOptions extends FetchLimits {
  /** Longest time for which a list is used without asking again, seconds, whatever its own `ttl`. Default 300. */
  maxTtl?: number;
}

export interface StatusChecker {
  /**
   * Is the attestation behind a reference still valid? `unchecked` when the operator named no origin for this attester's
   * lists.
   *
   * @throws AttestedError `invalid_client_attestation` when revoked or when the list is forged, stale or malformed,
   *   `temporarily_unavailable` when no list can be had
   */
  check(reference: StatusReference, trusted: TrustedKey, now: number): 'valid' | 'unchecked' | Promise<'valid'>;
}

interface StatusList {
  bytes: Uint8Array;
  bits: 1 | 2 | 4 | 8;
  /** Milliseconds since the epoch, as all below. */
  fetchedAt: number;
  refreshAt: number;
  expiresAt: number;
}

const MAX_TOKEN = 1024 * 1024;
const MAX_LIST = 4 * 1024 * 1024;
const MAX_LISTS = 64;
/** So long a list that could not be renewed serves before the next try, milliseconds: requests do not wait meanwhile. */
const RETRY_AFTER = 30_000;
const RULE = 'Token Status List §8.3';
const inflateBounded = promisify(inflate);

export function statusChecker(trust: readonly TrustSource[], options: StatusOptions = {}): StatusChecker {
  const maxTtl = (options.maxTtl ?? 300) * 1000;
  const lists = new Map<string, StatusList>();
  const pending = new Map<string, Promise<StatusList>>();

  async function fetchList(uri: string, trusted: TrustedKey, now: number): Promise<StatusList> {
    const { status, text, headers } = await fetchText(
      uri,
      { headers: { accept: 'application/statuslist+jwt' } },
      { ...options, fetch: trusted.statusFetch ?? options.fetch, maxBytes: MAX_TOKEN },
    ).catch((cause: unknown) => {
      throw unavailable(cause);
    });
    if (status !== 200 || !headers.get('content-type')?.startsWith('application/statuslist+jwt')) throw unavailable();
    const token = parseStatusListToken(text);
    if (token.uri !== uri) throw refused('is for another URI');
    if (!(await isSignedBy(trusted, token, now))) throw refused('is not signed by the attester');
    const seconds = now / 1000;
    if ((token.exp !== undefined && token.exp <= seconds) || token.iat > seconds + 60) throw refused('is stale');
    let bytes: Buffer;
    try {
      bytes = await inflateBounded(token.compressed, { maxOutputLength: MAX_LIST });
    } catch {
      throw refused('does not decompress to a list of acceptable size');
    }
    const ttl = Math.min((token.ttl ?? Number.POSITIVE_INFINITY) * 1000, maxTtl);
    const expiresAt = token.exp === undefined ? now + ttl : token.exp * 1000;
    return { bytes, bits: token.bits, fetchedAt: now, refreshAt: Math.min(now + ttl, expiresAt), expiresAt };
  }

  async function isSignedBy(
    { attester, statusKey }: TrustedKey,
    token: ReturnType<typeof parseStatusListToken>,
    now: number,
  ): Promise<boolean> {
    if (statusKey !== undefined) {
      const key = await statusKey(token.header, now);
      return key !== undefined && verifySignature(token.header.alg, key, token.signingInput, token.signature);
    }
    for (const source of trust) {
      for (const candidate of await candidatesOf(source, token.header, now)) {
        const same = candidate.attester === attester;
        if (same && verifySignature(token.header.alg, candidate.key, token.signingInput, token.signature)) return true;
      }
    }
    return false;
  }

  /** Another attester that cannot be reached, or finds fault with a header that is not for it, says nothing about this list. */
  async function candidatesOf(source: TrustSource, header: JoseHeader, now: number): Promise<TrustedKey[]> {
    try {
      return await source.find(header, now);
    } catch (error) {
      if (error instanceof AttestedError) return [];
      throw error;
    }
  }

  /** The current list: from memory while it is fresh, else fetched, once however many ask. */
  function listAt(uri: string, trusted: TrustedKey, now: number): StatusList | Promise<StatusList> {
    // lists of two attesters never mix, even under one URI
    const id = `${trusted.attester}\0${uri}`;
    const known = lists.get(id);
    if (known !== undefined && now < known.refreshAt && now >= known.fetchedAt) return known;
    let fetching = pending.get(id);
    if (fetching === undefined) {
      fetching = fetchList(uri, trusted, now)
        .then((list) => {
          if (lists.size >= MAX_LISTS) lists.delete(lists.keys().next().value as string);
          lists.set(id, list);
          return list;
        })
        .catch((error: unknown) => {
          // an attester that is down for a moment stops nobody while its last list is still valid
          if (
            known !== undefined &&
            now < known.expiresAt &&
            (error as AttestedError).code === 'temporarily_unavailable'
          ) {
            known.refreshAt = Math.min(now + RETRY_AFTER, known.expiresAt);
            return known;
          }
          throw error;
        })
        .finally(() => pending.delete(id));
      pending.set(id, fetching);
    }
    return fetching;
  }

  function judge(list: StatusList, index: number): 'valid' {
    const status = statusAt(list.bytes, list.bits, index);
    if (status === 0) return 'valid';
    throw new AttestedError(
      'invalid_client_attestation',
      'Client Attestation has been revoked or suspended by its attester',
      {
        rule: RULE,
      },
    );
  }

  return {
    check({ uri, idx }, trusted, now) {
      const origin = URL.canParse(uri) ? new URL(uri).origin : undefined;
      if (origin === undefined || !trusted.statusOrigins.includes(origin)) return 'unchecked';
      const list = listAt(uri, trusted, now);
      return list instanceof Promise ? list.then((fetched) => judge(fetched, idx)) : judge(list, idx);
    },
  };
}

function refused(why: string): AttestedError {
  return new AttestedError('invalid_client_attestation', `the attester's status list ${why}`, { rule: RULE });
}

function unavailable(cause?: unknown): AttestedError {
  return new AttestedError('temporarily_unavailable', "the attester's status list cannot be had", {
    rule: RULE,
    cause,
  });
}
