/** An authorization server's document that the caller reads through the agent's fetch is not fetched a second time. */
import type { ServerResponse } from 'node:http';
import { describe, expect, test } from 'vitest';
import { expectRefusal } from '../support/errors.ts';
import { asked, json, listen, newAgent, type Seen, shown, startFakeAs, tokenRequest } from './support.ts';

const WELL_KNOWN = '/.well-known/oauth-authorization-server';
const token = (_request: Seen, response: ServerResponse) => json(response, { access_token: 'a', token_type: 'Bearer' });

describe('documents that come by', () => {
  test('META-4: one is enough for caller and agent, and the caller gets all of it', async () => {
    const as = await startFakeAs(token);
    const { agent } = await newAgent();
    const seen = await agent.fetch(as.issuer + WELL_KNOWN);
    expect(await seen.json()).toMatchObject({ issuer: as.issuer, token_endpoint: `${as.issuer}/token` });
    for (let i = 0; i < 2; i++) await tokenRequest(agent, as.issuer);
    expect(asked(as, WELL_KNOWN)).toHaveLength(1);
    expect(asked(as, '/token').map((request) => shown(request).pop?.aud)).toEqual([as.issuer, as.issuer]);
  });

  test('META-4: after a minute it is fetched again', async () => {
    const as = await startFakeAs(token);
    const { agent, clock } = await newAgent();
    await agent.fetch(as.issuer + WELL_KNOWN);
    clock.offset = 61_000;
    await tokenRequest(agent, as.issuer);
    expect(asked(as, WELL_KNOWN)).toHaveLength(2);
  });

  test('META-6: it makes nobody known: the endpoints of an issuer that was only looked at do not count', async () => {
    const hostile = await startFakeAs(token, (origin) => ({ token_endpoint: `${origin}/mcp` }));
    const { agent } = await newAgent();
    await agent.fetch(hostile.issuer + WELL_KNOWN);
    const before = hostile.seen.length;
    await agent.fetch(`${hostile.issuer}/mcp`, { headers: { authorization: 'Bearer x' } });
    expect(hostile.seen.slice(before).map(({ headers }) => headers['oauth-client-attestation'])).toEqual([undefined]);
  });

  const lies = (origin: string, issuer: string) => ({
    issuer,
    token_endpoint: `${origin}/stolen`,
    token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
  });
  test.each<[string, (origin: string, honest: string) => [path: string, answer: unknown, init?: RequestInit]]>([
    ['from another origin', (origin, honest) => [WELL_KNOWN, lies(origin, honest)]],
    ['from another path', (origin, honest) => [`${WELL_KNOWN}/tenant`, lies(origin, honest)]],
    ['of another spelling', (origin, honest) => [WELL_KNOWN, lies(origin, `${honest}/`)]],
    ['with an issuer that is no URL', (origin) => [WELL_KNOWN, lies(origin, 'issuer')]],
    ['with an issuer that is no text', (origin) => [WELL_KNOWN, { ...lies(origin, ''), issuer: [origin] }]],
    ['that is a list', (origin, honest) => [WELL_KNOWN, [lies(origin, honest)]]],
  ])('META-6: a document %s speaks for no one', async (_name, make) => {
    const honest = await startFakeAs(token);
    const hostile = await listen((origin) => (_request, response) => json(response, make(origin, honest.issuer)[1]));
    const { agent } = await newAgent();
    await (await agent.fetch(hostile.origin + make(hostile.origin, honest.issuer)[0])).text();
    await tokenRequest(agent, honest.issuer);
    expect(asked(honest, '/token')).toHaveLength(1);
    expect(asked(hostile, '/stolen')).toEqual([]);
  });

  /** An origin whose document is right, but reached in a way that does not count. */
  test.each<[string, string, RequestInit]>([
    ['by POST', WELL_KNOWN, { method: 'POST' }],
    ['with a query', `${WELL_KNOWN}?now`, {}],
    ['by a redirect', '/moved', {}],
    ['at the place of OpenID Connect', '/.well-known/openid-configuration', {}],
    ['at a path of another issuer', `${WELL_KNOWN}/tenant`, {}],
  ])('META-6: a document that is got %s is fetched again from its place', async (_name, path, init) => {
    const as = await listen((origin) => (request, response) => {
      if (request.path === '/moved') return response.writeHead(302, { location: WELL_KNOWN }).end();
      if (request.path === '/token') return token(request, response);
      return json(response, {
        issuer: origin,
        token_endpoint: `${origin}/token`,
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
      });
    });
    const { agent } = await newAgent();
    await (await agent.fetch(as.origin + path, init)).text();
    const before = as.seen.length;
    await tokenRequest(agent, as.origin);
    expect(as.seen.slice(before).map(({ path: next }) => next)).toEqual([WELL_KNOWN, '/token']);
  });

  test('META-2: one with a malformed parameter is handed on, and refused when it counts', async () => {
    const as = await startFakeAs(token, () => ({ challenge_endpoint: 7 }));
    const { agent } = await newAgent();
    expect(await (await agent.fetch(as.issuer + WELL_KNOWN)).json()).toMatchObject({ challenge_endpoint: 7 });
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'server_unsupported', rule: 'META-2' });
  });
});
