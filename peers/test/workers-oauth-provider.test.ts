/** Cloudflare's OAuth provider behind our front: the package itself, with a KV namespace in memory. */
import { createHash } from 'node:crypto';
import { registerHooks } from 'node:module';
import type { OAuthHelpers } from '@cloudflare/workers-oauth-provider';
import {
  attestedClient,
  attestedOAuthProvider,
  type KvNamespace,
  type WorkersOAuthOptions,
} from 'attested/integrations/workers-oauth-provider';
import { createVerifier, jwks } from 'attested/verifier';
import { describe, expect, test } from 'vitest';
import { newSigner } from '../../test/support/tokens.ts';
import { createWorld, type World } from '../../test/support/world.ts';

// The package asks the Workers runtime for one base class, to tell handlers of two kinds apart. Node has no such module.
const runtime = 'export class WorkerEntrypoint { constructor(ctx, env) { this.ctx = ctx; this.env = env; } }';
registerHooks({
  resolve: (specifier, context, next) =>
    specifier === 'cloudflare:workers'
      ? { url: `data:text/javascript,${encodeURIComponent(runtime)}`, shortCircuit: true }
      : next(specifier, context),
});
const { default: OAuthProvider } = await import('@cloudflare/workers-oauth-provider');

const ORIGIN = 'https://as.example';
const CALLBACK = 'https://agent.example/callback';
const VERIFIER = 'v'.repeat(43);
const CHALLENGE = createHash('sha256').update(VERIFIER).digest('base64url');

/** As much of a KV namespace as the provider uses. */
function memoryKv() {
  const entries = new Map<string, string>();
  return {
    entries,
    async get(key: string, options?: { type?: string } | string) {
      const text = entries.get(key) ?? null;
      const type = typeof options === 'string' ? options : options?.type;
      return text !== null && type === 'json' ? JSON.parse(text) : text;
    },
    async put(key: string, value: string) {
      entries.set(key, value);
    },
    async delete(key: string) {
      entries.delete(key);
    },
    async list({ prefix = '' }: { prefix?: string } = {}) {
      const keys = [...entries.keys()].filter((name) => name.startsWith(prefix)).map((name) => ({ name }));
      return { keys, list_complete: true };
    },
  };
}

interface Env {
  OAUTH_KV: KvNamespace;
  OAUTH_PROVIDER: OAuthHelpers;
}

interface Answer {
  status: number;
  body: Record<string, string>;
}

async function start(options: Partial<WorkersOAuthOptions> = {}, open = false) {
  const attester = newSigner('ES256', 'attester-1');
  const kv = memoryKv();
  const instances: (string | undefined)[] = [];
  const provider = new OAuthProvider({
    apiRoute: '/mcp',
    resourceMetadata: { resource: `${ORIGIN}/mcp` },
    apiHandler: { fetch: async () => Response.json({ hello: 'agent' }) } as never,
    defaultHandler: {
      // a person who agrees at once
      async fetch(request: Request, env: Env) {
        const asked = await env.OAUTH_PROVIDER.parseAuthRequest(request);
        const { redirectTo } = await env.OAUTH_PROVIDER.completeAuthorization({
          request: asked,
          userId: 'alice',
          metadata: {},
          scope: asked.scope,
          props: {},
        });
        return Response.redirect(redirectTo);
      },
    } as never,
    authorizeEndpoint: '/authorize',
    tokenEndpoint: '/token',
    clientRegistrationEndpoint: '/register',
    tokenExchangeCallback: async () => void instances.push(attestedClient()?.thumbprint),
  });
  const verifier = createVerifier({
    role: 'as',
    audience: ORIGIN,
    trust: jwks({ keys: [attester.publicJwk] }),
    policy: { popMethods: ['attestation_pop_jwt', 'dpop_combined', ...(open ? (['none'] as const) : [])] },
  });
  const worker = attestedOAuthProvider<Env>(provider as never, () => ({
    verifier,
    keys: ['k'.repeat(32)],
    ...options,
  }));
  const env = { OAUTH_KV: kv } as never;
  const context = { waitUntil: () => undefined, passThroughOnException: () => undefined };
  const fetch = (path: string, init?: RequestInit) => worker.fetch(new Request(ORIGIN + path, init), env, context);
  const instance = () => createWorld({ attester, audience: ORIGIN, startAt: Date.now() });

  async function register(metadata: object): Promise<Answer> {
    const headers = { 'Content-Type': 'application/json' };
    const body = JSON.stringify({ redirect_uris: [CALLBACK], ...metadata });
    const response = await fetch('/register', { method: 'POST', headers, body });
    return { status: response.status, body: (await response.json()) as Answer['body'] };
  }
  async function post(path: string, form: Record<string, string>, by?: World, clientId?: string): Promise<Answer> {
    const headers: Record<string, string> = {};
    if (by !== undefined) {
      const challenge = (await (await fetch('/attestation-challenge', { method: 'POST' })).json()) as {
        attestation_challenge: string;
      };
      headers['OAuth-Client-Attestation'] = await by.attestation({ payload: { sub: clientId as string } });
      headers['OAuth-Client-Attestation-PoP'] = await by.pop({
        payload: { challenge: challenge.attestation_challenge },
      });
    }
    const response = await fetch(path, { method: 'POST', headers, body: new URLSearchParams(form) });
    return { status: response.status, body: (await response.json().catch(() => ({}))) as Answer['body'] };
  }
  async function codeOf(query: Record<string, string>): Promise<string> {
    const response = await fetch(`/authorize?${new URLSearchParams(query)}`);
    return new URL(response.headers.get('location') as string).searchParams.get('code') as string;
  }
  return { fetch, register, post, codeOf, instance, instances, kv };
}

