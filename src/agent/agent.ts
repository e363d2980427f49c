/** The client instance, put together. */
import { type SignatureAlgorithm, signatureAlgorithms } from '../core/algorithms.ts';
import type { JsonObject } from '../core/json.ts';
import { authMethodOf, clientMetadata, POP_METHODS, type PopMethod } from '../core/metadata.ts';
import { type RevisionNumber, revisionOf } from '../core/revisions.ts';
import type { KeyStorage } from '../core/storage.ts';
import { AttestedError } from '../errors.ts';
import type { KeyProvider } from '../keys/provider.ts';
import type { FetchLike } from '../platform/http.ts';
import { type ForeignTokens, openArtifacts } from './artifacts.ts';
import { keepAttestations } from './attestations.ts';
import { type AttesterLocation, openAttester } from './attester-client.ts';
import { DEFAULT_HEADER_BUDGET, openHeaderBudget } from './budget.ts';
import { type AgentParts, openClientAuth } from './client-auth.ts';
import { type Correlations, correlationsOf } from './correlations.ts';
import { type AgentEvent, openEvents } from './events.ts';
import { chooseEvidence, type ProveEvidence } from './evidence.ts';
import { openMiddleware } from './fetch.ts';
import { labelPrefix, openIdentities, SHARED_SCOPE, scopeOf } from './identity.ts';
import { openLabelKey } from './label-key.ts';
import type { Listeners } from './listeners.ts';
import { bare } from './metadata.ts';
import { openPresenter, type Presenter } from './presenter.ts';
import { openProofs } from './proofs.ts';
import { openServers } from './servers.ts';
import { openState } from './state.ts';
import { openTrackingGuard, type TrackingMode } from './tracking.ts';
import { type AgentWarning, openWarnings, type WarningListener } from './warnings.ts';

export interface AgentOptions {
  /** The client_id that the attester will name in the attestations (ATT-2). */
  clientId: string;
  /** Where the keys live, from `attested/keys`. */
  keys: KeyProvider;
  attester: AttesterLocation;
  /** One-time token for the first contact with the attester. */
  enrolmentToken?: string | undefined;
  /**
   * How keys and machine are proved to the attester. `tpm` tells it which TPM this is, by its endorsement key; `software` is
   * possession of both keys. Default: `tpm` where the keys are in one and the attester can check it, else `software`.
   */
  evidence?: 'tpm' | 'software' | ProveEvidence | undefined;
  /** The method that the client is registered for at its authorization servers. Default: the best that each offers. */
  method?: PopMethod | undefined;
  /** Default `separate`: a key and an attestation per server (PRIV-1). */
  tracking?: TrackingMode | undefined;
  /** Bytes of attestation headers past which a warning is due (IMPL-3). Default 6144. */
  headerBudget?: number | undefined;
  /** Where the state is kept between runs. Default: where the keys are, else memory. */
  stateDirectory?: string | undefined;
  /** For all traffic of the agent, the attester's excepted. Default `globalThis.fetch`. */
  fetch?: FetchLike | undefined;
  /** Algorithm of instance keys. Default ES256, which every server must expect. */
  alg?: SignatureAlgorithm | undefined;
  /** Draft revision of the proofs. Default: the newest. */
  revision?: RevisionNumber | undefined;
  /** Milliseconds for each of the agent's own exchanges (metadata, challenges, attester). Default 5000. */
  timeout?: number | undefined;
  onWarning?: WarningListener | undefined;
  /** Milliseconds since the epoch. Default `Date.now`. */
  now?: (() => number) | undefined;
}

export interface IdentityInfo {
  /** The server that the identity is for; `*` where one identity is shared by all. */
  server: string;
  /** RFC 7638 thumbprint of the instance key. */
  thumbprint: string;
  storage: KeyStorage;
  /** Seconds since the epoch; absent while there is no attestation. */
  expiresAt: number | undefined;
  generation: number;
  /** False for an older generation that is kept for the tokens bound to it. */
  current: boolean;
}

/** What MCP SDK v2's `dpop()` hook returns, by shape. */
export interface DpopSession {
  buildProof(request: {
    htm: string;
    htu: string | URL;
    accessToken?: string | undefined;
    nonce?: string | undefined;
  }): Promise<string>;
  observeNonce(response: Response, url: string | URL): void;
}

/** A fetch whose `body` and `signal` may be all that openid-client's and oauth4webapi's types name. */
export type AgentFetch = (
  input: string | URL | Request,
  init?: Omit<RequestInit, 'body' | 'signal'> & {
    body?: RequestInit['body'] | Uint8Array | undefined;
    signal?: AbortSignal | null | undefined;
  },
) => Promise<Response>;

/** What {@link Agent.on} can be asked for. */
export interface AgentNews {
  warning: AgentWarning;
  event: AgentEvent;
}

