/** Trust in the attesters that a client's own metadata document endorses (draft-mcguinness-oauth-client-attesters). */

import type { JsonObject } from '../../core/json.ts';
import { AttestedError } from '../../errors.ts';
import { clientUrlFault, isHttpsUrl, MAX_DOCUMENT_BYTES, readClientAttesters } from '../../platform/client-document.ts';
import { importPublicKey } from '../../platform/crypto.ts';
import { assertSafeUrl, type FetchLike, fetchJson } from '../../platform/http.ts';
import { publicFetch } from '../../platform/public-fetch.ts';
import { type KeySource, keySource } from './endorsed-keys.ts';
import { maxAgeOf } from './max-age.ts';
import type { TrustSource } from './source.ts';

/** An attester that this server trusts by itself; the clients' endorsements say for whom it may speak. */
export interface ConfiguredAttester {
  /** The attestations' exact `iss`. */
  issuer: string;
  /** Where its keys are fetched. Documents have to name this URL, or an alias. */
  jwksUri: string;
  /** Other texts that documents may have in its place. They are compared, never fetched. */
  aliases?: readonly string[];
}

export interface CimdOptions {
  /**
   * Publishers who may choose attesters and their keys for their own clients: exact client_ids, or, with a slash at the end,
   * all client_ids below. `https://agents.example/` is the whole origin. On shared hosts name the publisher's own path.
   */
  allow?: readonly string[];
  /** Further clients, in the same form, whose documents are read, but who may endorse only {@link attesters}. */
  documents?: readonly string[];
  attesters?: readonly ConfiguredAttester[];
  /** Issuers that are believed for nobody. An attester that is taken off the list above belongs here, or publishers could pick it. */
  refused?: readonly string[];
  /** Seconds for which documents and keys are used at most: so long a withdrawn endorsement may count. Default 3600. */
  maxAge?: number;
  /** Seconds between two fetches of keys because of an unknown `kid`, and after a failure. Default 30. */
  coolDown?: number;
  /** Clients whose documents are remembered at most. Default 1000. */
  maxDocuments?: number;
  /** Milliseconds for each fetch. Default 5000. */
  timeout?: number;
  /** Fetches documents, keys and status lists whose places publishers choose. Default: one that reaches public addresses only. */
  fetch?: FetchLike;
  /** Fetches the keys of {@link attesters}, whose URLs are the operator's. Default `globalThis.fetch`. */
  fetchConfigured?: FetchLike;
}

const MAX_FETCHES = 16;

/**
 * Trusts an attester for a client because the document behind the client's client_id endorses it. So who controls the
 * client's origin decides who may attest for the client, and for no other; you decide which origins may.
 *
 * The attestation needs `iss` and `kid`. An issuer in `attesters` is never looked up at a publisher's URL, whoever endorses it
 * with another one is refused; for all others the endorsed `jwks_uri` has to be at the issuer's own https origin. Documents
 * and keys are fetched without redirects, bounded in time and size, and never from private addresses.
 *
 * Do not put it beside a source that trusts the same attesters without `clients`: that one would let them in unendorsed.
 *
 * @throws AttestedError `invalid_argument` for entries that are not https, and times that are no numbers
 */
