/** Attestation around the authorization server of the MCP SDK v1, over real connections. */
import { createHash, randomBytes } from 'node:crypto';
import { mcpAuthRouter } from '@modelcontextprotocol/sdk/server/auth/router.js';
import express from 'express';
import { describe, expect, test } from 'vitest';
import { attestedAuthRouter } from '../../src/integrations/mcp-auth-router.ts';
import { createVerifier, jwks } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { type McpAuthServer, type Setup, startMcpAuthServer } from '../support/mcp-auth-server.ts';
import { newSigner } from '../support/tokens.ts';
import { createWorld, type World } from '../support/world.ts';

const CLIENT = 'agent-1';
const CALLBACK = 'https://agent.example/callback';

interface Instance {
  world: World;
  /** Headers of an authenticated request. */
  headers(path?: string): Promise<Record<string, string>>;
}

interface Parties {
  as: McpAuthServer;
  owner: Instance;
  other: Instance;
  /** A form by an instance; `null`: by nobody. */
  post(
    path: string,
    form: Record<string, string>,
    by?: Instance | null,
    extra?: Record<string, string>,
  ): Promise<Answer>;
}

interface Answer {
  status: number;
  body: Record<string, unknown>;
  headers: Headers;
}

async function start(setup: Partial<Setup> = {}, mode: 'pop' | 'dpop' = 'pop'): Promise<Parties> {
  const attester = newSigner('ES256', 'attester-1');
  const as = await startMcpAuthServer({ trust: jwks({ keys: [attester.publicJwk] }), ...setup });
  const method = mode === 'pop' ? 'attest_jwt_client_auth' : 'attest_jwt_client_auth_dpop';
  as.clients.set(CLIENT, { client_id: CLIENT, redirect_uris: [CALLBACK], token_endpoint_auth_method: method });
  as.clients.set('public', { client_id: 'public', redirect_uris: [CALLBACK], token_endpoint_auth_method: 'none' });
  const instance = (): Instance => {
    const world = createWorld({ attester, audience: as.issuer, startAt: Date.now() });
    return {
      world,
      async headers(path = '/token') {
        const response = await fetch(as.url('/attestation-challenge'), { method: 'POST' });
        const { attestation_challenge: challenge } = (await response.json()) as { attestation_challenge: string };
        const attestation = await world.attestation({ payload: { sub: CLIENT } });
        if (mode === 'pop') {
          const pop = await world.pop({ payload: { challenge } });
          return { 'OAuth-Client-Attestation': attestation, 'OAuth-Client-Attestation-PoP': pop };
        }
        const nonce = response.headers.get('dpop-nonce') as string;
        const DPoP = await world.dpop({ payload: { nonce, htu: as.url(path) } });
        return { 'OAuth-Client-Attestation': attestation, DPoP };
      },
    };
  };
  const owner = instance();
  return {
    as,
    owner,
    other: instance(),
    async post(path, form, by = owner, extra = {}) {
      const response = await fetch(as.url(path), {
        method: 'POST',
        headers: { ...(by === null ? {} : await by.headers(path)), ...extra },
        body: new URLSearchParams(form),
      });
      return {
        status: response.status,
        body: (await response.json()) as Answer['body'],
        headers: response.headers,
      };
    },
  };
}

const VERIFIER = 'v'.repeat(43);
const s256 = (verifier: string) => createHash('sha256').update(verifier).digest('base64url');
const AUTHORIZATION = {
  response_type: 'code',
  client_id: CLIENT,
  redirect_uri: CALLBACK,
  code_challenge: s256(VERIFIER),
  code_challenge_method: 'S256',
};

async function visit(as: McpAuthServer, query: Record<string, string>, form = false): Promise<URL | Response> {
  const params = new URLSearchParams(query);
  const response = form
    ? await fetch(as.url('/authorize'), { method: 'POST', body: params, redirect: 'manual' })
    : await fetch(as.url(`/authorize?${params}`), { redirect: 'manual' });
  const location = response.headers.get('location');
  return location === null ? response : new URL(location);
}

