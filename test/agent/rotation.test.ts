/** New keys for old, and what is bound to the old ones. */
import { describe, expect, test } from 'vitest';
import { expectRefusal } from '../support/errors.ts';
import { asked, json, newAgent, shown, startAs, startFakeAs, startFakeRs, tokenRequest } from './support.ts';

const A = 'https://a.example/mcp';

describe('rotation', () => {
  const tokens = () => {
    let count = 0;
    return startFakeAs((_request, response) => {
      count++;
      json(response, { access_token: `at${count}`, refresh_token: `rt${count}`, token_type: 'DPoP' });
    });
  };

  test('IMPL-2: a new key and attestation for new tokens; access and refresh tokens stay with the key they are bound to', async () => {
    const as = await tokens();
    const rs = await startFakeRs(() => (_request, response) => json(response, {}));
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    await tokenRequest(agent, as.issuer, { resource: rs.resource });
    await agent.rotate(rs.resource);
    await tokenRequest(agent, as.issuer, { resource: rs.resource });
    await tokenRequest(agent, as.issuer, { grant_type: 'refresh_token', refresh_token: 'rt1', resource: rs.resource });
    await tokenRequest(agent, as.issuer, { grant_type: 'refresh_token', refresh_token: 'rt2' });
    await agent.fetch(rs.resource, { headers: { authorization: 'Bearer at1' } });
    await agent.fetch(rs.resource, { headers: { authorization: 'Bearer at2' } });
    const keys = [...asked(as, '/token'), ...asked(rs, '/mcp')].map((request) => shown(request).key);
    const [old, fresh] = keys;
    expect(old).not.toBe(fresh);
    expect(keys).toEqual([old, fresh, old, fresh, old, fresh]);
    expect(agent.identities()).toMatchObject([
      { server: rs.resource, generation: 1, current: false },
      { server: rs.resource, generation: 2, current: true },
    ]);
  });

  test('IMPL-2: keepOld: false destroys the old key and forgets its tokens', async () => {
    const as = await tokens();
    const rs = await startFakeRs(() => (_request, response) => json(response, {}));
    const { agent, keys } = await newAgent();
    await tokenRequest(agent, as.issuer, { resource: rs.resource });
    const before = (await keys.listKeys()).map(({ thumbprint }) => thumbprint);
    await agent.rotate(undefined, { keepOld: false });
    const after = (await keys.listKeys()).map(({ thumbprint }) => thumbprint);
    expect(after).toHaveLength(before.length);
    expect(agent.identities()).toMatchObject([{ generation: 2, current: true, expiresAt: expect.any(Number) }]);
    expect(before).not.toContain(agent.identities()[0]?.thumbprint);
    await agent.fetch(rs.resource, { headers: { authorization: 'Bearer at1' } });
    expect(asked(rs, '/mcp')[0]?.headers.dpop).toBeUndefined();
  });

  test('IMPL-2: a key that another process of the agent destroyed costs one request, and the next finds its heir', async () => {
    const as = await tokens();
    const one = await newAgent();
    const { keys, attester } = one;
    const other = await newAgent({ keys, attester });
    for (const { agent } of [one, other]) await tokenRequest(agent, as.issuer, { resource: A });
    await one.agent.rotate(A, { keepOld: false });
    await expectRefusal(() => tokenRequest(other.agent, as.issuer, { resource: A }), { code: 'key_not_found' });
    expect((await tokenRequest(other.agent, as.issuer, { resource: A })).status).toBe(200);
    expect(other.agent.identities()).toMatchObject([{ ...one.agent.identities()[0], expiresAt: expect.any(Number) }]);
  });

  test('IMPL-2: only the named server is rotated', async () => {
    const as = await tokens();
    const { agent } = await newAgent();
    await tokenRequest(agent, as.issuer, { resource: A });
    await tokenRequest(agent, as.issuer);
    await agent.rotate(A);
    const current = agent.identities().filter((identity) => identity.current);
    expect(current.map(({ server, generation }) => [server, generation])).toEqual([
      [`${as.issuer}/`, 1],
      [A, 2],
    ]);
  });

  test('IMPL-2: where no new attestation can be had, nothing changes', async () => {
    const as = await tokens();
    const { agent, attester } = await newAgent();
    await tokenRequest(agent, as.issuer, { resource: A });
    attester.outage = () => new Response(null, { status: 503 });
    await expectRefusal(() => agent.rotate(A), { code: 'attester_unavailable' });
    expect((await tokenRequest(agent, as.issuer, { resource: A })).status).toBe(200);
    expect(new Set(asked(as, '/token').map((request) => shown(request).key)).size).toBe(1);
  });

  test('IMPL-2, BIND-2: a code that was pushed before a rotation is redeemed with the key that pushed it', async () => {
    const as = await startFakeAs(
      (_request, response) => json(response, { access_token: 'a', token_type: 'Bearer' }),
      (origin) => ({ pushed_authorization_request_endpoint: `${origin}/par` }),
    );
    const { agent } = await newAgent();
    const code_verifier = 'dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk';
    const code_challenge = 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM';
    const [headers, push] = [new Headers(), new URLSearchParams({ response_type: 'code', code_challenge })];
    await agent.clientAuth({ issuer: as.issuer }, {}, push, headers);
    await agent.fetch(`${as.issuer}/par`, { method: 'POST', headers, body: push });
    await agent.rotate();
    await tokenRequest(agent, as.issuer, { grant_type: 'authorization_code', code: 'c', code_verifier, resource: A });
    expect(shown(asked(as, '/token')[0]!).key).toBe(shown(asked(as, '/par')[0]!).key);
  });

  test('IMPL-2, BIND-1: node-oidc-provider accepts a refresh after the rotation, which it refuses to any other key', async () => {
    const as = await startAs();
    const { agent } = await newAgent({ method: 'attestation_pop_jwt' });
    await tokenRequest(agent, as.issuer, { resource: A });
    const token = async () => {
      const { RefreshToken, Client, Grant } = as.provider;
      const client = await Client.find('https://agent.example/client');
      const grant = new Grant({ accountId: 'user', clientId: client?.clientId } as never);
      grant.addOIDCScope('openid offline_access');
      const refresh = new RefreshToken({
        accountId: 'user',
        client,
        grantId: await grant.save(),
        gty: 'authorization_code',
        scope: 'openid offline_access',
      } as never);
      (refresh as unknown as { attestationJkt: string }).attestationJkt = agent.identities()[0]?.thumbprint ?? '';
      return refresh.save();
    };
    // the agent got it in an answer of the AS, as after a code exchange
    const bound = await token();
    const pass = agent.middleware(async () =>
      Response.json({ access_token: 'x', refresh_token: bound, token_type: 'Bearer' }),
    );
    await tokenRequest(agent, as.issuer, { resource: A }, { fetch: pass });
    const unknown = await token();
    await agent.rotate();
    const refresh = async (refresh_token: string) => {
      const answer = await tokenRequest(agent, as.issuer, { grant_type: 'refresh_token', refresh_token });
      return [answer.status, ((await answer.json()) as { error?: string }).error];
    };
    expect(await refresh(bound)).toEqual([200, undefined]);
    expect(await refresh(unknown)).toEqual([400, 'invalid_grant']);
  });
});
