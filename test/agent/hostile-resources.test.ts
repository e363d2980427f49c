/** Protected resources whose documents, challenges and redirects are not what they should be: in time, and with nothing given away. */
import type { ServerResponse } from 'node:http';
import { describe, expect, test } from 'vitest';
import { drip, flood } from '../support/http.ts';
import { asked, type Handler, json, listen, newAgent, shown, startFakeRs } from './support.ts';

const ours = ['oauth-client-attestation', 'oauth-client-attestation-pop', 'dpop'];
const withToken = { headers: { authorization: 'Bearer secret-token' } };
const jsonHead = (response: ServerResponse) => response.writeHead(200, { 'content-type': 'application/json' });

describe('the document that a 401 points to', () => {
  test.each<[string, Handler]>([
    ['fails', (_request, response) => response.writeHead(500).end()],
    ['redirects', (_request, response) => response.writeHead(302, { location: '/elsewhere' }).end()],
    ['never answers', () => undefined],
    ['drips', (_request, response) => drip(jsonHead(response))],
    ['has 100 MB', (_request, response) => flood(jsonHead(response), 1e8, { bytes: 0 })],
    ['is a page', (_request, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>')],
    ['is broken JSON', (_request, response) => jsonHead(response).end('{"resource":')],
    ['is a list', (_request, response) => json(response, [])],
    ['names no resource', (_request, response) => json(response, { resource: 7 })],
    ['has a resource without TLS', (_request, response) => json(response, { resource: 'http://rs.example/mcp' })],
    [
      'has methods of a wrong shape',
      (_request, response) => json(response, { client_attestation_pop_methods_supported: 'all' }),
    ],
  ])('META-6: %s: the 401 comes back in time, and nothing was attested', async (_name, document) => {
    const rs = await listen((origin) => (request, response) => {
      if (request.path === '/document') return document(request, response);
      const pointer = `Bearer resource_metadata="${origin}/document"`;
      return json(response, { error: 'no' }, 401, { 'www-authenticate': pointer });
    });
    const { agent } = await newAgent({ timeout: 300 });
    const start = performance.now();
    const response = await agent.fetch(`${rs.origin}/mcp`, withToken);
    expect([response.status, await response.json()]).toEqual([401, { error: 'no' }]);
    expect(performance.now() - start).toBeLessThan(3000);
    expect(rs.seen.flatMap(({ headers }) => ours.filter((name) => headers[name] !== undefined))).toEqual([]);
    expect(asked(rs, '/document').every(({ headers }) => headers.authorization === undefined)).toBe(true);
    expect(asked(rs, '/elsewhere')).toEqual([]);
  });
});

describe('challenges of a resource', () => {
  test.each<[string, Handler]>([
    ['redirects', (_request, response) => response.writeHead(307, { location: '/elsewhere' }).end()],
    ['never answers', () => undefined],
    ['drips', (_request, response) => drip(jsonHead(response))],
    ['has 100 MB', (_request, response) => flood(jsonHead(response), 1e8, { bytes: 0 })],
    ['is a page', (_request, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>')],
    ['is no text', (_request, response) => json(response, { attestation_challenge: { a: 1 } })],
  ])('CHA-6: an endpoint that %s: the request goes out without one, in time', async (_name, endpoint) => {
    const rs = await startFakeRs(
      () => (request, response) => (request.path === '/challenge' ? endpoint(request, response) : json(response, {})),
      (origin) => ({ challenge_endpoint: `${origin}/challenge` }),
    );
    const { agent } = await newAgent({ timeout: 300 });
    await agent.fetch(rs.metadataUrl);
    const start = performance.now();
    expect((await agent.fetch(rs.resource, withToken)).status).toBe(200);
    expect(performance.now() - start).toBeLessThan(3000);
    expect(shown(asked(rs, '/mcp')[0]!).pop).toMatchObject({ aud: rs.resource });
    expect(shown(asked(rs, '/mcp')[0]!).pop).not.toHaveProperty('challenge');
    expect(asked(rs, '/elsewhere')).toEqual([]);
  });

  test('ERR-4: one that always wants another gets two requests for each call, however often it is called', async () => {
    let count = 0;
    const rs = await startFakeRs(() => (_request, response) => {
      const headers = { 'OAuth-Client-Attestation-Challenge': `c${++count}` };
      json(response, { error: 'use_attestation_challenge' }, 401, headers);
    });
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    for (let i = 0; i < 3; i++) expect((await agent.fetch(rs.resource, withToken)).status).toBe(401);
    expect(asked(rs, '/mcp')).toHaveLength(6);
    expect(new Set(asked(rs, '/mcp').map((request) => shown(request).pop?.jti)).size).toBe(6);
  });
});

describe('redirects of a resource', () => {
  test.each([
    ['its token, where the resource is attested', true],
    ['its token, where the resource is not', false],
  ])('PRIV-1: another origin does not get %s', async (_name, attested) => {
    const other = await listen(() => (_request, response) => json(response, {}));
    const rs = await startFakeRs(
      () => (_request, response) => response.writeHead(307, { location: `${other.origin}/mcp` }).end(),
      attested ? () => ({}) : () => ({ client_attestation_pop_methods_supported: undefined }),
    );
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    await agent.fetch(rs.resource, { method: 'POST', body: 'x', ...withToken });
    expect(other.seen.flatMap(({ headers }) => [...ours, 'authorization'].filter((name) => headers[name]))).toEqual([]);
    expect(other.seen).toHaveLength(attested ? 0 : 1);
  });
});
