/** Pushed authorization requests (RFC 9126) for MCP clients: the SDKs send the person straight to the authorization page. */
import type { Agent } from '../agent/agent.ts';
import { bare, fetchIssuer } from '../agent/metadata.ts';
import { AttestedError } from '../errors.ts';
import { fetchJson } from '../platform/http.ts';

/** Milliseconds for each exchange. */
const TIMEOUT = 5000;

/**
 * Pushes the authorization request that an SDK has made, so that the code that comes of it is bound to this client instance
 * (BIND-2): a code caught on its way back, by another program on a loopback port for one, is then worth nothing. Call it in
 * the provider's `redirectToAuthorization(url)` and send the person to the URL that it gives.
 *
 * @param issuer the authorization server's issuer identifier
 * @param url as the SDK made it; it must be for that server's authorization page
 * @throws AttestedError `server_unsupported` when the server has no endpoint for it, `metadata_mismatch` when the URL is another
 *   server's (META-6), `http_failed` when the server refuses the request or sends something else back; and what metadata and
 *   client authentication throw
 */
export async function pushAuthorizationRequest(agent: Agent, issuer: string, url: URL): Promise<URL> {
  const { metadata } = await fetchIssuer(issuer, { fetch: agent.fetch, timeout: TIMEOUT });
  const { authorization_endpoint: page, pushed_authorization_request_endpoint: endpoint } = metadata;
  if (typeof page !== 'string' || !URL.canParse(page) || bare(new URL(page)) !== bare(url)) {
    throw new AttestedError('metadata_mismatch', "the URL is not that of the authorization server's page", {
      rule: 'META-6',
    });
  }
  if (typeof endpoint !== 'string') {
    throw new AttestedError('server_unsupported', 'the authorization server takes no pushed authorization requests', {
      rule: 'RFC 9126 §5',
    });
  }
  const headers = new Headers({ 'Content-Type': 'application/x-www-form-urlencoded' });
  const body = new URLSearchParams(url.searchParams);
  await agent.clientAuth({ issuer }, {}, body, headers);
  const { status, json } = await fetchJson(
    endpoint,
    { method: 'POST', headers, body },
    { fetch: agent.fetch, timeout: TIMEOUT },
  );
  const reference = json?.request_uri;
  if (status !== 201 || typeof reference !== 'string') {
    throw new AttestedError(
      'http_failed',
      `the authorization server refused the pushed request with status ${status}`,
      {
        rule: 'RFC 9126 §2.3',
      },
    );
  }
  const pushed = new URL(url);
  pushed.search = new URLSearchParams({ client_id: agent.clientId, request_uri: reference }).toString();
  return pushed;
}
