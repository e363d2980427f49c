/** better-auth's OAuth provider behind our front: the packages themselves, on SQLite in memory. */
import { createHash } from 'node:crypto';
import { DatabaseSync } from 'node:sqlite';
import { oauthProvider } from '@better-auth/oauth-provider';
import { attestationExtension, attestedAuthHandler, type FrontOptions } from 'attested/integrations/better-auth';
import { createVerifier, jwks } from 'attested/verifier';
import { betterAuth } from 'better-auth';
import { getMigrations } from 'better-auth/db/migration';
import { jwt } from 'better-auth/plugins';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { newSigner } from '../../test/support/tokens.ts';
import { createWorld, type World } from '../../test/support/world.ts';

const ORIGIN = 'https://as.example';
const ISSUER = `${ORIGIN}/api/auth`;
const CALLBACK = 'https://agent.example/callback';
const VERIFIER = 'v'.repeat(43);
const CHALLENGE = createHash('sha256').update(VERIFIER).digest('base64url');
const METHOD = { token_endpoint_auth_method: 'attest_jwt_client_auth' };

interface Answer {
  status: number;
  body: Record<string, string>;
}

async function start(options: Partial<FrontOptions> = {}, open = false) {
  const database = new DatabaseSync(':memory:');
  onTestFinished(() => database.close());
  const auth = betterAuth({
    baseURL: ORIGIN,
    secret: 's'.repeat(32),
    database,
    emailAndPassword: { enabled: true },
    rateLimit: { enabled: false },
    telemetry: { enabled: false },
    logger: { disabled: true },
    plugins: [
      jwt(),
      oauthProvider({
        loginPage: '/login',
        consentPage: '/consent',
        scopes: ['openid', 'offline_access', 'mcp'],
        allowDynamicClientRegistration: true,
        allowUnauthenticatedClientRegistration: true,
        extensions: [attestationExtension()] as never,
        silenceWarnings: { oauthAuthServerConfig: true },
      }) as never,
    ],
  });
  await (await getMigrations(auth.options)).runMigrations();
  const attester = newSigner('ES256', 'attester-1');
  const verifier = createVerifier({
    role: 'as',
    audience: ISSUER,
    trust: jwks({ keys: [attester.publicJwk] }),
    policy: { popMethods: ['attestation_pop_jwt', 'dpop_combined', ...(open ? (['none'] as const) : [])] },
  });
  const handler = attestedAuthHandler(auth as never, { verifier, keys: ['k'.repeat(32)], ...options });
  const fetch = (path: string, init?: RequestInit) => handler(new Request(ORIGIN + path, init));
  const json = (path: string, body: object, headers: Record<string, string> = {}) =>
    fetch(`/api/auth${path}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', origin: ORIGIN, ...headers },
      body: JSON.stringify(body),
    });
  const signedUp = await json('/sign-up/email', {
    email: 'alice@example.com',
    password: 'p'.repeat(12),
    name: 'Alice',
  });
  const cookie = signedUp.headers
    .getSetCookie()
    .map((line) => line.split(';', 1)[0])
    .join('; ');

  async function register(metadata: object): Promise<Answer> {
    const scope = 'offline_access mcp';
    const response = await json('/oauth2/register', { redirect_uris: [CALLBACK], scope, ...metadata });
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  }
  async function post(path: string, form: Record<string, string>, by?: World, clientId?: string): Promise<Answer> {
    const headers: Record<string, string> = {};
    if (by !== undefined) {
      const answer = await fetch('/api/auth/attestation-challenge', { method: 'POST' });
      const { attestation_challenge: challenge } = (await answer.json()) as { attestation_challenge: string };
      headers['OAuth-Client-Attestation'] = await by.attestation({ payload: { sub: clientId as string } });
      headers['OAuth-Client-Attestation-PoP'] = await by.pop({ payload: { challenge } });
    }
    const response = await fetch(`/api/auth${path}`, { method: 'POST', headers, body: new URLSearchParams(form) });
    return { status: response.status, body: (await response.json().catch(() => ({}))) as Answer['body'] };
  }
  /** A person who is signed in and agrees. */
  async function codeOf(query: Record<string, string>): Promise<string> {
    const page = await fetch(`/api/auth/oauth2/authorize?${new URLSearchParams(query)}`, { headers: { cookie } });
    const consent = new URL(page.headers.get('location') as string, ORIGIN);
    // agreed before
    if (consent.href.startsWith(CALLBACK)) return consent.searchParams.get('code') as string;
    const asked = { accept: true, oauth_query: consent.search.slice(1) };
    const answer = (await (await json('/oauth2/consent', asked, { cookie })).json()) as Record<string, string>;
    return new URL((answer.url ?? answer.redirect_uri) as string).searchParams.get('code') as string;
  }
  const instance = () => createWorld({ attester, audience: ISSUER, startAt: Date.now() });
  return { auth, fetch, register, post, codeOf, instance };
}

const authorization = (client_id: string) => ({
  response_type: 'code',
  client_id,
  redirect_uri: CALLBACK,
  scope: 'offline_access mcp',
  state: 'xyz',
  code_challenge: CHALLENGE,
  code_challenge_method: 'S256',
});
const redeeming = (code: string) => ({
  grant_type: 'authorization_code',
  code,
  code_verifier: VERIFIER,
  redirect_uri: CALLBACK,
});

test.each(['/.well-known/oauth-authorization-server/api/auth', '/api/auth/.well-known/openid-configuration'])(
  'META-1, META-2: the metadata document names our methods and endpoints: %s',
  async (path) => {
    const { fetch } = await start();
    const response = await fetch(path);
    expect(await response.json()).toMatchObject({
      issuer: ISSUER,
      token_endpoint: `${ISSUER}/oauth2/token`,
      token_endpoint_auth_methods_supported: ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'],
      challenge_endpoint: `${ISSUER}/attestation-challenge`,
      pushed_authorization_request_endpoint: `${ISSUER}/par`,
    });
  },
);

describe('a client that registered for attestation', () => {
  async function signedIn(open = false) {
    const parties = await start({}, open);
    const registered = await parties.register(METHOD);
    expect(registered).toMatchObject({ status: 201, body: METHOD });
    expect(registered.body).not.toHaveProperty('client_secret');
    const clientId = registered.body.client_id as string;
    return { ...parties, clientId, owner: parties.instance(), other: parties.instance() };
  }

  test("BIND-1, VER-3: redeems, refreshes and revokes; another instance's attempts burn nothing", async () => {
    const { post, codeOf, clientId, owner, other } = await signedIn();
    const tokens = await post('/oauth2/token', redeeming(await codeOf(authorization(clientId))), owner, clientId);
    expect(tokens).toMatchObject({ status: 200, body: { token_type: 'Bearer' } });
    const refreshing = { grant_type: 'refresh_token', refresh_token: tokens.body.refresh_token as string };
    for (let i = 0; i < 2; i++) {
      const refused = await post('/oauth2/token', refreshing, other, clientId);
      expect(refused).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
    }
    const next = await post('/oauth2/token', refreshing, owner, clientId);
    expect(next.status).toBe(200);
    const token = next.body.refresh_token as string;
    const known = await post('/oauth2/introspect', { token, token_type_hint: 'refresh_token' }, owner, clientId);
    expect(known).toMatchObject({ status: 200, body: { active: true } });
    expect((await post('/oauth2/introspect', { token }, other, clientId)).body).toEqual({ active: false });
    expect((await post('/oauth2/revoke', { token }, other, clientId)).status).toBe(200);
    const again = { grant_type: 'refresh_token', refresh_token: token };
    const last = await post('/oauth2/token', again, owner, clientId);
    expect(last.status).toBe(200);
    const ended = last.body.refresh_token as string;
    const hint = { token: ended, token_type_hint: 'refresh_token' };
    expect((await post('/oauth2/revoke', hint, owner, clientId)).status).toBe(200);
    const gone = await post('/oauth2/token', { ...again, refresh_token: ended }, owner, clientId);
    expect(gone.status).toBe(400);
  });

  test("BIND-2: a pushed request's code is its instance's", async () => {
    const { post, codeOf, clientId, owner, other } = await signedIn();
    const { client_id: _, ...request } = authorization(clientId);
    const pushed = await post('/par', request, owner, clientId);
    expect(pushed.status).toBe(201);
    const code = await codeOf({ client_id: clientId, request_uri: pushed.body.request_uri as string });
    const stolen = await post('/oauth2/token', redeeming(code), other, clientId);
    expect(stolen).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
    expect((await post('/oauth2/token', redeeming(code), owner, clientId)).status).toBe(200);
  });

  test.each([
    ['as a public one', {}],
    ['with a secret', { client_secret: 's' }],
    [
      'with what we put in ourselves',
      {
        client_assertion: 'attested',
        client_assertion_type: 'urn:attested:client-authentication:attest_jwt_client_auth',
      },
    ],
  ])('VER-1: is not let past %s, nor around the front', async (_, form) => {
    const { auth, post, codeOf, clientId, owner } = await signedIn(true);
    const code = await codeOf(authorization(clientId));
    const all = { ...redeeming(code), client_id: clientId, ...form };
    expect(await post('/oauth2/token', all)).toMatchObject({
      status: 400,
      body: { error: 'invalid_client_attestation' },
    });
    expect((await post('/oauth2/token', redeeming(code), owner, clientId)).status).toBe(200);
    // somebody mounted `auth.handler` as well: better-auth uses the code up, but gives nothing for it
    const quiet = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    onTestFinished(() => quiet.mockRestore());
    const body = new URLSearchParams({ ...all, code: await codeOf(authorization(clientId)) });
    const answer = await auth.handler(new Request(`${ISSUER}/oauth2/token`, { method: 'POST', body }));
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(await answer.text()).not.toContain('access_token');
  });
});

test('DPOP-3, BIND-1: in combined mode the proof authenticates, and better-auth binds the token to the same key', async () => {
  const { fetch, register, codeOf, instance } = await start();
  const { body } = await register({ token_endpoint_auth_method: 'attest_jwt_client_auth_dpop' });
  const owner = instance();
  const nonce = (await fetch('/api/auth/attestation-challenge', { method: 'POST' })).headers.get(
    'dpop-nonce',
  ) as string;
  const path = '/api/auth/oauth2/token';
  const response = await fetch(path, {
    method: 'POST',
    headers: {
      'OAuth-Client-Attestation': await owner.attestation({ payload: { sub: body.client_id as string } }),
      DPoP: await owner.dpop({ payload: { nonce, htu: ORIGIN + path } }),
    },
    body: new URLSearchParams(redeeming(await codeOf(authorization(body.client_id as string)))),
  });
  expect([response.status, await response.json()]).toMatchObject([200, { token_type: 'DPoP' }]);
});
