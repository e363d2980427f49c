/** What the agent knows of servers: their documents, their latest challenge and DPoP nonce (CHA-2 to CHA-8). */
import { isUsableChallenge, readChallengeBody } from '../core/challenge.ts';
import { CHALLENGE_HEADER, DPOP_NONCE_HEADER } from '../core/headers.ts';
import { AttestedError } from '../errors.ts';
import { assertSafeUrl, type FetchLike, fetchJson, isLoopback } from '../platform/http.ts';
import { BoundedMap } from './bounded.ts';
import { bare, covers, fetchIssuer, fetchResource, type MetadataFetch, type ServerDocument } from './metadata.ts';

export interface Server extends ServerDocument {
  /** Milliseconds since the epoch. */
  fetchedAt: number;
  /** The most recently received values of this server (CHA-3). */
  challenge: string | undefined;
  nonce: string | undefined;
  /** The challenge endpoint is not asked again before, milliseconds since the epoch. */
  askAfter: number;
}

export interface Servers {
  /** An AS by its issuer identifier. @throws AttestedError as {@link fetchIssuer} does */
  issuer(id: string): Promise<Server>;
  /** A resource by where its 401 says its metadata is. @throws AttestedError as {@link fetchResource} does */
  resource(location: string, asked: URL): Promise<Server>;
  /** Takes in a resource's document that came by from the resource's own origin. */
  learn(document: ServerDocument): void;
  /**
   * Takes in an AS's document that came by from where we would fetch it ourselves. It counts only when that AS is asked for,
   * so that nobody becomes known by being looked at.
   */
  overhear(document: ServerDocument): void;
  /** The protected resource that a URL belongs to, if it is known and the URL is no endpoint of an AS. */
  resourceAt(url: URL): Server | undefined;
  /** Takes in the challenge and nonce of any answer (CHA-3, RFC 9449 §8.2), for its server or for whose URL it is. */
  observe(url: URL, headers: Headers, server?: Server): void;
  /** The latest DPoP nonce for a URL. */
  nonceAt(url: URL): string | undefined;
  /** Fetches a challenge, and a nonce with it, where the server offers that and we have none (CHA-2, CHA-6). */
  prepare(server: Server, need: { challenge: boolean; nonce: boolean }): Promise<void>;
}

const MAX_SERVERS = 256;
/** Milliseconds after which a document is fetched again. */
const DOCUMENT_TTL = 3_600_000;
/** Milliseconds for which a document that came by saves fetching it. */
const OVERHEARD_TTL = 60_000;
/** Milliseconds before a server or endpoint that failed is asked again. */
const PAUSE = 30_000;

