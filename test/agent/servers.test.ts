/** What servers say about themselves, and what the agent believes of it. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { expectRefusal } from '../support/errors.ts';
import { drip, flood, startServer } from '../support/http.ts';
import { asked, json, listen, newAgent, shown, startFakeAs, startFakeRs, tokenRequest } from './support.ts';

const token = { access_token: 'a', token_type: 'Bearer' };
const CHALLENGE = 'OAuth-Client-Attestation-Challenge';

describe('challenges', () => {
  const withEndpoint = (origin: string) => ({ challenge_endpoint: `${origin}/challenge` });

  test('CHA-2, CHA-4: the challenge endpoint is asked first, by POST, and its value used as it is', async () => {
    const odd = ' ~"\\ü€ not a token';
    const as = await startFakeAs((request, response) => {
      if (request.path === '/challenge') return json(response, { attestation_challenge: odd });
      return json(response, token);
    }, withEndpoint);
    const { agent } = await newAgent();
    await tokenRequest(agent, as.issuer);
    expect(asked(as, '/challenge').map(({ method }) => method)).toEqual(['POST']);
    expect(shown(asked(as, '/token')[0]!).pop).toMatchObject({ challenge: odd, aud: as.issuer });
  });

  test('CHA-3: any answer of the server brings the next challenge, also one to a request that is not ours', async () => {
    let count = 0;
    const as = await startFakeAs((_request, response) => json(response, token, 200, { [CHALLENGE]: `c${++count}` }));
    const { agent } = await newAgent();
    await tokenRequest(agent, as.issuer);
    await tokenRequest(agent, as.issuer);
    await agent.fetch(`${as.issuer}/anything`);
    await tokenRequest(agent, as.issuer);
    const challenges = asked(as, '/token').map((request) => shown(request).pop?.challenge);
    expect(challenges).toEqual([undefined, 'c1', 'c3']);
  });

  test('CHA-3: so does the answer of an endpoint that lies on another origin than the issuer', async () => {
    const endpoint = await listen(() => (_request, response) => json(response, token, 200, { [CHALLENGE]: 'c' }));
    const as = await startFakeAs(
      (_request, response) => json(response, {}, 404),
      () => ({ token_endpoint: `${endpoint.origin}/token` }),
    );
    const { agent } = await newAgent();
    for (let i = 0; i < 2; i++) await tokenRequest(agent, as.issuer, {}, { url: `${endpoint.origin}/token` });
    expect(endpoint.seen.map((request) => shown(request).pop?.challenge)).toEqual([undefined, 'c']);
  });

  test('CHA-7: a challenge serves until the server says otherwise', async () => {
    const as = await startFakeAs((request, response) => {
      if (request.path === '/challenge') return json(response, { attestation_challenge: 'lasting' });
      return json(response, token);
    }, withEndpoint);
    const { agent } = await newAgent();
    for (let i = 0; i < 3; i++) await tokenRequest(agent, as.issuer);
    expect(asked(as, '/token').map((request) => shown(request).pop?.challenge)).toEqual([
      'lasting',
      'lasting',
      'lasting',
    ]);
    expect(asked(as, '/challenge')).toHaveLength(1);
  });

  test('CHA-8, CHA-6: an answer without a challenge is fine, and its DPoP nonce is used', async () => {
    const as = await startFakeAs(
      (request, response) =>
        request.path === '/challenge' ? json(response, {}, 200, { 'DPoP-Nonce': 'n1' }) : json(response, token),
      (origin) => ({
        ...withEndpoint(origin),
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth_dpop'],
      }),
    );
    const { agent } = await newAgent();
    await tokenRequest(agent, as.issuer);
    await tokenRequest(agent, as.issuer);
    const proofs = asked(as, '/token').map((request) => shown(request).dpop);
    expect(proofs).toMatchObject([{ nonce: 'n1', htm: 'POST', htu: `${as.issuer}/token` }, { nonce: 'n1' }]);
    expect(asked(as, '/challenge')).toHaveLength(1);
  });

  test('CHA-8: a PoP server whose endpoint gives no challenge is not asked before every request', async () => {
    const as = await startFakeAs(
      (request, response) => json(response, request.path === '/challenge' ? {} : token),
      withEndpoint,
    );
    const { agent } = await newAgent();
    for (let i = 0; i < 3; i++) expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
    expect(asked(as, '/challenge')).toHaveLength(1);
  });

  test.each<[string, string]>([
    ['on another origin', 'https://elsewhere.example/challenge'],
    ['without TLS', 'http://elsewhere.example/challenge'],
    ['that is no URL', 'challenge'],
  ])('META-6: a challenge endpoint %s is not asked', async (_name, challenge_endpoint) => {
    const as = await startFakeAs(
      (_request, response) => json(response, token),
      () => ({ challenge_endpoint }),
    );
    const reached: string[] = [];
    const { agent } = await newAgent({
      fetch: (input, init) => {
        reached.push(new URL(input).origin);
        return fetch(input, init);
      },
    });
    expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
    expect(new Set(reached)).toEqual(new Set([as.origin]));
  });

  test("META-6: a server elsewhere cannot have this machine's own services asked, however many endpoints it puts there", async () => {
    const local = await listen(() => (_request, response) => json(response, { attestation_challenge: 'c' }));
    const issuer = 'https://hostile.example';
    const reached: string[] = [];
    const { agent } = await newAgent({
      fetch: async (input, init) => {
        const url = new URL(input);
        reached.push(url.origin);
        if (url.origin !== issuer) return fetch(input, init);
        return Response.json({
          issuer,
          token_endpoint: `${issuer}/token`,
          jump_endpoint: `${local.origin}/anything`,
          challenge_endpoint: `${local.origin}/containers/x/stop`,
          token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
        });
      },
    });
    expect((await tokenRequest(agent, issuer)).status).toBe(200);
    expect([...new Set(reached), ...local.seen]).toEqual([issuer]);
  });

  test.each<[string, (origin: string) => Parameters<typeof startServer>[0]]>([
    ['fails', () => (_request, response) => response.writeHead(500).end()],
    [
      'answers with a page',
      () => (_request, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('x'),
    ],
    ['redirects', () => (_request, response) => response.writeHead(302, { location: 'https://e.example' }).end()],
    ['answers with a number', () => (_request, response) => json(response, { attestation_challenge: 7 })],
    ['answers with 1 MB', () => (_request, response) => json(response, { attestation_challenge: 'x'.repeat(1 << 20) })],
    ['never answers', () => () => undefined],
  ])('CHA-2: a challenge endpoint that %s does not stop the request', async (_name, answer) => {
    const as = await startFakeAs((request, response) => {
      if (request.path === '/challenge') return answer('')(undefined as never, response);
      return json(response, token);
    }, withEndpoint);
    const { agent } = await newAgent({ timeout: 200 });
    expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
    expect(shown(asked(as, '/token')[0]!).pop).not.toHaveProperty('challenge');
  });
});

describe('metadata of an authorization server', () => {
  test.each<[string, Record<string, unknown>, string]>([
    [
      'offers no client attestation',
      { token_endpoint_auth_methods_supported: ['client_secret_basic'] },
      'server_unsupported',
    ],
    [
      'accepts no proof with our algorithm',
      { client_attestation_pop_signing_alg_values_supported: ['PS512'] },
      'server_unsupported',
    ],
    [
      "does not accept the attester's algorithm",
      { client_attestation_signing_alg_values_supported: ['PS512'] },
      'server_unsupported',
    ],
    ['is malformed', { client_attestation_pop_methods_supported: 'all' }, 'server_unsupported'],
    ['names no token endpoint', { token_endpoint: undefined }, 'server_unsupported'],
  ])('META-4: a server that %s gets no request at all', async (_name, metadata, code) => {
    const as = await startFakeAs(
      (_request, response) => json(response, token),
      () => metadata,
    );
    const { agent } = await newAgent();
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: code as never });
    expect(as.seen.map(({ path }) => path)).toEqual(['/.well-known/oauth-authorization-server']);
  });

  test('META-4: a method that is fixed by the registration is not replaced by another', async () => {
    const as = await startFakeAs((_request, response) => json(response, token));
    const { agent } = await newAgent({ method: 'dpop_combined' });
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'server_unsupported', rule: 'META-4' });
  });

  test.each<[string, (issuer: string) => string]>([
    ['another issuer', () => 'https://honest.example'],
    ['the twin with a slash', (issuer) => `${issuer}/`],
    ['no issuer', () => undefined as never],
  ])('META-6: a document that names %s is refused', async (_name, issuer) => {
    const as = await startFakeAs(
      (_request, response) => json(response, token),
      (origin) => ({ issuer: issuer(origin) }),
    );
    const { agent } = await newAgent();
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'metadata_mismatch', rule: 'META-6' });
    expect(asked(as, '/token')).toEqual([]);
  });

  test('META-6: hostile metadata with an honest issuer cannot have a PoP sent to the hostile endpoint', async () => {
    const honest = await startFakeAs((_request, response) => json(response, token));
    const hostile = await listen(() => (_request, response) => json(response, token));
    const { agent } = await newAgent();
    // an SDK that was told { issuer: honest, token_endpoint: hostile } does this:
    await expectRefusal(() => tokenRequest(agent, honest.issuer, {}, { url: `${hostile.origin}/token` }), {
      code: 'metadata_mismatch',
      rule: 'META-6',
    });
    expect(hostile.seen).toEqual([]);
  });

  test('META-6: the hook makes no PoP for a request that goes elsewhere, also where the request is sent without our fetch', async () => {
    const honest = await startFakeAs((_request, response) => json(response, token));
    const hostile = await listen(() => (_request, response) => json(response, token));
    const { agent } = await newAgent();
    // SDK v1 does not compare the issuer of a document with where it got it
    for (const url of [`${hostile.origin}/token`, hostile.origin, new URL(hostile.origin), 'not a URL']) {
      const relayed = tokenRequest(agent, honest.issuer, {}, { url: String(url), fetch });
      await expectRefusal(() => relayed, { code: 'metadata_mismatch', rule: 'META-6' });
    }
    expect(hostile.seen).toEqual([]);
    // what the libraries name: the token endpoint (MCP SDKs) or the server itself
    const hook = agent.addClientAuthentication;
    for (const url of [new URL(`${honest.issuer}/token`), honest.issuer, `${honest.issuer}/`]) {
      const headers = new Headers();
      await hook(headers, new URLSearchParams({ grant_type: 'x' }), url, { issuer: honest.issuer });
      expect(headers.has('OAuth-Client-Attestation-PoP')).toBe(true);
    }
  });

  test('META-6: an attestation of ours with a proof that is not ours goes nowhere', async () => {
    const as = await startFakeAs((_request, response) => json(response, token));
    const other = await listen(() => (_request, response) => json(response, token));
    const { agent } = await newAgent();
    const headers = new Headers();
    await agent.addClientAuthentication(headers, new URLSearchParams('grant_type=x'), as.issuer, { issuer: as.issuer });
    headers.set('OAuth-Client-Attestation-PoP', 'p.q.r');
    for (const url of [`${as.issuer}/token`, other.origin]) {
      await expectRefusal(() => agent.fetch(url, { method: 'POST', headers }), { code: 'metadata_mismatch' });
    }
    expect([...asked(as, '/token'), ...other.seen]).toEqual([]);
  });

  test('the middleware may be applied twice', async () => {
    const rs = await startFakeRs(() => (_request, response) => json(response, {}));
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    const twice = agent.middleware(agent.fetch);
    expect((await twice(rs.resource, { headers: { authorization: 'Bearer x' } })).status).toBe(200);
    expect(shown(asked(rs, '/mcp')[0]!).pop?.aud).toBe(rs.resource);
  });

  test("META-6: a hostile server that names an honest server's endpoint gets a PoP for itself, which is worth nothing there", async () => {
    const honest = await startFakeAs((_request, response) => json(response, token));
    const hostile = await startFakeAs(
      (_request, response) => json(response, token),
      () => ({ token_endpoint: `${honest.origin}/token` }),
    );
    const { agent } = await newAgent();
    await tokenRequest(agent, hostile.issuer, {}, { url: `${honest.origin}/token` });
    expect(shown(asked(honest, '/token')[0]!).pop?.aud).toBe(hostile.issuer);
  });

  test('META-6: without metadata there is no audience, so no PoP', async () => {
    const { agent } = await newAgent();
    const hook = agent.addClientAuthentication;
    await expectRefusal(() => hook(new Headers(), new URLSearchParams(), 'https://as.example/token'), {
      code: 'server_unsupported',
      rule: 'META-6',
    });
  });

  test('META-4: an issuer with a path is found where RFC 8414 puts it, and else where OpenID Connect does', async () => {
    for (const place of [
      '/.well-known/oauth-authorization-server/tenant',
      '/tenant/.well-known/openid-configuration',
    ]) {
      const server = await listen((origin) => (request, response) => {
        if (request.path === '/tenant/token') return json(response, token);
        if (request.path !== place) return json(response, {}, 404);
        return json(response, {
          issuer: `${origin}/tenant`,
          token_endpoint: `${origin}/tenant/token`,
          token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
        });
      });
      const { agent } = await newAgent();
      const answer = await tokenRequest(agent, `${server.origin}/tenant`);
      expect([place, answer.status]).toEqual([place, 200]);
    }
  });

  test('META-4: metadata is kept for an hour, and through an outage after it', async () => {
    let down = false;
    const as = await listen((origin) => (request, response) => {
      if (request.path === '/token') return json(response, token);
      if (down) return response.writeHead(503).end();
      return json(response, {
        issuer: origin,
        token_endpoint: `${origin}/token`,
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
      });
    });
    const documents = () => as.seen.filter(({ path }) => path !== '/token').length;
    const { agent, clock } = await newAgent({ lifetime: 86_400 });
    await tokenRequest(agent, as.origin);
    clock.offset = 3_500_000;
    await tokenRequest(agent, as.origin);
    expect(documents()).toBe(1);
    down = true;
    clock.offset = 3_700_000;
    expect((await tokenRequest(agent, as.origin)).status).toBe(200);
    expect(documents()).toBe(2);
  });

  test.each<[string, Parameters<typeof startServer>[0], string]>([
    ['fails', (_request, response) => response.writeHead(500).end(), 'http_failed'],
    ['redirects', (_request, response) => response.writeHead(302, { location: '/x' }).end(), 'http_failed'],
    ['hangs up', (request) => request.socket.destroy(), 'http_failed'],
    ['never answers', () => undefined, 'http_timeout'],
    [
      'drips',
      (_request, response) => drip(response.writeHead(200, { 'content-type': 'application/json' })),
      'http_timeout',
    ],
    [
      'answers 100 MB',
      (_request, response) => flood(response.writeHead(200, { 'content-type': 'application/json' }), 1e8, { bytes: 0 }),
      'http_too_large',
    ],
    [
      'answers with a page',
      (_request, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('x'),
      'server_unsupported',
    ],
    ['answers broken JSON', (_request, response) => json(response, undefined), 'server_unsupported'],
  ])('an authorization server that %s: a clear error in time', async (_name, handler, code) => {
    const server = await startServer(handler);
    onTestFinished(() => server.close());
    const { agent } = await newAgent({ timeout: 300 });
    const start = performance.now();
    await expectRefusal(() => tokenRequest(agent, server.origin), { code: code as never });
    expect(performance.now() - start).toBeLessThan(3000);
  });
});
