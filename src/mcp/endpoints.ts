/** A whole protected MCP server behind one fetch-style function: gate, metadata document, challenge endpoint, handler. */
import type { JsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import type { Verifier } from '../verifier/verifier.ts';
import type { AuthInfo, RequireAttestedAgentOptions } from './gate.ts';
import { urlUnder } from './request-target.ts';
import { nextHeaders, requireAttestedAgent } from './server.ts';

export interface ResourceEndpointOptions {
  verifier: Verifier;
  /** Issuer identifiers of the authorization servers that issue tokens for this server. */
  authorizationServers: readonly string[];
  scopesSupported?: readonly string[];
  /** Further members of the metadata document. What this package says there stays as it is. */
  metadata?: JsonObject;
}

export interface ResourceEndpoints {
  /** RFC 9728 §3.1: the well-known path goes between host and path of the resource. */
  metadataUrl: string;
  challengeUrl: string;
  /** Answers requests for either endpoint; undefined for everything else. `url` may be a path or absolute. */
  serve(request: { method: string; url: string }): Promise<Response | undefined>;
}

/**
 * Metadata document (RFC 9728 with META-2, META-3) and challenge endpoint (CHA-1) of a resource server.
 *
 * @throws AttestedError `invalid_argument` without an authorization server
 */
export function resourceEndpoints(options: ResourceEndpointOptions): ResourceEndpoints {
  const { verifier, authorizationServers, scopesSupported } = options;
  if (!Array.isArray(authorizationServers) || authorizationServers.length === 0) {
    throw new AttestedError(
      'invalid_argument',
      'authorizationServers must list an issuer, or no client finds its way in',
    );
  }
  const { origin, pathname, search } = new URL(verifier.audience);
  const path = pathname === '/' ? '' : pathname;
  const metadataPath = `/.well-known/oauth-protected-resource${path}`;
  const challengePath = `${path.replace(/\/$/, '')}/attestation-challenge`;
  const [metadataUrl, challengeUrl] = [origin + metadataPath + search, origin + challengePath];
  const document = JSON.stringify({
    ...options.metadata,
    resource: verifier.audience,
    authorization_servers: authorizationServers,
    bearer_methods_supported: ['header'],
    ...(scopesSupported !== undefined && { scopes_supported: scopesSupported }),
    ...verifier.metadata({ challengeEndpoint: challengeUrl }),
  });
  return {
    metadataUrl,
    challengeUrl,
    async serve({ method, url }) {
      const asked = urlUnder(origin, url)?.pathname;
      // any other method is as wrong as GET, and some (TRACE) cannot be put into a Request
      const verb = method === 'POST' ? 'POST' : 'GET';
      if (asked === challengePath) return verifier.challengeHandler(new Request(challengeUrl, { method: verb }));
      if (asked !== metadataPath) return undefined;
      if (method !== 'GET' && method !== 'HEAD') {
        return new Response(null, { status: 405, headers: { Allow: 'GET, HEAD' } });
      }
      return new Response(method === 'HEAD' ? null : document, {
        headers: {
          'Content-Type': 'application/json',
          'Cache-Control': 'max-age=300',
          'Access-Control-Allow-Origin': '*',
        },
      });
    },
  };
}

/** The part of the MCP SDK v2's handler that is used: `createMcpHandler(...)` gives one. */
export interface McpHandler {
  fetch(request: Request, options: { authInfo: AuthInfo }): Response | Promise<Response>;
}

export interface ProtectOptions
  extends ResourceEndpointOptions,
    Omit<RequireAttestedAgentOptions, 'verifier' | 'resourceMetadataUrl'> {}

/**
 * Puts an MCP handler (SDK v2 `createMcpHandler`) behind the gate of {@link requireAttestedAgent} and serves metadata and
 * challenges beside it. The result is a fetch handler for any web-standard runtime.
 */
export function protect(handler: McpHandler, options: ProtectOptions): (request: Request) => Promise<Response> {
  const guard = guardEach(options);
  return (request) => guard(request, (authInfo) => handler.fetch(request, { authInfo }));
}

/** The same for runtimes that hand over more with a request than the request: what is behind the gate is named each time. */
export function guardEach(
  options: ProtectOptions,
): (request: Request, behind: (authInfo: AuthInfo) => Response | Promise<Response>) => Promise<Response> {
  const endpoints = resourceEndpoints(options);
  const gate = requireAttestedAgent({ ...options, resourceMetadataUrl: endpoints.metadataUrl });
  const { origin, pathname: mcpPath } = new URL(options.verifier.audience);
  return async (request, behind) => {
    const answer = await endpoints.serve(request);
    if (answer !== undefined) return answer;
    if (urlUnder(origin, request.url)?.pathname !== mcpPath) return nothingHere();
    const auth = await gate(request);
    if (auth instanceof Response) return auth;
    return withHeaders(await behind(auth), nextHeaders(auth));
  };
}

/** For the operator who mounted the server elsewhere than its resource identifier says. */
function nothingHere(): Response {
  const text =
    'Nothing is here: the MCP endpoint is at the path of its resource identifier (the audience of its verifier).\n';
  return new Response(text, { status: 404, headers: { 'Content-Type': 'text/plain' } });
}

function withHeaders(response: Response, headers: Record<string, string>): Response {
  if (Object.keys(headers).length === 0) return response;
  const merged = new Headers(response.headers);
  for (const [name, value] of Object.entries(headers)) merged.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers: merged });
}
