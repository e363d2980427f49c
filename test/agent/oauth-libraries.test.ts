/** The hook for oauth4webapi and openid-client, against node-oidc-provider. */
import * as oauth from 'oauth4webapi';
import * as client from 'openid-client';
import { describe, expect, test } from 'vitest';
import { CLIENT_ID, newAgent, shown, startAs } from './support.ts';

const methods = ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'] as const;

describe.each(methods)('%s', (method) => {
  test('META-4: oauth4webapi: the registered method is the one that is used', async () => {
    const as = await startAs({ method });
    const { agent } = await newAgent();
    const server: oauth.AuthorizationServer = { issuer: as.issuer, token_endpoint: `${as.issuer}/token` };
    const registered: oauth.Client = { client_id: CLIENT_ID, token_endpoint_auth_method: method };
    const response = await oauth.clientCredentialsGrantRequest(
      server,
      registered,
      agent.clientAuth,
      { scope: 'read' },
      {
        [oauth.customFetch]: agent.fetch as never,
        [oauth.allowInsecureRequests]: true,
      },
    );
    const result = await oauth.processClientCredentialsResponse(server, registered, response);
    expect(result.token_type).toBe(method === 'attest_jwt_client_auth' ? 'bearer' : 'dpop');
    const [request] = as.seen.filter(({ path }) => path === '/token');
    expect(request && shown(request).attestation?.sub).toBe(CLIENT_ID);
  });

  test('META-4: openid-client: discovery, client credentials and introspection', async () => {
    const as = await startAs({ method });
    const { agent } = await newAgent();
    const config = await client.discovery(
      new URL(as.issuer),
      CLIENT_ID,
      { token_endpoint_auth_method: method },
      agent.clientAuth,
      { execute: [client.allowInsecureRequests], [client.customFetch]: agent.fetch as never },
    );
    config[client.customFetch] = agent.fetch as never;
    const { access_token } = await client.clientCredentialsGrant(config, { scope: 'read' });
    expect((await client.tokenIntrospection(config, access_token)).active).toBe(true);
  });
});

test("DPOP-1: a caller's own DPoP key keeps its token", async () => {
  const as = await startAs();
  const { agent } = await newAgent();
  const server: oauth.AuthorizationServer = { issuer: as.issuer, token_endpoint: `${as.issuer}/token` };
  const registered: oauth.Client = { client_id: CLIENT_ID };
  const DPoP = oauth.DPoP(registered, await oauth.generateKeyPair('ES256'));
  const options = { [oauth.customFetch]: agent.fetch as never, [oauth.allowInsecureRequests]: true, DPoP };
  const response = await oauth.clientCredentialsGrantRequest(server, registered, agent.clientAuth, {}, options);
  const { access_token } = (await response.json()) as { access_token: string };
  const token = await as.provider.ClientCredentials.find(access_token);
  expect((token as unknown as { jkt: string }).jkt).toBe(await DPoP.calculateThumbprint());
});