const authorization = (client_id: string) => ({
  response_type: 'code',
  client_id,
  redirect_uri: CALLBACK,
  code_challenge: CHALLENGE,
  code_challenge_method: 'S256',
});
const redeeming = (code: string) => ({
  grant_type: 'authorization_code',
  code,
  code_verifier: VERIFIER,
  redirect_uri: CALLBACK,
});
const METHOD = { token_endpoint_auth_method: 'attest_jwt_client_auth' };

test('META-1, META-2: the metadata document names our methods and endpoints', async () => {
  const { fetch } = await start();
  const response = await fetch('/.well-known/oauth-authorization-server');
  expect(await response.json()).toMatchObject({
    issuer: ORIGIN,
    token_endpoint: `${ORIGIN}/token`,
    token_endpoint_auth_methods_supported: ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'],
    challenge_endpoint: `${ORIGIN}/attestation-challenge`,
    pushed_authorization_request_endpoint: `${ORIGIN}/par`,
  });
});

test('VER-3, META-5: a client registers, redeems, refreshes and revokes by attestation', async () => {
  const { register, post, codeOf, instance, instances, kv } = await start();
  const { status, body } = await register(METHOD);
  expect([status, body]).toMatchObject([201, METHOD]);
  expect(body).not.toHaveProperty('client_secret');
  const [owner, clientId] = [instance(), body.client_id as string];
  const tokens = await post('/token', redeeming(await codeOf(authorization(clientId))), owner, clientId);
  expect(tokens).toMatchObject({ status: 200, body: { token_type: 'bearer' } });
  const refreshing = { grant_type: 'refresh_token', refresh_token: tokens.body.refresh_token as string };
  const next = await post('/token', refreshing, owner, clientId);
  expect(next.status).toBe(200);
  expect(instances).toEqual([owner.instance.thumbprint, owner.instance.thumbprint]);
  const grants = () => [...kv.entries.keys()].filter((key) => key.startsWith('grant:')).length;
  expect(grants()).toBe(1);
  expect((await post('/token', { token: next.body.refresh_token as string }, owner, clientId)).status).toBe(200);
  expect(grants()).toBe(0);
});

describe('binding', () => {
  async function signedIn() {
    const parties = await start();
    const clientId = (await parties.register(METHOD)).body.client_id as string;
    return { ...parties, clientId, owner: parties.instance(), other: parties.instance() };
  }

  test("BIND-1: another instance's refresh is refused, revokes nothing and burns nothing", async () => {
    const { post, codeOf, clientId, owner, other } = await signedIn();
    const { body } = await post('/token', redeeming(await codeOf(authorization(clientId))), owner, clientId);
    const refresh_token = body.refresh_token as string;
    const refreshing = { grant_type: 'refresh_token', refresh_token };
    for (let i = 0; i < 2; i++) {
      const refused = await post('/token', refreshing, other, clientId);
      expect(refused).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
    }
    expect((await post('/token', { token: refresh_token }, other, clientId)).status).toBe(200);
    expect((await post('/token', refreshing, owner, clientId)).status).toBe(200);
  });

  test("BIND-2: a pushed request's code is its instance's, though the provider takes no pushed requests", async () => {
    const { post, codeOf, clientId, owner, other } = await signedIn();
    const { client_id: _, ...request } = authorization(clientId);
    const pushed = await post('/par', request, owner, clientId);
    expect(pushed.status).toBe(201);
    const code = await codeOf({ client_id: clientId, request_uri: pushed.body.request_uri as string });
    const stolen = await post('/token', redeeming(code), other, clientId);
    expect(stolen).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
    expect((await post('/token', redeeming(code), owner, clientId)).status).toBe(200);
  });
});

test('VER-1: a client that must attest is let past in no other way; others are served where the policy says so', async () => {
  const { register, post, codeOf, instance } = await start({}, true);
  const clientId = (await register(METHOD)).body.client_id as string;
  const code = await codeOf(authorization(clientId));
  for (const form of [{ client_id: clientId }, { client_id: clientId, client_secret: '' }]) {
    const answer = await post('/token', { ...redeeming(code), ...form });
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
  }
  expect((await post('/token', redeeming(code), instance(), clientId)).status).toBe(200);
  const other = await register({ token_endpoint_auth_method: 'none' });
  const form = { ...redeeming(await codeOf(authorization(other.body.client_id as string))), ...other.body };
  const { grant_type, code: theirs, code_verifier, redirect_uri, client_id } = form as Record<string, string>;
  const served = await post('/token', { grant_type, code: theirs, code_verifier, redirect_uri, client_id } as never);
  expect(served.status).toBe(200);
});

test('META-5: where every client has to attest no other registers', async () => {
  const { register } = await start();
  expect(await register({ token_endpoint_auth_method: 'none' })).toMatchObject({
    status: 400,
    body: { error: 'invalid_client_metadata' },
  });
});