export interface Agent {
  readonly clientId: string;
  /** `token_endpoint_auth_method` and the client metadata of this draft, for a registration (META-5). */
  readonly clientMetadata: Readonly<JsonObject>;
  /** Authenticates, proves and retries; a drop-in for `fetch`, and the custom fetch of openid-client and oauth4webapi. */
  readonly fetch: AgentFetch;
  /** The same around another fetch. */
  readonly middleware: (next: FetchLike) => FetchLike;
  /** The hook of MCP SDK v1, v2 and @ai-sdk/mcp. May be called unbound. */
  readonly addClientAuthentication: (
    headers: Headers,
    params: URLSearchParams,
    url: string | URL,
    metadata?: { issuer?: unknown } | undefined,
  ) => Promise<void>;
  /** `ClientAuth` of oauth4webapi and openid-client. May be called unbound. */
  readonly clientAuth: (
    as: { readonly issuer: string },
    client: object,
    body: URLSearchParams,
    headers: Headers,
  ) => Promise<void>;
  /** DPoP proofs with the key that a token is bound to. */
  readonly dpopSession: () => DpopSession;
  /** Attestation and proof as one text, for a server behind stdio or another channel without HTTP headers. */
  readonly presenter: (server: string) => Presenter;
  /** Takes note of tokens that were not obtained through this agent's fetch. */
  readonly observeTokens: (tokens: ForeignTokens) => void;
  /**
   * Gives a server's identity, or all, a new key and attestation. Tokens bound to the old key keep working with it, unless
   * `keepOld` is false: then the old key is destroyed (IMPL-2). Nothing changes where no new attestation can be had.
   */
  readonly rotate: (server?: string, options?: { keepOld?: boolean }) => Promise<void>;
  readonly identities: () => IdentityInfo[];
  /** Which servers could tell that they serve the same agent, and by what; what `attested privacy` prints. */
  readonly correlations: () => Correlations;
  /**
   * Hears what the operator should know (`warning`), or what happens in ordinary life (`event`).
   *
   * @returns a function that takes the listener away again
   */
  readonly on: <K extends keyof AgentNews>(kind: K, listener: (news: AgentNews[K]) => void) => () => void;
  /** The same as `on('warning', listener)`. */
  readonly onWarning: (listener: WarningListener) => () => void;
  /** Waits for what is under way and writes the state. The keys are their opener's to close. */
  readonly close: () => Promise<void>;
}

const DEFAULT_TIMEOUT = 5000;

/**
 * Opens a client instance. Makes its enrolment key, and asks nothing of the network: a device that is offline starts.
 *
 * @throws AttestedError `invalid_argument`, or `key_store_*` when the keys cannot be used
 */