async function codeOf(as: McpAuthServer, query: Record<string, string>, form = false): Promise<string> {
  const to = await visit(as, query, form);
  if (to instanceof Response) throw new Error(`no redirect: ${await to.text()}`);
  return to.searchParams.get('code') as string;
}

const redeeming = (code: string) => ({
  grant_type: 'authorization_code',
  code,
  code_verifier: VERIFIER,
  redirect_uri: CALLBACK,
});

async function pushed({ as, post }: Parties, by?: Instance): Promise<string> {
  const { client_id: _, ...request } = AUTHORIZATION;
  const { status, body } = await post('/par', request, by);
  expect(status).toBe(201);
  return codeOf(as, { client_id: CLIENT, request_uri: body.request_uri as string });
}

async function signIn(parties: Parties): Promise<Record<string, string>> {
  const { status, body } = await parties.post('/token', redeeming(await codeOf(parties.as, AUTHORIZATION)));
  expect({ status, body }).toMatchObject({ status: 200, body: { token_type: 'bearer' } });
  return body as Record<string, string>;
}

const refreshing = (refresh_token: string) => ({ grant_type: 'refresh_token', refresh_token });

describe('metadata', () => {
  const read = async (as: McpAuthServer) =>
    (await (await fetch(as.url('/.well-known/oauth-authorization-server'))).json()) as Record<string, unknown>;

  test('META-1, META-2, META-3: names methods, algorithms and endpoints, and only what is accepted', async () => {
    const { as } = await start();
    const document = await read(as);
    const methods = ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'];
    expect(document).toMatchObject({
      issuer: as.issuer,
      token_endpoint: as.url('/token'),
      token_endpoint_auth_methods_supported: methods,
      revocation_endpoint_auth_methods_supported: methods,
      client_attestation_pop_methods_supported: ['attestation_pop_jwt', 'dpop_combined'],
      challenge_endpoint: as.url('/attestation-challenge'),
      pushed_authorization_request_endpoint: as.url('/par'),
      require_pushed_authorization_requests: false,
    });
    expect(document.client_attestation_signing_alg_values_supported).toContain('ES256');
  });

  test('META-3: the usual methods stay where the attestation may be left out', async () => {
    const { as } = await start({ policy: { popMethods: ['attestation_pop_jwt', 'none'] } });
    expect(await read(as)).toMatchObject({
      token_endpoint_auth_methods_supported: ['attest_jwt_client_auth', 'client_secret_post', 'none'],
      client_attestation_pop_methods_supported: ['attestation_pop_jwt', 'none'],
    });
  });

  test('CHA-1: a challenge for POST, nothing for GET', async () => {
    const { as } = await start();
    const answer = await fetch(as.url('/attestation-challenge'), { method: 'POST' });
    expect(answer.headers.get('cache-control')).toBe('no-store');
    expect(await answer.json()).toEqual({ attestation_challenge: expect.any(String) });
    expect((await fetch(as.url('/attestation-challenge'))).status).toBe(405);
  });
});

describe.each(['pop', 'dpop'] as const)('authentication, %s', (mode) => {
  test('VER-3: an attested client redeems, refreshes and revokes; the answers bring the next challenge', async () => {
    const parties = await start({}, mode);
    const { as, post, owner } = parties;
    const tokens = await signIn(parties);
    expect(as.accessTokens.get(tokens.access_token as string)).toEqual({
      clientId: CLIENT,
      instance: owner.world.instance.thumbprint,
    });
    const next = await post('/token', refreshing(tokens.refresh_token as string));
    expect(next.status).toBe(200);
    expect(as.refreshTokens.size).toBe(1);
    const revoked = await post('/revoke', { token: next.body.refresh_token as string });
    expect(revoked.status).toBe(200);
    expect(as.refreshTokens.size).toBe(0);
    expect(as.refusals).toEqual([]);
  });

  test('VER-6: client_id may be there, and is then the attested one', async () => {
    const parties = await start({}, mode);
    const code = await codeOf(parties.as, AUTHORIZATION);
    const wrong = await parties.post('/token', { ...redeeming(code), client_id: 'public' });
    expect(wrong).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
    expect(await parties.post('/token', { ...redeeming(code), client_id: CLIENT })).toMatchObject({ status: 200 });
  });
});

