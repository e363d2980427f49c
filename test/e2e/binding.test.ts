/** Codes and refresh tokens belong to the instance they were issued to (ABCA §10.3, §10.4). */
import * as client from 'openid-client';
import { describe, expect, test } from 'vitest';
import { AUTH_METHODS, CALLBACK, CLIENTS, METHODS, type Method, SCOPE } from './support/authorization-server.ts';
import { visit } from './support/browser.ts';
import { startOwnAuthorizationServer } from './support/own-authorization-server.ts';
import { type LoopbackWorld, startWorld, type TestInstance } from './support/world.ts';

const RESOURCE = 'https://mcp.example/mcp';

interface Party extends TestInstance {
  config: client.Configuration;
}

async function join(world: LoopbackWorld, method: Method): Promise<Party> {
  const instance = await world.instance(method);
  const config = await client.discovery(
    new URL(world.as.issuer),
    CLIENTS[method],
    { token_endpoint_auth_method: AUTH_METHODS[method] },
    instance.agent.clientAuth,
    { execute: [client.allowInsecureRequests], [client.customFetch]: instance.agent.fetch },
  );
  return { ...instance, config };
}

/** What an instance gets back from the authorization page: its code. */
async function authorize({ config }: Party): Promise<{ callback: URL; pkceCodeVerifier: string }> {
  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const url = await client.buildAuthorizationUrlWithPAR(config, {
    redirect_uri: CALLBACK,
    scope: `openid offline_access ${SCOPE}`,
    resource: RESOURCE,
    prompt: 'consent',
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
  });
  return { callback: await visit(url, CALLBACK), pkceCodeVerifier };
}

async function signIn(party: Party): Promise<string> {
  const { callback, pkceCodeVerifier } = await authorize(party);
  const { refresh_token } = await client.authorizationCodeGrant(party.config, callback, { pkceCodeVerifier });
  return refresh_token!;
}

const refresh = async ({ config }: Party, token: string) =>
  (await client.refreshTokenGrant(config, token)).refresh_token as string;

describe.each(METHODS)('node-oidc-provider, %s', (method) => {
  test("BIND-1: another instance's refresh is refused, and burns nothing", async () => {
    const world = await startWorld();
    const [owner, other] = [await join(world, method), await join(world, method)];
    const token = await signIn(owner);
    for (let i = 0; i < 2; i++) {
      await expect(refresh(other, token)).rejects.toMatchObject({ error: 'invalid_grant', status: 400 });
    }
    const next = await refresh(owner, token);
    expect(next).not.toBe(token);
    expect(await refresh(owner, next)).toEqual(expect.any(String));
  });

  test('BIND-1, POP-6: a captured attestation with a key of the attacker is refused, and burns nothing', async () => {
    const world = await startWorld();
    const [owner, other] = [await join(world, method), await join(world, method)];
    const token = await signIn(owner);
    const captured = owner.traffic.exchanges.at(-1)?.headers.get('oauth-client-attestation') as string;
    const headers = new Headers();
    const body = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: token });
    await other.agent.clientAuth({ issuer: world.as.issuer }, {}, body, headers);
    headers.set('oauth-client-attestation', captured);
    const response = await fetch(`${world.as.issuer}/token`, { method: 'POST', headers, body });
    expect([response.status, await response.json()]).toMatchObject([401, { error: 'invalid_client' }]);
    expect(world.as.refusals).toEqual([]); // the attestation is good; it is the proof that does not fit
    expect(await refresh(owner, token)).toEqual(expect.any(String));
  });

  test('BIND-1, IMPL-2: after a rotation the old key still refreshes its token; once destroyed, nobody does', async () => {
    const world = await startWorld();
    const owner = await join(world, method);
    const token = await signIn(owner);
    await owner.agent.rotate();
    const next = await refresh(owner, token);
    await owner.agent.rotate(undefined, { keepOld: false });
    expect(owner.agent.identities().map(({ current }) => current)).toEqual([true]);
    await expect(refresh(owner, next)).rejects.toMatchObject({ error: 'invalid_grant' });
    // the new key starts anew
    expect(await refresh(owner, await signIn(owner))).toEqual(expect.any(String));
  });

  test("BIND-2: another instance's code is refused, and stays good for its owner", async () => {
    const world = await startWorld();
    const [owner, other] = [await join(world, method), await join(world, method)];
    const { callback, pkceCodeVerifier } = await authorize(owner);
    const redeem = ({ config }: Party) => client.authorizationCodeGrant(config, callback, { pkceCodeVerifier });
    for (let i = 0; i < 2; i++) {
      await expect(redeem(other)).rejects.toMatchObject({ error: 'invalid_grant', status: 400 });
    }
    expect((await redeem(owner)).refresh_token).toEqual(expect.any(String));
  });

  test('BIND-2, IMPL-2: a code that was asked for before a rotation is redeemed with the key that asked', async () => {
    const world = await startWorld();
    const owner = await join(world, method);
    const { callback, pkceCodeVerifier } = await authorize(owner);
    await owner.agent.rotate();
    const tokens = await client.authorizationCodeGrant(owner.config, callback, { pkceCodeVerifier });
    expect(await refresh(owner, tokens.refresh_token!)).toEqual(expect.any(String));
  });

  test('BIND-1: another instance can neither revoke a refresh token nor learn that it is good', async () => {
    const world = await startWorld();
    const [owner, other] = [await join(world, method), await join(world, method)];
    const token = await signIn(owner);
    expect(await client.tokenIntrospection(other.config, token)).toEqual({ active: false });
    await client.tokenRevocation(other.config, token); // answered as if it had been done (RFC 7009 §2.2)
    expect(await client.tokenIntrospection(owner.config, token)).toMatchObject({ active: true });
    expect(await refresh(owner, token)).toEqual(expect.any(String));
  });
});

describe.each(METHODS)('a server with `assertBoundTo`, %s', (method) => {
  test("BIND-1: another instance's refresh is refused, and burns nothing", async () => {
    const world = await startWorld();
    const own = await startOwnAuthorizationServer(world.attester.issuer);
    const [owner, other] = [await world.instance(method), await world.instance(method)];
    const first = await own.ask(owner.agent, { grant_type: 'client_credentials' });
    expect(first.status).toBe(200);
    const refreshing = { grant_type: 'refresh_token', refresh_token: first.body.refresh_token as string };
    expect(await own.ask(other.agent, refreshing)).toEqual({
      status: 400,
      body: { error: 'invalid_grant', error_description: 'the grant was issued to another client instance' },
    });
    expect(await own.ask(owner.agent, refreshing)).toMatchObject({ status: 200 });
    // used up by its owner
    expect(await own.ask(owner.agent, refreshing)).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
  });

  test('BIND-1, IMPL-2: after a rotation the agent refreshes with the old key, not the new one', async () => {
    const world = await startWorld();
    const own = await startOwnAuthorizationServer(world.attester.issuer);
    const { agent } = await world.instance(method);
    const first = await own.ask(agent, { grant_type: 'client_credentials' });
    await agent.rotate();
    const refreshing = { grant_type: 'refresh_token', refresh_token: first.body.refresh_token as string };
    expect(await own.ask(agent, refreshing)).toMatchObject({ status: 200 });
    const fresh = await own.ask(agent, { grant_type: 'client_credentials' });
    expect(own.instances.at(-1)).not.toBe(own.instances[0]);
    expect(fresh.status).toBe(200);
  });
});