export async function createAgent(options: AgentOptions): Promise<Agent> {
  const { clientId, keys, fetch, alg = 'ES256', tracking = 'separate', now = Date.now } = options;
  if (typeof clientId !== 'string' || clientId === '') {
    throw new AttestedError('invalid_argument', 'clientId must be the client_id', { rule: 'ATT-2' });
  }
  if (typeof keys?.createKey !== 'function') {
    throw new AttestedError('invalid_argument', 'keys must be what `await openKeys(…)` gives');
  }
  if (!['separate', 'warn', 'refuse'].includes(tracking)) {
    throw new AttestedError('invalid_argument', 'tracking must be separate, warn or refuse', { rule: 'PRIV-2' });
  }
  if (options.method !== undefined && !POP_METHODS.includes(options.method)) {
    throw new AttestedError('invalid_argument', 'method must be attestation_pop_jwt or dpop_combined');
  }
  const { revision, timeout = DEFAULT_TIMEOUT } = options;
  const methods = POP_METHODS.filter(
    (method) => method !== 'dpop_combined' || revisionOf(revision).combined !== 'absent',
  );
  const warnings = openWarnings(options.onWarning);
  const events = openEvents();
  const news: { [K in keyof AgentNews]: Pick<Listeners<AgentNews[K]>, 'on'> } = { warning: warnings, event: events };
  const prove = chooseEvidence(options.evidence, keys);
  const enrolmentLabel = `${labelPrefix(clientId)}:enrolment`;
  const enrolment = await keys.createKey({ label: enrolmentLabel });
  const store = await openState(options.stateDirectory ?? keys.directory, clientId, keys.secrets, warnings);
  const labelKey = await openLabelKey(keys, clientId, enrolment.thumbprint);
  const client = openAttester({
    attester: options.attester,
    clientId,
    enrolment: { label: enrolmentLabel, signer: enrolment },
    storage: keys.assurance,
    prove,
    revision,
    now,
    timeout,
  });
  const { enrolmentToken } = options;
  const parts: AgentParts = {
    clientId,
    alg,
    tracking,
    method: options.method,
    methods,
    identities: openIdentities({ keys, store, clientId, labelKey, alg, events, warnings }),
    attestations: keepAttestations({ client, store, enrolmentToken, now, warnings, events }),
    servers: openServers({ fetch, now, timeout }),
    proofs: openProofs({ clientId, revision, now }),
    guard: openTrackingGuard({ clientId, mode: tracking, store, warnings }),
    artifacts: openArtifacts(store),
  };
  const { identities, attestations, servers, proofs, artifacts } = parts;
  const authenticator = openClientAuth(parts);
  const budget = openHeaderBudget(options.headerBudget ?? DEFAULT_HEADER_BUDGET, warnings);
  const attested = openMiddleware({ parts, budget, warnings, events, now });
  let fetchKnown = false;
  const middleware: Agent['middleware'] = (next) => {
    const fetchThrough = attested(next);
    return (input, init) => {
      fetchKnown = true;
      return fetchThrough(input, init);
    };
  };

  /** An MCP client reads metadata before it authenticates: if that did not come through our fetch, nothing will. */
  function warnOfUnusedFetch(): void {
    if (fetchKnown) return;
    fetchKnown = true; // once is enough
    warnings.emit({
      code: 'fetch_unused',
      message:
        'no request has come through agent.fetch: give the transport `fetch: agent.fetch` as well, or challenges are not ' +
        'answered and tokens that are bound to a key are refused',
    });
  }

  const session: DpopSession = {
    async buildProof({ htm, htu, accessToken, nonce }) {
      const url = new URL(htu);
      const bound = accessToken === undefined ? undefined : artifacts.of(accessToken);
      // without a token it is the proof for a token request, which the hook has just authenticated
      const last = bound === undefined ? authenticator.lastAt(bare(url)) : undefined;
      const identity =
        (bound === undefined ? last?.identity : await identities.byLabel(bound.label)) ??
        (await identities.current(tracking === 'separate' ? scopeOf(url.origin) : SHARED_SCOPE));
      const audience = bound?.audience ?? last?.audience ?? scopeOf(url.origin);
      await parts.guard.show(identity, audience);
      const server = last?.demand?.method === 'dpop_combined' ? last.demand.server : undefined;
      const latest = nonce ?? server?.nonce ?? servers.nonceAt(url);
      const target = { method: htm.toUpperCase(), url: url.href, nonce: latest, accessToken };
      return proofs.dpop(identity, target, server, audience);
    },
    observeNonce: (response, url) => servers.observe(new URL(url), response.headers),
  };

  async function rotateScope(scope: string, keepOld: boolean): Promise<void> {
    const identity = await identities.next(scope);
    await attestations.usable(identity);
    identities.adopt(identity);
    if (!keepOld) await identities.deleteOlder(identity);
    const { generation, signer } = identity;
    events.emit({ type: 'rotation', server: scope, thumbprint: signer.thumbprint, generation });
  }

  return {
    clientId,
    clientMetadata: Object.freeze(
      clientMetadata({
        popMethods: options.method === undefined ? methods : [options.method],
        attestationAlgorithms: signatureAlgorithms,
        popAlgorithms: [alg],
      }),
    ),
    fetch: middleware((input, init) => (fetch ?? globalThis.fetch)(input, init)) as AgentFetch,
    middleware,
    addClientAuthentication: async (headers, params, url, metadata) => {
      const issuer = metadata?.issuer;
      if (typeof issuer !== 'string') {
        throw new AttestedError(
          'server_unsupported',
          'the authorization server has no metadata that names its issuer',
          {
            rule: 'META-6',
          },
        );
      }
      warnOfUnusedFetch();
      await authenticator.authenticate(headers, params, issuer, undefined, url);
    },
    clientAuth: async (as, client, body, headers) => {
      const registered = (client as { token_endpoint_auth_method?: unknown }).token_endpoint_auth_method;
      const method = POP_METHODS.find((candidate) => authMethodOf[candidate] === registered);
      await authenticator.authenticate(headers, body, as.issuer, method);
    },
    dpopSession: () => session,
    presenter: (server) => openPresenter(server, { parts, revision, now }),
    observeTokens: (tokens) => artifacts.adopt(tokens),
    rotate: async (server, { keepOld = true } = {}) => {
      const all = new Set([...store.identities.values()].map(({ scope }) => scope));
      const scopes = server === undefined ? all : [tracking === 'separate' ? scopeOf(server) : SHARED_SCOPE];
      for (const scope of scopes) await rotateScope(scope, keepOld);
      await store.save();
    },
    identities: () =>
      [...store.identities.values()].map(({ scope, thumbprint, generation, receivedAt, lifetime }) => ({
        server: scope,
        thumbprint,
        storage: keys.assurance,
        expiresAt: receivedAt === undefined || lifetime === undefined ? undefined : receivedAt + lifetime,
        generation,
        current: store.current.get(scope) === generation,
      })),
    correlations: () => correlationsOf(store),
    on: (kind, listener) => {
      if (!Object.hasOwn(news, kind))
        throw new AttestedError('invalid_argument', 'there are events named warning and event');
      if (typeof listener !== 'function') throw new AttestedError('invalid_argument', 'a listener is a function');
      return news[kind].on(listener);
    },
    onWarning: (listener) => warnings.on(listener),
    close: async () => {
      await attestations.settle();
      await store.save();
    },
  };
}
