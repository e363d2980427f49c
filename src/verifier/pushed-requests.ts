/** Pushed authorization requests (RFC 9126) whose codes belong to the instance that pushed them (BIND-2), for any AS with PKCE. */
import { AttestedError } from '../errors.ts';
import { randomId, sha256Base64url } from '../platform/crypto.ts';
import { assertBoundTo } from './binding.ts';
import type { Owner } from './sealed-tokens.ts';

/** What {@link pushedRequests} keeps its entries in. Every method may be synchronous or not. */
export interface GrantStore {
  /**
   * Keeps a text for so many milliseconds. Throws rather than forget another entry that is still live.
   *
   * @param owner for whom: one of them should not be able to fill the store
   */
  put(id: string, value: string, ttl: number, owner: string): void | Promise<void>;
  get(id: string): string | undefined | Promise<string | undefined>;
  /** Removes an entry and gives it to exactly one caller, however many ask at once. */
  take(id: string): string | undefined | Promise<string | undefined>;
}

export interface PushedRequests {
  /**
   * Keeps an authorization request of an attested instance.
   *
   * @returns the body of the answer, which has status 201 (RFC 9126 §2.2)
   * @throws AttestedError `invalid_request` for one without an S256 code challenge, with a `request_uri`, or too large
   */
  push(request: URLSearchParams, owner: Owner): Promise<{ request_uri: string; expires_in: number }>;
  /**
   * The request that a client's `request_uri` stands for, once.
   * @throws AttestedError `invalid_request` for one that is not known, used, old or another client's
   */
  take(requestUri: string, clientId: string): Promise<URLSearchParams>;
  /**
   * Checks that a code is redeemed by the instance that asked for it. Call it before the code is looked up, so that nobody
   * else's attempt burns it.
   *
   * @param codeVerifier the token request's; the AS itself checks that it fits the code
   * @returns whether the code was asked for by a pushed request
   * @throws AttestedError `invalid_grant`
   */
  assertBound(codeVerifier: string, owner: Owner): Promise<boolean>;
}

export interface PushedRequestOptions {
  /** Default: memory of this process. */
  store?: GrantStore;
  /** Seconds for which a pushed request may be used. Default 60. */
  ttl?: number;
  /** Seconds from the push within which a code is redeemed: more than the person and the code's own life may take. Default 3600. */
  codeTtl?: number;
}

/** RFC 9126 §2.2 */
export const REQUEST_URN = 'urn:ietf:params:oauth:request_uri:';
const MAX_REQUEST = 8192;
/** base64url of a SHA-256 (RFC 7636 §4.2). */
const S256 = /^[A-Za-z0-9_-]{43}$/;

/**
 * Binds codes by their PKCE challenge: whoever redeems a code shows the verifier of the challenge that it was asked for with,
 * and which instance pushed that challenge is remembered. So the AS behind need not know of instances; it has to demand PKCE
 * with S256. The store sees hashes and the pushed parameters; of the attestation nothing but client_id and key thumbprint.
 */
