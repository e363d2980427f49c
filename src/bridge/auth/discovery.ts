/** From a refused request to the authorization server: RFC 9728, then RFC 8414 or OpenID Connect Discovery. */
import type { Agent } from '../../agent/agent.ts';
import { fetchIssuer, fetchResource, RESOURCE_WELL_KNOWN, type ServerDocument } from '../../agent/metadata.ts';
import type { JsonObject } from '../../core/json.ts';
import { parseChallenges } from '../../core/oauth-errors.ts';
import { AttestedError } from '../../errors.ts';
import { isLoopback } from '../../platform/http.ts';

export interface Discovered {
  /** Resource identifier, as its document writes it (RFC 8707). */
  resource: string;
  issuer: string;
  /** The authorization server's document. */
  metadata: JsonObject;
  scopesSupported: readonly string[];
}

/** What a refusal says (RFC 6750 §3, RFC 9728 §5.1). */
export interface Challenge {
  error: string | undefined;
  scope: string | undefined;
  resourceMetadata: string | undefined;
}

/** Milliseconds for each document. */
const TIMEOUT = 10_000;

export function challengeOf(response: Response): Challenge {
  const all = parseChallenges(response.headers.get('www-authenticate') ?? '');
  const param = (name: string) => all.map(({ params }) => params[name]).find((value) => value !== undefined);
  return { error: param('error'), scope: param('scope'), resourceMetadata: param('resource_metadata') };
}

/**
 * @param issuer the only authorization server that will do, where the operator names one
 * @throws AttestedError `metadata_mismatch` for documents that speak for others, `server_unsupported` when there are none,
 *   `http_*` when they cannot be had
 */
export async function discover(agent: Agent, server: URL, challenge: Challenge, issuer?: string): Promise<Discovered> {
  const limits = { fetch: agent.fetch, timeout: TIMEOUT };
  const { id: resource, metadata: document } = await findResource(server, challenge, limits);
  const named = Array.isArray(document.authorization_servers) ? document.authorization_servers : [];
  const servers = named.filter((name) => typeof name === 'string');
  const chosen = issuer ?? servers[0];
  if (chosen === undefined) {
    throw new AttestedError('server_unsupported', 'the resource names no authorization server', {
      rule: 'RFC 9728 §2',
    });
  }
  if (!servers.includes(chosen)) {
    throw new AttestedError(
      'metadata_mismatch',
      'the resource does not name the authorization server that was asked for',
      {
        rule: 'META-6',
      },
    );
  }
  // a server elsewhere has none on this machine: it could have us send requests to any local service
  if (URL.canParse(chosen) && isLoopback(new URL(chosen).hostname) && !isLoopback(server.hostname)) {
    throw new AttestedError('metadata_mismatch', 'the resource names an authorization server on this machine', {
      rule: 'META-6',
    });
  }
  const { metadata } = await fetchIssuer(chosen, limits);
  return { resource, issuer: chosen, metadata, scopesSupported: textsOf(document.scopes_supported) };
}

async function findResource(
  server: URL,
  { resourceMetadata }: Challenge,
  limits: { fetch: Agent['fetch']; timeout: number },
): Promise<ServerDocument> {
  if (resourceMetadata !== undefined) return fetchResource(resourceMetadata, server, limits);
  // a server that does not say where has it at the well-known places, if at all (RFC 9728 §3.1)
  const path = server.pathname === '/' ? '' : server.pathname.replace(/\/$/, '');
  let failure: unknown;
  for (const place of new Set([`${RESOURCE_WELL_KNOWN}${path}`, RESOURCE_WELL_KNOWN])) {
    try {
      return await fetchResource(server.origin + place, server, limits);
    } catch (error) {
      if (error instanceof AttestedError && error.code.startsWith('http_')) throw error;
      failure = error;
    }
  }
  throw new AttestedError('server_unsupported', 'the server refuses, and has no metadata that says who gives tokens', {
    rule: 'RFC 9728 §3',
    cause: failure,
  });
}

export function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}
