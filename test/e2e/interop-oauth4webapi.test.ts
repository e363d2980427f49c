/** oauth4webapi 3 with `agent.clientAuth` and `agent.fetch`, against node-oidc-provider 9 with our trust and policy. */
import * as oauth from 'oauth4webapi';
import { describe, expect, test } from 'vitest';
import { decode } from '../support/tokens.ts';
import { AUTH_METHODS, CALLBACK, CLIENTS, METHODS, type Method, SCOPE } from './support/authorization-server.ts';
import { visit } from './support/browser.ts';
import { startWorld, type TestInstance } from './support/world.ts';

const RESOURCE = 'https://mcp.example/mcp';

async function prepare(issuer: string, method: Method, { agent }: TestInstance) {
  const options = {
    [oauth.allowInsecureRequests]: true,
    [oauth.customFetch]: agent.fetch as (url: string, init: unknown) => Promise<Response>,
  };
  const found = await oauth.discoveryRequest(new URL(issuer), { ...options, algorithm: 'oauth2' });
  const as = await oauth.processDiscoveryResponse(new URL(issuer), found);
  const client: oauth.Client = { client_id: CLIENTS[method], token_endpoint_auth_method: AUTH_METHODS[method] };
  return { as, client, options };
}

describe.each(METHODS)('oauth4webapi 3, %s', (method) => {
  test('META-1, CHA-2, POP-9: client_credentials at once, with a new proof each time', async () => {
    const world = await startWorld();
    const instance = await world.instance(method);
    const { as, client, options } = await prepare(world.as.issuer, method, instance);
    const ask = async () => {
      const parameters = { scope: SCOPE, resource: RESOURCE };
      const { clientAuth } = instance.agent;
      const response = await oauth.clientCredentialsGrantRequest(as, client, clientAuth, parameters, options);
      return oauth.processClientCredentialsResponse(as, client, response);
    };
    const tokens = [await ask(), await ask(), await ask()];
    const { thumbprint } = instance.agent.identities()[0]!;
    for (const { access_token } of tokens) {
      expect(decode(access_token).payload).toMatchObject({ aud: RESOURCE, client_instance_jkt: thumbprint });
    }
    const requests = instance.traffic.exchanges.filter(({ url }) => url === as.token_endpoint);
    expect(requests.map(({ status }) => status)).toEqual([200, 200, 200]);
    const proof = method === 'dpop_combined' ? 'dpop' : 'oauth-client-attestation-pop';
    expect(new Set(requests.map(({ headers }) => headers.get(proof))).size).toBe(3);
    expect(new Set(requests.map(({ headers }) => headers.get('oauth-client-attestation'))).size).toBe(1);
  });

  test('BIND-1, BIND-2, VER-6: PAR, code, refresh, introspection and revocation by one instance', async () => {
    const world = await startWorld();
    const instance = await world.instance(method);
    const { clientAuth } = instance.agent;
    const { as, client, options } = await prepare(world.as.issuer, method, instance);
    const verifier = oauth.generateRandomCodeVerifier();
    const state = oauth.generateRandomState();
    const pushed = await oauth.processPushedAuthorizationResponse(
      as,
      client,
      await oauth.pushedAuthorizationRequest(
        as,
        client,
        clientAuth,
        {
          response_type: 'code',
          redirect_uri: CALLBACK,
          scope: `offline_access openid ${SCOPE}`,
          resource: RESOURCE,
          prompt: 'consent',
          state,
          code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
          code_challenge_method: 'S256',
        },
        options,
      ),
    );
    const authorization = new URL(as.authorization_endpoint!);
    authorization.search = new URLSearchParams({
      client_id: client.client_id,
      request_uri: pushed.request_uri,
    }).toString();
    const parameters = oauth.validateAuthResponse(as, client, await visit(authorization, CALLBACK), state);
    const first = await oauth.processAuthorizationCodeResponse(
      as,
      client,
      await oauth.authorizationCodeGrantRequest(as, client, clientAuth, parameters, CALLBACK, verifier, options),
    );
    expect(decode(first.access_token).payload).toMatchObject({ aud: RESOURCE, sub: 'alice' });

    const second = await oauth.processRefreshTokenResponse(
      as,
      client,
      await oauth.refreshTokenGrantRequest(as, client, clientAuth, first.refresh_token!, options),
    );
    const introspect = async () => {
      const response = await oauth.introspectionRequest(as, client, clientAuth, second.refresh_token!, options);
      return oauth.processIntrospectionResponse(as, client, response);
    };
    expect(await introspect()).toMatchObject({ active: true, client_id: client.client_id });
    const revoked = await oauth.revocationRequest(as, client, clientAuth, second.refresh_token!, options);
    await oauth.processRevocationResponse(revoked);
    expect(await introspect()).toEqual({ active: false });
    expect(world.as.refusals).toEqual([]);
  });

  test('ERR-1, ERR-4: without the fetch layer the challenge error reaches the library, and a second try works', async () => {
    const world = await startWorld();
    const instance = await world.instance(method);
    const { as, client } = await prepare(world.as.issuer, method, instance);
    const { agent, traffic } = instance;
    const options = {
      [oauth.allowInsecureRequests]: true,
      [oauth.customFetch]: traffic.fetch as (url: string, init: unknown) => Promise<Response>,
    };
    const ask = async () => {
      const parameters = { scope: SCOPE, resource: RESOURCE };
      const request = oauth.clientCredentialsGrantRequest(as, client, agent.clientAuth, parameters, options);
      return oauth.processClientCredentialsResponse(as, client, await request);
    };
    await ask();
    const stale = { 'OAuth-Client-Attestation-Challenge': 'stale', 'DPoP-Nonce': 'stale' };
    await agent.middleware(async () => new Response(null, { headers: stale }))(as.token_endpoint!);
    const error = (await ask().catch((cause: unknown) => cause)) as oauth.ResponseBodyError;
    const code = method === 'dpop_combined' ? 'use_dpop_nonce' : 'use_attestation_challenge';
    expect(error).toMatchObject({ error: code, status: 400 });
    // the library's caller hands the answer to the agent, as any middleware of its own would
    await agent.middleware(async () => error.response)(as.token_endpoint!);
    expect(await ask()).toMatchObject({ access_token: expect.any(String) });
  });
});
