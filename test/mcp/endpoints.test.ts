/** Metadata document, challenge endpoint, and the whole behind `protect`. */
import { toNodeHandler } from '@modelcontextprotocol/node';
import { describe, expect, test, vi } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { type McpHandler, protect, resourceEndpoints } from '../../src/mcp/endpoints.ts';
import { createGate, RESOURCE, TOKEN } from '../support/gate.ts';
import { startServer } from '../support/http.ts';
import { createWorld, requestOf, type WorldOptions } from '../support/world.ts';

const ISSUER = 'https://as.example';

function endpointsFor(audience: string, options: { policy?: WorldOptions['policy']; metadata?: JsonObject } = {}) {
  const { policy, metadata } = options;
  const { verifier } = createWorld({ role: 'rs', audience, ...(policy !== undefined && { policy }) });
  return resourceEndpoints({
    verifier,
    authorizationServers: [ISSUER],
    scopesSupported: ['mcp'],
    ...(metadata !== undefined && { metadata }),
  });
}

describe('the metadata document', () => {
  test('RFC 9728 §2, META-2, META-3: says what the resource is and what it asks for, and nothing else', async () => {
    const { serve, metadataUrl } = endpointsFor(RESOURCE, { policy: { algorithms: ['ES256'] } });
    const response = (await serve({ method: 'GET', url: metadataUrl })) as Response;
    expect(response.status).toBe(200);
    expect(Object.fromEntries(response.headers)).toEqual({
      'content-type': 'application/json',
      'cache-control': 'max-age=300',
      'access-control-allow-origin': '*',
    });
    expect(await response.json()).toEqual({
      resource: RESOURCE,
      authorization_servers: [ISSUER],
      bearer_methods_supported: ['header'],
      scopes_supported: ['mcp'],
      client_attestation_signing_alg_values_supported: ['ES256'],
      client_attestation_pop_signing_alg_values_supported: ['ES256'],
      dpop_signing_alg_values_supported: ['ES256'],
      client_attestation_pop_methods_supported: ['attestation_pop_jwt', 'dpop_combined'],
      challenge_endpoint: 'https://mcp.example/mcp/attestation-challenge',
    });
  });

  test('META-2: without challenges there is no endpoint for them', async () => {
    const { serve, metadataUrl, challengeUrl } = endpointsFor(RESOURCE, { policy: { challenge: 'off' } });
    const response = (await serve({ method: 'GET', url: metadataUrl })) as Response;
    expect(await response.json()).not.toHaveProperty('challenge_endpoint');
    expect((await serve({ method: 'POST', url: challengeUrl }))?.status).toBe(404);
  });

  test('further members are added, and change nothing of ours', async () => {
    const metadata = { resource_name: 'Weather', resource: 'https://evil.example', authorization_servers: [] };
    const { serve, metadataUrl } = endpointsFor(RESOURCE, { metadata });
    const response = (await serve({ method: 'GET', url: metadataUrl })) as Response;
    expect(await response.json()).toMatchObject({
      resource_name: 'Weather',
      resource: RESOURCE,
      authorization_servers: [ISSUER],
    });
  });

  test.each([
    ['https://mcp.example', '', '/attestation-challenge'],
    ['https://mcp.example/', '', '/attestation-challenge'],
    ['https://mcp.example/mcp', '/mcp', '/mcp/attestation-challenge'],
    ['https://mcp.example/a/b', '/a/b', '/a/b/attestation-challenge'],
    ['https://mcp.example/mcp/', '/mcp/', '/mcp/attestation-challenge'],
    ['https://mcp.example/mcp?tenant=1', '/mcp?tenant=1', '/mcp/attestation-challenge'],
    ['https://mcp.example:8443/mcp', '/mcp', '/mcp/attestation-challenge'],
  ])('RFC 9728 §3.1: of %s lies at …%s', async (audience, suffix, challenge) => {
    const { metadataUrl, challengeUrl, serve } = endpointsFor(audience);
    const { origin } = new URL(audience);
    expect({ metadataUrl, challengeUrl }).toEqual({
      metadataUrl: `${origin}/.well-known/oauth-protected-resource${suffix}`,
      challengeUrl: `${origin}${challenge}`,
    });
    const response = (await serve({ method: 'GET', url: metadataUrl })) as Response;
    expect(await response.json()).toMatchObject({ resource: audience, challenge_endpoint: challengeUrl });
  });
});