test.each(['/attestation-challenge', '/par', '/token', '/revoke'])('CHA-1: a client in a browser: %s', async (path) => {
  const { as, owner } = await start();
  const sent = ['content-type', 'oauth-client-attestation', 'oauth-client-attestation-pop', 'dpop'];
  const asked = await fetch(as.url(path), {
    method: 'OPTIONS',
    headers: {
      Origin: 'https://page.example',
      'Access-Control-Request-Method': 'POST',
      'Access-Control-Request-Headers': sent.join(','),
    },
  });
  expect([asked.status, asked.headers.get('access-control-allow-origin')]).toEqual([204, '*']);
  expect(asked.headers.get('access-control-allow-methods')).toContain('POST');
  const allowed = asked.headers.get('access-control-allow-headers')?.toLowerCase().split(/, */);
  expect(allowed).toEqual(expect.arrayContaining(sent));
  expect(asked.headers.has('access-control-allow-credentials')).toBe(false);

  for (const headers of [await owner.headers(), {}]) {
    const body = new URLSearchParams(redeeming('code'));
    const answer = await fetch(as.url(path), { method: 'POST', headers, body });
    expect(answer.headers.get('access-control-allow-origin')).toBe('*');
    expect(answer.headers.get('access-control-expose-headers')).toContain('OAuth-Client-Attestation-Challenge');
  }
});

