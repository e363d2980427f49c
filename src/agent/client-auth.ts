/** Client authentication at an authorization server: what the hooks of the OAuth and MCP libraries call. */
import type { SignatureAlgorithm } from '../core/algorithms.ts';
import { DPOP_HEADER } from '../core/headers.ts';
import { choosePopMethod, type PopMethod } from '../core/metadata.ts';
import { AttestedError } from '../errors.ts';
import type { Artifacts } from './artifacts.ts';
import type { Attestations } from './attestations.ts';
import { BoundedMap } from './bounded.ts';
import { type Identities, SHARED_SCOPE, scopeOf } from './identity.ts';
import { bare } from './metadata.ts';
import { type Presentation, present } from './present.ts';
import type { Proofs } from './proofs.ts';
import type { Server, Servers } from './servers.ts';
import type { TrackingGuard, TrackingMode } from './tracking.ts';

/** The pieces that the hooks and the fetch layer work with. */
export interface AgentParts {
  clientId: string;
  alg: SignatureAlgorithm;
  tracking: TrackingMode;
  /** The method that the client is registered for. */
  method: PopMethod | undefined;
  /** Methods that the draft revision in use has, best first. */
  methods: readonly PopMethod[];
  identities: Identities;
  attestations: Attestations;
  servers: Servers;
  proofs: Proofs;
  guard: TrackingGuard;
  artifacts: Artifacts;
}

export interface ClientAuthenticator {
  /**
   * Authenticates one request to an endpoint of an AS, by setting headers and parameters.
   *
   * @param issuer the audience: from the AS's metadata, never from the request's address (META-6)
   * @param registered the method that this very client is registered for, if the caller knows
   * @param target where the caller says that the request goes: an endpoint or, with some libraries, the server itself
   * @throws AttestedError `metadata_mismatch` when that is not the issuer's: the request may be sent by another fetch than ours
   */
  authenticate(
    headers: Headers,
    params: URLSearchParams,
    issuer: string,
    registered?: PopMethod | undefined,
    target?: string | URL,
  ): Promise<void>;
  /** What was presented last at an endpoint. */
  lastAt(endpoint: string): Presentation | undefined;
}

/** Parameters and fields of other client authentication methods: RFC 6749 §2.3 allows one method per request. */
const OTHER_METHODS = ['client_secret', 'client_assertion', 'client_assertion_type'] as const;

const MAX_ENDPOINTS = 256;

export function openClientAuth(parts: AgentParts): ClientAuthenticator {
  const { clientId, identities, servers, proofs, guard, artifacts } = parts;
  const last = new BoundedMap<string, Presentation>(MAX_ENDPOINTS);

  return {
    async authenticate(headers, params, issuer, registered, target) {
      const server = await servers.issuer(issuer);
      if (target !== undefined && !isAt(server, target)) {
        throw new AttestedError('metadata_mismatch', 'the request goes elsewhere than to the issuer of its metadata', {
          rule: 'META-6',
        });
      }
      const foreignDpop = headers.has(DPOP_HEADER) && proofs.recall(headers.get(DPOP_HEADER)) === undefined;
      const method = chooseAt(server, parts, registered, foreignDpop || params.has('dpop_jkt'));
      if (method === 'dpop_combined' && params.has('dpop_jkt')) {
        throw new AttestedError('invalid_argument', 'a code cannot be bound by dpop_jkt in DPoP combined mode', {
          rule: 'DPOP-5',
        });
      }
      const endpoint = endpointFor(params, server);
      const resources = [...new Set(params.getAll('resource').map(scopeOf))].sort();
      const bound = artifacts.ofRequest(params, issuer);
      const scope = parts.tracking === 'separate' ? resources.join(' ') || scopeOf(issuer) : SHARED_SCOPE;
      const identity =
        (bound === undefined ? undefined : await identities.byLabel(bound.label)) ?? (await identities.current(scope));
      const audiences = resources.length > 0 ? resources : [bound?.audience ?? scopeOf(issuer)];
      for (const audience of audiences) await guard.show(identity, audience);
      guard.noteTokens(identity, scopeOf(issuer), audiences);

      const audience = audiences[0] as string;
      const presentation = { identity, audience, demand: { server, method }, dpop: false, accessToken: undefined };
      await present(headers, presentation, { method: 'POST', url: new URL(endpoint) }, parts);
      if (/^basic /i.test(headers.get('authorization') ?? '')) headers.delete('authorization');
      for (const name of OTHER_METHODS) params.delete(name);
      params.set('client_id', clientId);
      artifacts.noteRequest(params, { label: identity.label, audience, issuer });
      last.set(bare(new URL(endpoint)), presentation);
    },
    lastAt: (endpoint) => last.get(endpoint),
  };
}

function isAt(server: Server, target: string | URL): boolean {
  if (!URL.canParse(String(target))) return false;
  const url = new URL(target);
  return server.endpoints.has(bare(url)) || url.origin === new URL(server.id).origin;
}

function chooseAt(
  server: Server,
  parts: AgentParts,
  registered: PopMethod | undefined,
  separateDpop: boolean,
): PopMethod {
  const fixed = registered ?? parts.method;
  // a proof or thumbprint of the caller's own key binds token or code to that key; combined mode would have to replace it
  const free = separateDpop ? (['attestation_pop_jwt'] as const) : parts.methods;
  return choosePopMethod(server.needs, parts.alg, fixed === undefined ? free : [fixed]);
}

/** Which endpoint a request is for, told by its parameters: the hooks do not reliably say (combined mode needs `htu`). */
const ENDPOINT_BY_PARAMETER: readonly (readonly [parameter: string, endpoint: string])[] = [
  ['grant_type', 'token_endpoint'],
  ['response_type', 'pushed_authorization_request_endpoint'],
  ['redirect_uri', 'pushed_authorization_request_endpoint'],
  ['request', 'pushed_authorization_request_endpoint'],
  ['token', 'revocation_endpoint'],
  ['token', 'introspection_endpoint'],
  ['login_hint', 'backchannel_authentication_endpoint'],
  ['scope', 'device_authorization_endpoint'],
];

function endpointFor(params: URLSearchParams, { metadata }: Server): string {
  const rows = [...ENDPOINT_BY_PARAMETER, ['', 'token_endpoint'] as const];
  for (const [parameter, name] of rows) {
    const url = metadata[name];
    if ((parameter === '' || params.has(parameter)) && typeof url === 'string' && URL.canParse(url)) return url;
  }
  throw new AttestedError('server_unsupported', 'the authorization server names no endpoint for this request', {
    rule: 'META-4',
  });
}
