/** The agent against node-oidc-provider, which implements the draft on its own. */
import { describe, expect, test } from 'vitest';
import { newAgent, type Seen, shown, startAs, tokenRequest } from './support.ts';

const tokenRequests = (seen: Seen[]) => seen.filter(({ path }) => path === '/token');

describe('node-oidc-provider', () => {
  test('CHA-2, CHA-3: the challenge is fetched before the first request, which then succeeds at once', async () => {
    const as = await startAs();
    const { agent } = await newAgent({ method: 'attestation_pop_jwt' });
    const response = await tokenRequest(agent, as.issuer, { scope: 'read', resource: 'https://mcp.example/mcp' });
    expect(await response.json()).toMatchObject({ access_token: expect.any(String), token_type: 'Bearer' });
    expect(as.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'GET /.well-known/oauth-authorization-server',
      'POST /challenge',
      'POST /token',
    ]);
  });

  test('POP-9, IMPL-1: many requests, one attestation, a new PoP each time', async () => {
    const as = await startAs();
    const { agent, attester } = await newAgent({ method: 'attestation_pop_jwt' });
    for (let i = 0; i < 4; i++) expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
    const sent = tokenRequests(as.seen).map(({ headers }) => headers);
    expect(new Set(sent.map((headers) => headers['oauth-client-attestation'])).size).toBe(1);
    expect(new Set(sent.map((headers) => headers['oauth-client-attestation-pop'])).size).toBe(4);
    expect(attester.seen.filter(({ path }) => path === '/attestation')).toHaveLength(1);
  });

  test('POP-9: headers that a caller sends twice get a new PoP the second time', async () => {
    const as = await startAs();
    const { agent } = await newAgent({ method: 'attestation_pop_jwt' });
    const headers = new Headers();
    const body = new URLSearchParams({ grant_type: 'client_credentials' });
    await agent.addClientAuthentication(headers, body, as.issuer, { issuer: as.issuer });
    const send = () => agent.fetch(`${as.issuer}/token`, { method: 'POST', headers, body });
    expect([(await send()).status, (await send()).status]).toEqual([200, 200]);
  });

  test('CHA-6, DPOP-6: combined mode takes the DPoP nonce from the challenge endpoint', async () => {
    const as = await startAs({ method: 'attest_jwt_client_auth_dpop', requireNonce: true });
    const { agent } = await newAgent();
    const response = await tokenRequest(agent, as.issuer);
    expect(await response.json()).toMatchObject({ token_type: 'DPoP' });
    const [request] = tokenRequests(as.seen);
    expect(request && shown(request)).toMatchObject({ pop: undefined, dpop: { nonce: expect.any(String) } });
    expect(tokenRequests(as.seen)).toHaveLength(1);
  });

  test('DPOP-5: a code bound by dpop_jkt is asked for with a PoP, and never in combined mode', async () => {
    const as = await startAs();
    const ask = async (options: Parameters<typeof newAgent>[0]) => {
      const { agent } = await newAgent(options);
      const [headers, body] = [new Headers(), new URLSearchParams({ response_type: 'code', dpop_jkt: 'x'.repeat(43) })];
      await agent.addClientAuthentication(headers, body, `${as.issuer}/request`, { issuer: as.issuer });
      return [...headers.keys()];
    };
    expect(await ask({})).toEqual(['oauth-client-attestation', 'oauth-client-attestation-pop']);
    await expect(ask({ method: 'dpop_combined' })).rejects.toMatchObject({ code: 'invalid_argument', rule: 'DPOP-5' });
  });

  test('META-4: PAR, revocation and introspection are authenticated in both methods, each with its own htu', async () => {
    for (const method of ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'] as const) {
      const as = await startAs({ method });
      const registered = { client_id: 'x', token_endpoint_auth_method: method };
      const { agent } = await newAgent();
      const call = async (path: string, params: Record<string, string>) => {
        const [headers, body] = [new Headers(), new URLSearchParams(params)];
        await agent.clientAuth({ issuer: as.issuer }, registered, body, headers);
        return agent.fetch(`${as.issuer}${path}`, { method: 'POST', headers, body });
      };
      const par = await call('/request', {
        response_type: 'code',
        redirect_uri: 'https://agent.example/callback',
        scope: 'openid',
        code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
        code_challenge_method: 'S256',
      });
      expect([method, par.status, await par.json()]).toMatchObject([method, 201, { request_uri: expect.any(String) }]);
      const token = (await (await call('/token', { grant_type: 'client_credentials' })).json()) as {
        access_token: string;
      };
      const introspection = await call('/token/introspection', { token: token.access_token });
      expect([method, await introspection.json()]).toMatchObject([method, { active: true }]);
      expect([method, (await call('/token/revocation', { token: token.access_token })).status]).toEqual([method, 200]);
    }
  });

  test('ERR-4: a challenge that has run out is replaced, and the request sent once more with a new PoP', async () => {
    const as = await startAs();
    const { agent } = await newAgent({ method: 'attestation_pop_jwt' });
    await tokenRequest(agent, as.issuer);
    // a challenge that this server never gave, by way of any of its answers
    await agent.middleware(
      async () => new Response(null, { headers: { 'OAuth-Client-Attestation-Challenge': 'stale' } }),
    )(`${as.issuer}/jwks`);
    as.seen.length = 0;
    expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
    const [first, second] = tokenRequests(as.seen).map((seen) => shown(seen).pop);
    expect(first).toMatchObject({ challenge: 'stale' });
    expect(second?.challenge).not.toBe('stale');
    expect(second?.jti).not.toBe(first?.jti);
    expect(tokenRequests(as.seen)).toHaveLength(2);
  });

  test('the default authentication of an SDK gives way: one method per request', async () => {
    const as = await startAs();
    const { agent } = await newAgent({ method: 'attestation_pop_jwt' });
    const response = await tokenRequest(
      agent,
      as.issuer,
      { client_secret: 'x', client_id: 'someone' },
      { headers: { authorization: `Basic ${btoa('a:b')}` } },
    );
    expect(response.status).toBe(200);
    const [request] = tokenRequests(as.seen);
    expect(request?.headers.authorization).toBeUndefined();
    expect(request?.body).not.toContain('client_secret');
  });
});