describe('a client that must attest is let past in no other way', () => {
  const basic = (user: string) => ({ Authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` });
  const rows: [string, Record<string, string>, Record<string, string>, string][] = [
    ['without an attestation', { client_id: CLIENT }, {}, 'invalid_client_attestation'],
    ['with a secret', { client_id: CLIENT, client_secret: 's' }, {}, 'invalid_client_attestation'],
    ['by Basic', {}, basic(CLIENT), 'invalid_client_attestation'],
    ['by Basic, percent-encoded', {}, basic('agent%2D1'), 'invalid_client_attestation'],
    ['under two names', { client_id: CLIENT, 'client_id[]': 'public' }, {}, 'invalid_request'],
    [
      'by an assertion',
      { client_assertion: `e30.${Buffer.from(JSON.stringify({ sub: CLIENT })).toString('base64url')}.x` },
      {},
      'invalid_client_attestation',
    ],
  ];
  test.each(rows)('VER-1: %s', async (_, form, headers, error) => {
    const parties = await start({ policy: { popMethods: ['attestation_pop_jwt', 'none'] } });
    const code = await codeOf(parties.as, AUTHORIZATION);
    const answer = await parties.post('/token', { ...redeeming(code), ...form }, null, headers);
    expect(answer).toMatchObject({ status: 400, body: { error } });
    expect(parties.as.calls).toEqual([]);
    // and nothing was used up
    expect(await parties.post('/token', redeeming(code))).toMatchObject({ status: 200 });
  });

  test.each(['/token/', '//token', '/TOKEN', '/%74oken', '/x/../token', '/token?x=y'])('VER-1: at %s', async (path) => {
    const parties = await start({ policy: { popMethods: ['attestation_pop_jwt', 'none'] } });
    const code = await codeOf(parties.as, AUTHORIZATION);
    const answer = await parties.post(path, { ...redeeming(code), client_id: CLIENT }, null);
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
  });

  test('VER-1: by JSON that a parser of the app has read', async () => {
    const before = (app: express.Express) => void app.use(express.json());
    const parties = await start({ before, policy: { popMethods: ['attestation_pop_jwt', 'none'] } });
    const code = await codeOf(parties.as, AUTHORIZATION);
    const ask = async (body: object) => {
      const headers = { 'Content-Type': 'application/json' };
      const response = await fetch(parties.as.url('/token'), { method: 'POST', headers, body: JSON.stringify(body) });
      return ((await response.json()) as { error: string }).error;
    };
    expect(await ask({ ...redeeming(code), client_id: CLIENT })).toBe('invalid_client_attestation');
    expect(await ask({ ...redeeming(code), client_id: [CLIENT, 'x'] })).toBe('invalid_request');
    expect(await ask({ ...redeeming(code), client_id: { $ne: '' } })).toBe('invalid_request');
  });

  test('a body that a parser of the app has read is judged all the same', async () => {
    const parties = await start({ before: (app) => void app.use(express.urlencoded({ extended: true })) });
    await signIn(parties);
  });

  // as the parsers of Express 4 do for a body that is not theirs
  const emptied = (app: express.Express) =>
    void app.use((request, _, next) => {
      request.body = {};
      next();
    });

  test('VER-1, BIND-2: behind middleware that leaves an empty body on requests that it has not read', async () => {
    const open = await start({ before: emptied, policy: { popMethods: ['attestation_pop_jwt', 'none'] } });
    const code = await codeOf(open.as, AUTHORIZATION);
    expect(await open.post('/token', { client_id: CLIENT, ...redeeming(code) }, null)).toMatchObject({
      status: 400,
      body: { error: 'invalid_client_attestation' },
    });

    const parties = await start({ before: emptied });
    const bound = await pushed(parties);
    expect(await parties.post('/token', redeeming(bound), parties.other)).toMatchObject({
      status: 400,
      body: { error: 'invalid_grant' },
    });
    expect([open.as.calls, parties.as.calls]).toEqual([[], []]);
    expect(await parties.post('/token', redeeming(bound))).toMatchObject({ status: 200 });
  });

  test('RFC 6749 §2.3: an attestation beside a secret is refused', async () => {
    const parties = await start();
    const code = await codeOf(parties.as, AUTHORIZATION);
    const answer = await parties.post('/token', { ...redeeming(code), client_secret: 'x' });
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_request' } });
  });

  test('META-5: a client that is registered otherwise cannot use an attestation', async () => {
    const { as, post } = await start({ policy: { popMethods: ['attestation_pop_jwt', 'none'] } });
    as.clients.set(CLIENT, { client_id: CLIENT, redirect_uris: [CALLBACK], client_secret: 'secret' });
    const answer = await post('/token', redeeming('code'));
    expect(answer).toMatchObject({ status: 401, body: { error: 'invalid_client' } });
  });

  test('META-3: other clients are served where the policy has none, and refused where it has not', async () => {
    const query = { ...AUTHORIZATION, client_id: 'public' };
    for (const [popMethods, status] of [
      [['attestation_pop_jwt', 'none'], 200],
      [['attestation_pop_jwt'], 400],
    ] as const) {
      const parties = await start({ policy: { popMethods } });
      const form = { ...redeeming(await codeOf(parties.as, query)), client_id: 'public' };
      const answer = await parties.post('/token', form, null);
      expect(answer.status).toBe(status);
      // its refresh tokens are its own affair
      if (status === 200) expect(parties.as.refreshTokens.has(answer.body.refresh_token as string)).toBe(true);
    }
  });

  test.each([
    ['text', { 'Content-Type': 'text/plain' }, 'grant_type=x'],
    ['no UTF-8', { 'Content-Type': 'application/x-www-form-urlencoded' }, new Uint8Array([0xff, 0xfe])],
    ['100 kB', { 'Content-Type': 'application/x-www-form-urlencoded' }, `x=${'y'.repeat(100_000)}`],
  ] as const)('a body of %s is refused', async (_, headers, body) => {
    const { as } = await start();
    const response = await fetch(as.url('/token'), { method: 'POST', headers, body });
    expect([response.status, await response.json()]).toMatchObject([400, { error: 'invalid_request' }]);
  });
});

describe('binding', () => {
  test("BIND-1: another instance's refresh is refused, and burns nothing", async () => {
    const parties = await start();
    const { as, post, other } = parties;
    const { refresh_token } = (await signIn(parties)) as { refresh_token: string };
    expect(as.refreshTokens.has(refresh_token)).toBe(false);
    for (let i = 0; i < 2; i++) {
      expect(await post('/token', refreshing(refresh_token), other)).toMatchObject({
        status: 400,
        body: { error: 'invalid_grant' },
      });
    }
    expect(as.calls).toEqual(['code']);
    expect((await post('/token', refreshing(refresh_token))).status).toBe(200);
  });

  test("BIND-1: the provider's own refresh token is worth nothing to a client", async () => {
    const parties = await start();
    await signIn(parties);
    const [inner] = parties.as.refreshTokens.keys() as unknown as [string];
    expect(await parties.post('/token', refreshing(inner))).toMatchObject({ body: { error: 'invalid_grant' } });
  });

  test('BIND-1: another instance revokes nothing, and is told nothing', async () => {
    const parties = await start();
    const { refresh_token } = (await signIn(parties)) as { refresh_token: string };
    const answer = await parties.post('/revoke', { token: refresh_token }, parties.other);
    expect(answer).toMatchObject({ status: 200, body: {} });
    expect((await parties.post('/token', refreshing(refresh_token))).status).toBe(200);
  });

  test('BIND-1: a restart with the same keys keeps the refresh tokens good', async () => {
    const first = await start();
    const { refresh_token } = (await signIn(first)) as { refresh_token: string };
    const signer = first.owner.world.attester;
    const second = await startMcpAuthServer({ trust: jwks({ keys: [signer.publicJwk] }) });
    second.clients.set(CLIENT, first.as.clients.get(CLIENT)!);
    for (const [token, clientId] of first.as.refreshTokens) second.refreshTokens.set(token, clientId);
    const { world } = first.owner;
    const sent = createWorld({
      attester: signer,
      instance: world.instance,
      audience: second.issuer,
      startAt: Date.now(),
    });
    const challenge = (await (await fetch(second.url('/attestation-challenge'), { method: 'POST' })).json()) as {
      attestation_challenge: string;
    };
    const response = await fetch(second.url('/token'), {
      method: 'POST',
      headers: {
        'OAuth-Client-Attestation': await sent.attestation({ payload: { sub: CLIENT } }),
        'OAuth-Client-Attestation-PoP': await sent.pop({ payload: { challenge: challenge.attestation_challenge } }),
      },
      body: new URLSearchParams(refreshing(refresh_token)),
    });
    expect(response.status).toBe(200);
  });

  test("BIND-2: a pushed request's code is refused to another instance, and stays good for its owner", async () => {
    const parties = await start();
    const code = await pushed(parties);
    for (let i = 0; i < 2; i++) {
      expect(await parties.post('/token', redeeming(code), parties.other)).toMatchObject({
        status: 400,
        body: { error: 'invalid_grant' },
      });
    }
    expect(parties.as.calls).toEqual([]);
    expect((await parties.post('/token', redeeming(code))).status).toBe(200);
  });

  test('BIND-2: a pushed request is used once, by its client, also by POST', async () => {
    const parties = await start();
    const { as, post } = parties;
    const { client_id: _, ...request } = AUTHORIZATION;
    const { body } = await post('/par', request);
    const request_uri = body.request_uri as string;
    const strange = (await visit(as, { client_id: 'public', request_uri })) as Response;
    expect([strange.status, await strange.json()]).toMatchObject([400, { error: 'invalid_request' }]);
    expect(await codeOf(as, { client_id: CLIENT, request_uri }, true)).toEqual(expect.any(String));
    const again = (await visit(as, { client_id: CLIENT, request_uri })) as Response;
    expect(again.status).toBe(400);
  });

  test('BIND-2: what stands beside the request_uri is not looked at', async () => {
    const { as, post } = await start();
    const { client_id: _, ...request } = AUTHORIZATION;
    const { body } = await post('/par', request);
    await codeOf(as, {
      client_id: CLIENT,
      request_uri: body.request_uri as string,
      code_challenge: s256('x'.repeat(43)),
    });
    expect([...as.codes.values()].map(({ challenge }) => challenge)).toEqual([s256(VERIFIER)]);
  });

  test('BIND-2: where requests have to be pushed, no other request and no other code is taken', async () => {
    const parties = await start({ pushed: 'required' });
    const refused = (await visit(parties.as, AUTHORIZATION)) as Response;
    expect([refused.status, await refused.json()]).toMatchObject([400, { error: 'invalid_request' }]);
    parties.as.codes.set('stray', { clientId: CLIENT, challenge: s256('w'.repeat(43)) });
    const stray = { ...redeeming('stray'), code_verifier: 'w'.repeat(43) };
    expect(await parties.post('/token', stray)).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
    expect((await parties.post('/token', redeeming(await pushed(parties)))).status).toBe(200);
  });

  test('BIND-2: nobody but an attested client pushes requests', async () => {
    const { post } = await start({ policy: { popMethods: ['attestation_pop_jwt', 'none'] } });
    const answer = await post('/par', { ...AUTHORIZATION, client_id: 'public' }, null);
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
  });
});

describe('dynamic registration', () => {
  const register = async (as: McpAuthServer, metadata: object) => {
    const headers = { 'Content-Type': 'application/json' };
    const body = JSON.stringify({ redirect_uris: [CALLBACK], ...metadata });
    const response = await fetch(as.url('/register'), { method: 'POST', headers, body });
    return { status: response.status, body: (await response.json()) as Record<string, string> };
  };

  test.each(['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'])(
    'META-5: a client of %s gets no secret, and needs none',
    async (token_endpoint_auth_method) => {
      const { as } = await start();
      const { status, body } = await register(as, { token_endpoint_auth_method });
      expect(status).toBe(201);
      expect(body).toMatchObject({ client_id: expect.any(String), token_endpoint_auth_method });
      expect(Object.keys(body).filter((name) => name.startsWith('client_secret'))).toEqual([]);
      const kept = as.clients.get(body.client_id as string);
      expect(kept).not.toHaveProperty('client_secret');
    },
  );

  test('META-5: it then redeems its code by attestation; the secret of an older registration is not asked for', async () => {
    const parties = await start();
    const { as, post } = parties;
    as.clients.set(CLIENT, { ...as.clients.get(CLIENT)!, client_secret: randomBytes(32).toString('hex') });
    expect((await post('/token', redeeming(await codeOf(as, AUTHORIZATION)))).status).toBe(200);
  });

  test('META-5: other methods are refused where every client has to attest, and get their secret where not', async () => {
    const strict = await start();
    for (const metadata of [{}, { token_endpoint_auth_method: 'none' }]) {
      const answer = await register(strict.as, metadata);
      expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_client_metadata' } });
    }
    const open = await start({ policy: { popMethods: ['attestation_pop_jwt', 'none'] } });
    const answer = await register(open.as, {});
    expect(answer).toMatchObject({ status: 201, body: { client_secret: expect.any(String) } });
  });
});

test('POP-2: a verifier whose audience is not the issuer as the SDK writes it is refused at once', async () => {
  const make = (audience: string, role: 'as' | 'rs' = 'as') =>
    attestedAuthRouter(
      mcpAuthRouter,
      { provider: { clientsStore: { getClient: () => undefined } } as never, issuerUrl: new URL('https://as.example') },
      {
        verifier: createVerifier({ role, audience, trust: jwks({ keys: [newSigner().publicJwk] }) }),
        keys: ['k'.repeat(32)],
      },
    );
  await expectRefusal(() => make('https://as.example'), { code: 'invalid_argument', rule: 'POP-2' });
  await expectRefusal(() => make('https://as.example/', 'rs'), { code: 'invalid_argument' });
  expect(make('https://as.example/')).toBeTypeOf('function');
});