describe('the endpoints', () => {
  test('CHA-1, CHA-6: a challenge, not to be stored, with a nonce beside it', async () => {
    const { serve, challengeUrl } = endpointsFor(RESOURCE);
    const response = (await serve({ method: 'POST', url: challengeUrl })) as Response;
    expect(response.status).toBe(200);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(await response.json()).toEqual({
      attestation_challenge: response.headers.get('oauth-client-attestation-challenge'),
    });
    expect(response.headers.get('dpop-nonce')).toEqual(expect.any(String));
  });

  test.each([
    ['GET', '/mcp/attestation-challenge', 405, 'POST'],
    ['HEAD', '/mcp/attestation-challenge', 405, 'POST'],
    ['OPTIONS', '/mcp/attestation-challenge', 405, 'POST'],
    ['TRACE', '/mcp/attestation-challenge', 405, 'POST'],
    ['post', '/mcp/attestation-challenge', 405, 'POST'],
    ['POST', '/.well-known/oauth-protected-resource/mcp', 405, 'GET, HEAD'],
    ['DELETE', '/.well-known/oauth-protected-resource/mcp', 405, 'GET, HEAD'],
    ['HEAD', '/.well-known/oauth-protected-resource/mcp', 200, null],
  ])('RFC 9110 §15.5.6: %s %s is %i', async (method, url, status, allow) => {
    const response = (await endpointsFor(RESOURCE).serve({ method, url })) as Response;
    expect([response.status, response.headers.get('allow')]).toEqual([status, allow]);
    expect(await response.text()).toBe('');
  });

  test.each([
    '/',
    '/mcp',
    '/.well-known/oauth-protected-resource',
    '/.well-known/oauth-protected-resource/',
    '/.well-known/oauth-protected-resource/mcp/',
    '/.well-known/oauth-protected-resource/mcp2',
    '/.well-known/oauth-protected-resource%2Fmcp',
    '/.WELL-KNOWN/oauth-protected-resource/mcp',
    '//evil.example/.well-known/oauth-protected-resource/mcp',
    '//mcp.example/mcp/attestation-challenge',
    '/\\evil.example/mcp/attestation-challenge',
    '*',
    '',
    'evil.example:443',
    'javascript:/mcp/attestation-challenge',
    '//',
    '///',
    '/%',
    '/%00',
    'http://[',
  ])('the target %j is none of theirs', async (url) => {
    for (const method of ['GET', 'POST']) expect(await endpointsFor(RESOURCE).serve({ method, url })).toBeUndefined();
  });

  test.each(['https://evil.example', 'http://127.0.0.1:8080', 'https://mcp.example'])(
    'RFC 9112 §3.2.2: an absolute target of %s is answered by its path, with our own names',
    async (origin) => {
      const { serve, metadataUrl } = endpointsFor(RESOURCE);
      const response = await serve({ method: 'GET', url: origin + new URL(metadataUrl).pathname });
      expect(await response?.json()).toMatchObject({ resource: RESOURCE });
    },
  );
});

