/** openid-client 6 with `agent.clientAuth` and `agent.fetch`, against node-oidc-provider 9 with our trust and policy. */
import * as client from 'openid-client';
import { describe, expect, test } from 'vitest';
import { decode } from '../support/tokens.ts';
import { AUTH_METHODS, CALLBACK, CLIENTS, METHODS, type Method, SCOPE } from './support/authorization-server.ts';
import { visit } from './support/browser.ts';
import { startWorld, type TestInstance } from './support/world.ts';

const RESOURCE = 'https://mcp.example/mcp';

async function configure(issuer: string, method: Method, { agent }: TestInstance): Promise<client.Configuration> {
  return client.discovery(
    new URL(issuer),
    CLIENTS[method],
    { token_endpoint_auth_method: AUTH_METHODS[method] },
    agent.clientAuth,
    { execute: [client.allowInsecureRequests], [client.customFetch]: agent.fetch },
  );
}

async function authorize(config: client.Configuration, scope = `openid offline_access ${SCOPE}`) {
  const verifier = client.randomPKCECodeVerifier();
  const url = await client.buildAuthorizationUrlWithPAR(config, {
    redirect_uri: CALLBACK,
    scope,
    resource: RESOURCE,
    prompt: 'consent',
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
  });
  expect([...url.searchParams.keys()].sort()).toEqual(['client_id', 'request_uri']);
  return { verifier, url: await visit(url, CALLBACK) };
}

describe.each(METHODS)('openid-client 6, %s', (method) => {
  const tokenType = method === 'dpop_combined' ? 'dpop' : 'bearer';

  test('META-1, POP-2, CHA-2: client_credentials, each request with a proof of its own and no retry', async () => {
    const world = await startWorld();
    const instance = await world.instance(method);
    const config = await configure(world.as.issuer, method, instance);
    instance.traffic.clear();
    for (let i = 0; i < 2; i++) {
      const tokens = await client.clientCredentialsGrant(config, { scope: SCOPE, resource: RESOURCE });
      expect(tokens.token_type).toBe(tokenType);
      const { payload } = decode(tokens.access_token);
      const { thumbprint } = instance.agent.identities()[0]!;
      expect(payload).toMatchObject({ aud: RESOURCE, client_id: CLIENTS[method], client_instance_jkt: thumbprint });
      expect(payload.cnf).toEqual(method === 'dpop_combined' ? { jkt: thumbprint } : undefined);
    }
    expect(instance.traffic.lines(world.as.issuer)).toEqual([
      'GET 200 /.well-known/oauth-authorization-server',
      'POST 200 /challenge',
      'POST 200 /token',
      'POST 200 /token',
    ]);
  });

  test('BIND-1, BIND-2, VER-6: PAR, code, refresh, introspection and revocation by one instance', async () => {
    const world = await startWorld();
    const instance = await world.instance(method);
    const config = await configure(world.as.issuer, method, instance);
    const { verifier, url } = await authorize(config);
    const first = await client.authorizationCodeGrant(config, url, { pkceCodeVerifier: verifier });
    expect(first.token_type).toBe(tokenType);
    expect(first.claims()?.sub).toBe('alice');
    const second = await client.refreshTokenGrant(config, first.refresh_token!, { resource: RESOURCE });
    expect(decode(second.access_token).payload).toMatchObject({ aud: RESOURCE, sub: 'alice' });
    expect(second.refresh_token).not.toBe(first.refresh_token);
    const refreshToken = second.refresh_token!;
    expect(await client.tokenIntrospection(config, refreshToken)).toMatchObject({ active: true });
    await client.tokenRevocation(config, refreshToken);
    expect(await client.tokenIntrospection(config, refreshToken)).toEqual({ active: false });
    await expect(client.refreshTokenGrant(config, refreshToken)).rejects.toMatchObject({ error: 'invalid_grant' });
    expect(world.as.refusals).toEqual([]);
  });

  test('ERR-1, ERR-4: a value that the server does not know costs one retry', async () => {
    const world = await startWorld();
    const instance = await world.instance(method);
    const config = await configure(world.as.issuer, method, instance);
    await client.clientCredentialsGrant(config, { scope: SCOPE, resource: RESOURCE });
    const stale = { 'OAuth-Client-Attestation-Challenge': 'stale', 'DPoP-Nonce': 'stale' };
    await instance.agent.middleware(async () => new Response(null, { headers: stale }))(`${world.as.issuer}/jwks`);
    instance.traffic.clear();
    await client.clientCredentialsGrant(config, { scope: SCOPE, resource: RESOURCE });
    expect(instance.traffic.lines(world.as.issuer)).toEqual(['POST 400 /token', 'POST 200 /token']);
  });
});
