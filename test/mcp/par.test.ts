/** Pushed authorization requests for MCP clients, at node-oidc-provider. The MCP flows with them are in test/e2e. */
import { expect, test } from 'vitest';
import { pushAuthorizationRequest } from '../../src/mcp/par.ts';
import { CALLBACK, CLIENTS, METHODS, type Method } from '../e2e/support/authorization-server.ts';
import { startOwnAuthorizationServer } from '../e2e/support/own-authorization-server.ts';
import { startWorld } from '../e2e/support/world.ts';
import { expectRefusal } from '../support/errors.ts';

const request = (issuer: string, method: Method, redirectUri = CALLBACK) =>
  new URL(
    `${issuer}/auth?${new URLSearchParams({
      response_type: 'code',
      client_id: CLIENTS[method],
      redirect_uri: redirectUri,
      scope: 'openid',
      code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
      code_challenge_method: 'S256',
    })}`,
  );

test.each(METHODS)(
  'BIND-2, %s: gives the page with a reference, and sends the request with attestation',
  async (method) => {
    const world = await startWorld();
    const { agent, traffic } = await world.instance(method);
    const page = await pushAuthorizationRequest(agent, world.as.issuer, request(world.as.issuer, method));
    expect(page.origin + page.pathname).toBe(`${world.as.issuer}/auth`);
    expect([...page.searchParams.keys()]).toEqual(['client_id', 'request_uri']);
    const pushed = traffic.exchanges.find(({ url }) => url === `${world.as.issuer}/request`);
    expect(pushed?.headers.has('oauth-client-attestation')).toBe(true);
  },
);

test("META-6: a page that is another server's is not pushed anywhere", async () => {
  const world = await startWorld();
  const { agent, traffic } = await world.instance('dpop_combined');
  for (const page of ['https://evil.example/auth', `${world.as.issuer}/other`]) {
    await expectRefusal(() => pushAuthorizationRequest(agent, world.as.issuer, new URL(page)), {
      code: 'metadata_mismatch',
      rule: 'META-6',
    });
  }
  expect(traffic.lines(world.as.issuer).filter((line) => line.startsWith('POST'))).toEqual([]);
});

test('a request that the server refuses', async () => {
  const world = await startWorld();
  const { agent } = await world.instance('dpop_combined');
  const wrong = request(world.as.issuer, 'dpop_combined', 'https://evil.example/callback');
  const error = await expectRefusal(() => pushAuthorizationRequest(agent, world.as.issuer, wrong), {
    code: 'http_failed',
  });
  expect(error.message).not.toContain('evil');
});

test('a server without the endpoint', async () => {
  const world = await startWorld();
  const own = await startOwnAuthorizationServer(world.attester.issuer);
  const { agent } = await world.instance('dpop_combined');
  await expectRefusal(() => pushAuthorizationRequest(agent, own.issuer, request(own.issuer, 'dpop_combined')), {
    code: 'server_unsupported',
  });
});