export function cimd(options: CimdOptions): TrustSource {
  const { allow = [], documents = [], attesters = [], refused = [], maxDocuments = 1000 } = options;
  const { maxAge = 3600, coolDown = 30, timeout = 5000, fetchConfigured } = options;
  const fetch = options.fetch ?? publicFetch();
  for (const entry of [...allow, ...documents]) assertPattern(entry);
  if (![maxAge, coolDown].every((seconds) => typeof seconds === 'number' && seconds >= 0)) {
    throw new AttestedError('invalid_argument', 'maxAge and coolDown are numbers of seconds, zero or more');
  }
  if (allow.length === 0 && documents.length === 0) {
    throw new AttestedError('invalid_argument', 'cimd needs clients in allow or documents', { rule: 'IMPL-5' });
  }
  const limits = { maxAge, coolDown, timeout };
  const configured = new Map(
    attesters.map(({ issuer, jwksUri, aliases = [] }) => {
      const { origin } = assertSafeUrl(jwksUri);
      const keys = keySource(jwksUri, { ...limits, fetch: fetchConfigured });
      return [issuer, { names: new Set([jwksUri, ...aliases]), keys, origin, name: issuer }] as const;
    }),
  );
  const held = new Map<string, ClientRecord>();
  let fetches = 0;

  function recordOf(clientId: string): ClientRecord {
    const record = held.get(clientId) ?? { failedAt: Number.NEGATIVE_INFINITY, sources: new Map() };
    held.delete(clientId);
    held.set(clientId, record);
    if (held.size > maxDocuments) held.delete(held.keys().next().value as string);
    return record;
  }

  async function fetchDocument(clientId: string, record: ClientRecord, now: number): Promise<void> {
    if (fetches >= MAX_FETCHES) throw unavailable();
    fetches++;
    try {
      const { status, json, headers } = await fetchJson(clientId, {}, { fetch, timeout, maxBytes: MAX_DOCUMENT_BYTES });
      if (status === 404 || status === 410) {
        record.failedAt = now;
        delete record.document; // withdrawn, and no older copy counts
        delete record.failure;
        return;
      }
      if (status !== 200 || json === undefined) throw new AttestedError('http_failed', 'there is no client document');
      record.document = { json, expiresAt: now + maxAgeOf(headers, maxAge) * 1000 };
      record.failedAt = Number.NEGATIVE_INFINITY;
      delete record.failure;
    } catch (cause) {
      record.failedAt = now;
      record.failure = cause;
    } finally {
      fetches--;
    }
  }

  async function documentOf(clientId: string, now: number) {
    const record = recordOf(clientId);
    if (record.document !== undefined && now < record.document.expiresAt) return { record, ...record.document };
    const rested = now - record.failedAt >= coolDown * 1000 || now < record.failedAt;
    if (record.pending !== undefined || rested) {
      record.pending ??= fetchDocument(clientId, record, now).finally(() => {
        delete record.pending;
      });
      await record.pending;
    }
    if (record.failure !== undefined) throw unavailable(record.failure);
    return record.document === undefined ? undefined : { record, ...record.document };
  }

  return {
    endorsements: true,
    async find(header, now, about) {
      const { clientId, issuer } = about ?? {};
      if (clientId === undefined || issuer === undefined || issuer === '' || !header.kid) return [];
      const publisher = matches(allow, clientId);
      if ((!publisher && !matches(documents, clientId)) || clientUrlFault(clientId) !== undefined) return [];
      if (refused.includes(issuer)) return [];
      const found = await documentOf(clientId, now);
      if (found === undefined || found.json.client_id !== clientId) return [];
      const endorsed = readClientAttesters(found.json)?.find((attester) => attester.issuer === issuer);
      if (endorsed === undefined) return [];
      const source = sourceOf(found.record, endorsed, publisher);
      const key = await source?.keys.find(header, now);
      if (source === undefined || key === undefined) return [];
      return [
        {
          key: importPublicKey(key.jwk, 'invalid_client_attestation'),
          attester: source.name,
          clients: new Set([clientId]),
          validUntil: Math.min(found.expiresAt, key.validUntil),
          statusOrigins: [source.origin],
          ...(source.fetch !== undefined && { statusFetch: source.fetch }),
          statusKey: async (statusHeader, at) => {
            const signer = statusHeader.kid ? await source.keys.find(statusHeader, at) : undefined;
            return signer && importPublicKey(signer.jwk);
          },
        },
      ];
    },
  };

  /** Whose keys count: ours where we know the issuer, else the publisher's choice where he may choose. */
  function sourceOf(
    record: ClientRecord,
    { issuer, jwksUri }: { issuer: string; jwksUri: string },
    publisher: boolean,
  ): { keys: KeySource; origin: string; name: string; fetch?: FetchLike } | undefined {
    const own = configured.get(issuer);
    if (own !== undefined) return own.names.has(jwksUri) ? own : undefined;
    if (!publisher || !isHttpsUrl(issuer) || new URL(issuer).origin !== new URL(jwksUri).origin) return undefined;
    // by client, issuer and place: keys of one endorsement are none of another's
    const id = JSON.stringify([issuer, jwksUri]);
    const source = record.sources.get(id) ?? keySource(jwksUri, { ...limits, fetch });
    // what the document no longer names is forgotten
    record.sources = new Map([...record.sources].slice(-7)).set(id, source);
    // an endorsement names its attester by issuer and place, so that status lists of two places do not mix
    return { keys: source, origin: new URL(jwksUri).origin, name: `${issuer} ${jwksUri}`, fetch };
  }
}

interface ClientRecord {
  document?: { json: JsonObject; expiresAt: number };
  pending?: Promise<void>;
  /** Milliseconds since the epoch. */
  failedAt: number;
  failure?: unknown;
  sources: Map<string, KeySource>;
}

/** Both sides are normal forms of URLs, so that the beginning of the text is the beginning of the path. */
function matches(entries: readonly string[], clientId: string): boolean {
  return entries.some((entry) => (entry.endsWith('/') ? clientId.startsWith(entry) : clientId === entry));
}

function assertPattern(entry: string): void {
  if (!isHttpsUrl(entry) || new URL(entry).href !== entry || entry.includes('?')) {
    throw new AttestedError(
      'invalid_argument',
      'clients are named by exact https URLs, or by origin and path with a slash at the end',
      { rule: 'IMPL-5' },
    );
  }
}

function unavailable(cause?: unknown): AttestedError {
  return new AttestedError('temporarily_unavailable', "the client's document cannot be fetched at the moment", {
    rule: 'IMPL-5',
    cause,
  });
}