export function openServers(options: {
  fetch: FetchLike | undefined;
  now: () => number;
  /** Milliseconds for each exchange. */
  timeout: number;
}): Servers {
  const { now } = options;
  const limits: MetadataFetch = { fetch: options.fetch, timeout: options.timeout };
  const issuers = new BoundedMap<string, Server>(MAX_SERVERS);
  const resources = new BoundedMap<string, Server>(MAX_SERVERS);
  const overheard = new BoundedMap<string, { document: ServerDocument; until: number }>(MAX_SERVERS);
  /** For resources that we know nothing of but their DPoP nonce. */
  const originNonces = new BoundedMap<string, string>(MAX_SERVERS);
  /** Challenges that came from addresses before the documents of their resources did: with a first 401, above all. */
  const earlyChallenges = new BoundedMap<string, string>(MAX_SERVERS);
  const underWay = new Map<string, Promise<unknown>>();

  /** Single flight: whoever asks for the same while it is under way gets the same answer. */
  function once<T>(key: string, work: () => Promise<T>): Promise<T> {
    const running = underWay.get(key);
    if (running !== undefined) return running as Promise<T>;
    const started = work().finally(() => underWay.delete(key));
    underWay.set(key, started);
    return started;
  }

  function keep(known: BoundedMap<string, Server>, document: ServerDocument): Server {
    const before = known.get(document.id);
    const early = before === undefined && document.role === 'rs' ? earlyValues(document.id) : undefined;
    const server: Server = {
      challenge: before?.challenge ?? early?.challenge,
      nonce: before?.nonce ?? early?.nonce,
      askAfter: before?.askAfter ?? 0,
      ...document,
      fetchedAt: now(),
    };
    // the object stays the same, since proofs under way hold it
    const kept = before === undefined ? server : Object.assign(before, server);
    known.set(document.id, kept);
    return kept;
  }

  function earlyValues(resource: string): { challenge: string | undefined; nonce: string | undefined } {
    const found = [...earlyChallenges.entries()].findLast(([address]) => covers(resource, new URL(address)));
    return { challenge: found?.[1], nonce: originNonces.get(new URL(resource).origin) };
  }

  /**
   * The server that a URL belongs to: the one with that very endpoint, else the one whose identifier covers it best.
   * Endpoints on another origin than their document's are left out here: one server's document must not claim another's
   * addresses. Requests to them know their server anyway.
   */
  function serverAt(url: URL): Server | undefined {
    const all = [...resources.values(), ...issuers.values()];
    const owner = all.find((server) => ownsEndpoint(server, url));
    return owner ?? bestCover(all, url);
  }

  function take(server: Server, headers: Headers): void {
    const challenge = headers.get(CHALLENGE_HEADER);
    const nonce = headers.get(DPOP_NONCE_HEADER);
    if (isUsableChallenge(challenge)) server.challenge = challenge;
    if (isUsableChallenge(nonce)) server.nonce = nonce;
  }

  return {
    issuer(id) {
      const known = issuers.get(id);
      if (known !== undefined && now() - known.fetchedAt < DOCUMENT_TTL) return Promise.resolve(known);
      const came = overheard.get(id);
      overheard.delete(id);
      if (came !== undefined && now() < came.until) return Promise.resolve(keep(issuers, came.document));
      return once(`issuer ${id}`, async () => {
        try {
          return keep(issuers, await fetchIssuer(id, limits));
        } catch (error) {
          const outage = error instanceof AttestedError && error.code.startsWith('http_');
          if (known === undefined || !outage) {
            issuers.delete(id);
            throw error;
          }
          known.fetchedAt = now() - DOCUMENT_TTL + PAUSE; // a server that is down for a while has not changed its mind
          return known;
        }
      });
    },
    resource(location, asked) {
      return once(`resource ${location}`, async () => keep(resources, await fetchResource(location, asked, limits)));
    },
    learn(document) {
      keep(resources, document);
    },
    overhear(document) {
      overheard.set(document.id, { document, until: now() + OVERHEARD_TTL });
    },
    resourceAt(url) {
      // public documents need no introduction, and an AS may live below a resource's path
      if (url.pathname.startsWith('/.well-known/')) return undefined;
      if ([...issuers.values()].some((issuer) => ownsEndpoint(issuer, url))) return undefined;
      return bestCover(resources.values(), url);
    },
    observe(url, headers, known) {
      const server = known ?? serverAt(url);
      if (server !== undefined) return take(server, headers);
      const [challenge, nonce] = [headers.get(CHALLENGE_HEADER), headers.get(DPOP_NONCE_HEADER)];
      if (isUsableChallenge(challenge)) earlyChallenges.set(bare(url), challenge);
      if (isUsableChallenge(nonce)) originNonces.set(url.origin, nonce);
    },
    nonceAt: (url) => serverAt(url)?.nonce ?? originNonces.get(url.origin),
    async prepare(server, need) {
      const endpoint = server.needs.challengeEndpoint;
      const missing = (need.challenge && server.challenge === undefined) || (need.nonce && server.nonce === undefined);
      if (endpoint === undefined || !missing || now() < server.askAfter || !mayAsk(server, endpoint)) return;
      await once(`challenge ${server.role} ${server.id}`, async () => {
        // unless the answer has all, the endpoint does not have it (CHA-8) or is out of order: the error will bring it
        server.askAfter = now() + PAUSE;
        try {
          const answer = await fetchJson(endpoint, { method: 'POST' }, limits);
          if (answer.status !== 200) return;
          take(server, answer.headers);
          const challenge = answer.json === undefined ? undefined : readChallengeBody(answer.json).challenge;
          if (challenge !== undefined) server.challenge = challenge;
          if (server.challenge !== undefined) server.askAfter = 0;
        } catch {
          // not fatal: a server that insists answers with use_attestation_challenge and a challenge (ERR-1)
        }
      });
    },
  };
}

function ownsEndpoint(server: Server, url: URL): boolean {
  return server.endpoints.has(bare(url)) && new URL(server.id).origin === url.origin;
}

function bestCover(servers: Iterable<Server>, url: URL): Server | undefined {
  let best: Server | undefined;
  for (const server of servers) {
    if (covers(server.id, url) && server.id.length > (best?.id.length ?? 0)) best = server;
  }
  return best;
}

/**
 * The challenge endpoint lies where the server itself or another endpoint of its own document lies. A server elsewhere has
 * none on this machine: its document could have us POST to any local service.
 */
function mayAsk(server: Server, endpoint: string): boolean {
  const own = new URL(server.id);
  let origin: string;
  let hostname: string;
  try {
    ({ origin, hostname } = assertSafeUrl(endpoint));
  } catch {
    return false;
  }
  if (origin === own.origin) return true;
  if (isLoopback(hostname) && !isLoopback(own.hostname)) return false;
  const address = bare(new URL(endpoint));
  return [...server.endpoints].some((other) => other !== address && new URL(other).origin === origin);
}