export function pushedRequests(options: PushedRequestOptions = {}): PushedRequests {
  const { store = memoryGrantStore(), ttl = 60, codeTtl = 3600 } = options;
  if (![ttl, codeTtl].every((seconds) => typeof seconds === 'number' && seconds > 0) || codeTtl < ttl) {
    throw new AttestedError('invalid_argument', 'ttl and codeTtl are numbers of seconds over zero, codeTtl the larger');
  }
  const requestId = (reference: string) => `par ${sha256Base64url(reference)}`;
  const codeId = (challenge: string) => `code ${challenge}`;

  return {
    async push(request, { clientId, thumbprint }) {
      const params = new URLSearchParams(request);
      if (params.has('request_uri') || params.has('request')) {
        throw refused('a pushed request holds its parameters itself');
      }
      const challenge = params.get('code_challenge') ?? '';
      if (params.get('code_challenge_method') !== 'S256' || !S256.test(challenge)) {
        throw refused('a pushed request needs a code_challenge with S256');
      }
      params.set('client_id', clientId);
      const text = params.toString();
      if (text.length > MAX_REQUEST) throw refused('the pushed request is too large');
      // a challenge belongs to who pushed it first: somebody who saw it must not take it over
      const binding = JSON.stringify({ clientId, thumbprint });
      const before = await answered(() => store.get(codeId(challenge)));
      if (before !== undefined && before !== binding) throw refused('the code_challenge is in use');
      const reference = randomId();
      await answered(() => store.put(codeId(challenge), binding, codeTtl * 1000, thumbprint));
      await answered(() => store.put(requestId(reference), text, ttl * 1000, thumbprint));
      return { request_uri: REQUEST_URN + reference, expires_in: ttl };
    },

    async take(requestUri, clientId) {
      const reference = requestUri.startsWith(REQUEST_URN) ? requestUri.slice(REQUEST_URN.length) : '';
      const id = requestId(reference);
      const text = await answered(() => store.get(id));
      // another client's attempt uses nothing up
      if (text === undefined || new URLSearchParams(text).get('client_id') !== clientId) throw unknownRequest();
      const taken = await answered(() => store.take(id));
      if (taken === undefined) throw unknownRequest();
      return new URLSearchParams(taken);
    },

    async assertBound(codeVerifier, owner) {
      const text = await answered(() => store.get(codeId(sha256Base64url(codeVerifier))));
      if (text === undefined) return false;
      assertBoundTo(JSON.parse(text) as Owner, owner);
      return true;
    },
  };
}

/**
 * A bounded store in this process's memory. When it is full, or an owner has its share, new entries are refused: to forget one
 * would unbind its code. Every pushed request makes two.
 */
export function memoryGrantStore({
  maxEntries = 100_000,
  maxPerOwner = 200,
  now = Date.now,
}: {
  maxEntries?: number;
  maxPerOwner?: number;
  now?: () => number;
} = {}): GrantStore {
  const entries = new Map<string, { value: string; expiresAt: number; owner: string }>();
  const counts = new Map<string, number>();
  let sweptAt = Number.NEGATIVE_INFINITY;
  const live = (id: string) => {
    const entry = entries.get(id);
    return entry !== undefined && entry.expiresAt > now() ? entry.value : undefined;
  };
  function remove(id: string): void {
    const entry = entries.get(id);
    if (entry === undefined) return;
    entries.delete(id);
    const left = (counts.get(entry.owner) ?? 0) - 1;
    if (left > 0) counts.set(entry.owner, left);
    else counts.delete(entry.owner);
  }
  return {
    put(id, value, ttl, owner) {
      const time = now();
      if (time - sweptAt > 1000 || time < sweptAt) {
        sweptAt = time;
        for (const [old, { expiresAt }] of entries) if (expiresAt <= time) remove(old);
      }
      const count = counts.get(owner) ?? 0;
      if (!entries.has(id)) {
        if (entries.size >= maxEntries) throw new Error('the grant store is full');
        if (count >= maxPerOwner) throw new Error('the owner has its share of the grant store');
      }
      remove(id);
      entries.set(id, { value, expiresAt: time + ttl, owner });
      counts.set(owner, (counts.get(owner) ?? 0) + 1);
    },
    get: live,
    take(id) {
      const value = live(id);
      remove(id);
      return value;
    },
  };
}

async function answered<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new AttestedError('temporarily_unavailable', 'the store of grants does not answer', {
      rule: 'BIND-2',
      cause,
    });
  }
}

function refused(why: string): AttestedError {
  return new AttestedError('invalid_request', why, { rule: 'RFC 9126 §2.1' });
}

function unknownRequest(): AttestedError {
  return new AttestedError(
    'invalid_request',
    'the request_uri is not known, used before, too old or another client’s',
    {
      rule: 'RFC 9126 §4',
    },
  );
}