describe('protect', () => {
  function protectedBy(handler: McpHandler, verifierOptions: Partial<WorldOptions> = {}) {
    const gate = createGate({}, verifierOptions);
    const { verifier, clock } = gate.world;
    const fetch = protect(handler, {
      verifier,
      authorizationServers: [ISSUER],
      verifyAccessToken: async () => gate.token,
      onRefusal: (error) => gate.refusals.push(error),
      now: () => clock.now,
    });
    const ask = async (path: string, init: RequestInit & { origin?: string } = {}) => {
      const { headers } = requestOf(await gate.sentPop());
      const origin = init.origin ?? 'http://127.0.0.1:8080';
      return fetch(new Request(origin + path, { method: 'POST', headers, ...init }));
    };
    return { ...gate, fetch, ask };
  }

  test('hands the handler the request and who is calling, and its answer back as it is', async () => {
    const seen: unknown[] = [];
    const { ask, world } = protectedBy({
      fetch: (request, { authInfo }) => {
        seen.push([new URL(request.url).pathname, authInfo.token, authInfo.extra.attestation?.thumbprint]);
        return new Response('event: message\n\n', { status: 202, headers: { 'content-type': 'text/event-stream' } });
      },
    });
    const response = await ask('/mcp?x=1');
    expect(seen).toEqual([['/mcp', TOKEN, world.instance.thumbprint]]);
    expect([response.status, response.headers.get('content-type')]).toEqual([202, 'text/event-stream']);
    expect(await response.text()).toBe('event: message\n\n');
  });

  test('CHA-3: an ageing challenge is renewed with the answer, which keeps its own headers', async () => {
    const challenges = {
      issue: async () => 'fresh',
      check: () => 'ageing' as const,
    };
    const handler = { fetch: () => new Response(null, { status: 204, headers: { 'mcp-session-id': 's' } }) };
    const response = await protectedBy(handler, { challenges }).ask('/mcp');
    expect(response.status).toBe(204);
    expect(Object.fromEntries(response.headers)).toEqual({
      'mcp-session-id': 's',
      'oauth-client-attestation-challenge': 'fresh',
    });
  });

  test('META-2: serves metadata and challenges to anybody', async () => {
    const handler = { fetch: vi.fn() };
    const { fetch } = protectedBy(handler);
    const origin = 'http://127.0.0.1:8080';
    const metadata = await fetch(new Request(`${origin}/.well-known/oauth-protected-resource/mcp`));
    const { challenge_endpoint } = (await metadata.json()) as { challenge_endpoint: string };
    expect(challenge_endpoint).toBe('https://mcp.example/mcp/attestation-challenge');
    const challenge = await fetch(new Request(`${origin}/mcp/attestation-challenge`, { method: 'POST' }));
    expect(challenge.status).toBe(200);
    expect(handler.fetch).not.toHaveBeenCalled();
  });

  test('a refusal never reaches the handler', async () => {
    const handler = { fetch: vi.fn() };
    const { ask, refusals } = protectedBy(handler);
    const response = await ask('/mcp', { headers: { authorization: `Bearer ${TOKEN}` } });
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toContain(
      'resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp"',
    );
    expect(refusals.map(({ rule }) => rule)).toEqual(['VER-1']);
    expect(handler.fetch).not.toHaveBeenCalled();
  });

  test.each(['/', '/mcp/', '/mcp/sub', '/mcp2', '/MCP', '//mcp', '/m%63p', '//evil.example/mcp', '/%', '/mcp%00'])(
    'the path %j is not the MCP endpoint, whoever asks',
    async (path) => {
      const handler = { fetch: vi.fn() };
      const { ask } = protectedBy(handler);
      const response = await ask(path);
      expect(response.status).toBe(404);
      expect(await response.text()).toMatch(/^Nothing is here/);
      expect(handler.fetch).not.toHaveBeenCalled();
    },
  );

  test('a handler that throws: the error goes to the runtime, which tells the client nothing', async () => {
    const fault = new Error('secret of the handler');
    const { ask, fetch, sentPop } = protectedBy({ fetch: () => Promise.reject(fault) });
    await expect(ask('/mcp')).rejects.toBe(fault);
    const errors: Error[] = [];
    const listener = toNodeHandler({ fetch: (request: Request) => fetch(request) } as never, {
      onerror: (error) => void errors.push(error),
    });
    const server = await startServer((request, response) => void listener(request as never, response as never));
    const headers = new Headers(requestOf(await sentPop()).headers);
    const response = await globalThis.fetch(`${server.origin}/mcp`, { method: 'POST', headers });
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain('secret');
    expect(errors).toEqual([fault]);
    await server.close();
  });
});
