/** An attester, an agent and real servers on this machine, for the agent's tests. */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import Provider, { type Configuration } from 'oidc-provider';
import { onTestFinished } from 'vitest';
import { type Agent, type AgentOptions, type AgentWarning, createAgent } from '../../src/agent/index.ts';
import { type Attester, type AttesterOptions, createAttester } from '../../src/attester/index.ts';
import type { Signer } from '../../src/core/signer.ts';
import { type KeyProvider, openKeys } from '../../src/keys/index.ts';
import type { FetchLike } from '../../src/platform/http.ts';
import { decode, newSigner } from '../support/tokens.ts';

export const CLIENT_ID = 'https://agent.example/client';
export const ATTESTER = 'https://attester.example';

export const attesterSigner: Signer = newSigner('ES256', 'attester-key');

export interface TestAttester extends Attester {
  /** Every request that reached it: path and parsed body. */
  seen: { path: string; body: Record<string, unknown> }[];
  /** Answers instead of the real one while it is set. */
  outage: ((request: Request) => Response | Promise<Response>) | undefined;
}

export function newAttester(options: Partial<AttesterOptions> & { lifetime?: number } = {}): TestAttester {
  const { lifetime = 3600, ...rest } = options;
  const attester = createAttester({
    issuer: ATTESTER,
    signer: attesterSigner,
    policy: { clients: { [CLIENT_ID]: { lifetime, enrolment: { allow: 'any', tokens: true } } } },
    ...rest,
  });
  const test: TestAttester = {
    ...attester,
    seen: [],
    outage: undefined,
    async handler(request) {
      const body = (await request.clone().json()) as Record<string, unknown>;
      test.seen.push({ path: new URL(request.url).pathname, body });
      return test.outage === undefined ? attester.handler(request) : test.outage(request);
    },
  };
  return test;
}

export interface TestAgent {
  agent: Agent;
  attester: TestAttester;
  keys: KeyProvider;
  warnings: AgentWarning[];
  /** Milliseconds since the epoch, added to the real clock. */
  clock: { offset: number };
}

export async function newAgent(
  options: Partial<Omit<AgentOptions, 'attester' | 'now'>> & { attester?: TestAttester; lifetime?: number } = {},
): Promise<TestAgent> {
  const clock = { offset: 0 };
  const now = () => Date.now() + clock.offset;
  const { lifetime = 3600, attester = newAttester({ lifetime, now }), ...rest } = options;
  const keys = rest.keys ?? (await openKeys('software'));
  const warnings: AgentWarning[] = [];
  // tests call the hooks as an MCP client does after it has read metadata, which here nobody reads through the agent's fetch
  const onWarning = (warning: AgentWarning) => void (warning.code === 'fetch_unused' || warnings.push(warning));
  const agent = await createAgent({ clientId: CLIENT_ID, onWarning, timeout: 1000, ...rest, keys, attester, now });
  onTestFinished(() => agent.close()); // it may be writing its state
  return { agent, attester, keys, warnings, clock };
}

/** One request as a server saw it. */
export interface Seen {
  method: string;
  path: string;
  headers: Record<string, string | undefined>;
  body: string;
}

export interface LoopbackServer {
  origin: string;
  seen: Seen[];
}

export type Handler = (request: Seen, response: ServerResponse) => unknown;

/** A server that records what reaches it, and is closed when the test ends. */
export async function listen(handlerAt: (origin: string) => Handler): Promise<LoopbackServer> {
  const seen: Seen[] = [];
  let handle: Handler | undefined;
  const server = createServer(async (request, response) => {
    response.on('error', () => undefined);
    const one = await record(request);
    seen.push(one);
    await handle?.(one, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  handle = handlerAt(origin);
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { origin, seen };
}

async function record(request: IncomingMessage): Promise<Seen> {
  let body = '';
  for await (const chunk of request) body += chunk;
  const headers = request.headers as Record<string, string | undefined>;
  return { method: request.method ?? '', path: request.url ?? '', headers, body };
}

export function json(
  response: ServerResponse,
  body: unknown,
  status = 200,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

export interface TestAs extends LoopbackServer {
  provider: Provider;
  issuer: string;
}

/** node-oidc-provider as the authorization server: an implementation of the draft that is not ours. */
export async function startAs(
  options: {
    method?: 'attest_jwt_client_auth' | 'attest_jwt_client_auth_dpop';
    requireNonce?: boolean;
    features?: Configuration['features'];
  } = {},
): Promise<TestAs> {
  const { method = 'attest_jwt_client_auth', requireNonce = false } = options;
  const seen: Seen[] = [];
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { crv, kty, x, y } = attesterSigner.publicJwk;
  const publicKey = await crypto.subtle.importKey(
    'jwk',
    { crv, kty, x, y } as never,
    { name: 'ECDSA', namedCurve: 'P-256' },
    true,
    ['verify'],
  );
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT_ID,
        token_endpoint_auth_method: method as never,
        grant_types: ['client_credentials', 'authorization_code', 'refresh_token'],
        redirect_uris: ['https://agent.example/callback'],
        response_types: ['code'],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    clientAuthMethods: ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'] as never,
    scopes: ['openid', 'offline_access', 'read'],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
      pushedAuthorizationRequests: { enabled: true },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => requireNonce },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => [] as never,
        getResourceServerInfo: (_ctx: unknown, resource: string) => ({
          scope: 'read',
          audience: resource,
          accessTokenTTL: 600,
          accessTokenFormat: 'opaque',
        }),
        useGrantedResource: () => true,
      },
      attestClientAuth: {
        enabled: true,
        ack: 'draft-12',
        challengeSecret: randomBytes(32),
        getAttestationSignaturePublicKey: async () => publicKey,
      },
      ...options.features,
    } as never,
    jwks: { keys: [await testSigningKey()] } as never,
    cookies: { keys: [randomBytes(16).toString('hex')] },
  });
  provider.on('server_error', (_ctx, error) => console.error(error));
  const callback = provider.callback();
  server.on('request', (request, response) => {
    const { method: verb = '', url = '', headers } = request;
    const one: Seen = { method: verb, path: url, headers: headers as Seen['headers'], body: '' };
    seen.push(one);
    request.on('data', (chunk) => {
      one.body += chunk;
    });
    void callback(request, response);
  });
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { origin: issuer, issuer, provider, seen };
}

async function testSigningKey(): Promise<object> {
  const { generatePrivateKey } = await import('../../src/platform/crypto.ts');
  return { ...generatePrivateKey('ES256').export({ format: 'jwk' }), alg: 'ES256', use: 'sig' };
}

/** A token request as the MCP SDKs make it: headers and form go through the hook, then to fetch. */
export async function tokenRequest(
  agent: Agent,
  issuer: string,
  params: Record<string, string> = {},
  options: { fetch?: FetchLike; url?: string; headers?: Record<string, string> } = {},
): Promise<Response> {
  const url = options.url ?? `${issuer}/token`;
  const headers = new Headers({ 'content-type': 'application/x-www-form-urlencoded', ...options.headers });
  const form = new URLSearchParams({ grant_type: 'client_credentials', ...params });
  const { addClientAuthentication } = agent;
  await addClientAuthentication(headers, form, url, { issuer });
  return (options.fetch ?? agent.fetch)(url, { method: 'POST', headers, body: form });
}

/** What a request says about its client: header and payload of its tokens. */
export function shown(seen: Seen): {
  attestation: Record<string, unknown> | undefined;
  pop: Record<string, unknown> | undefined;
  dpop: Record<string, unknown> | undefined;
  /** The `x` of the instance key. */
  key: unknown;
} {
  const read = (name: string) => {
    const value = seen.headers[name];
    return value === undefined ? undefined : decode(value).payload;
  };
  const attestation = read('oauth-client-attestation');
  const cnf = attestation?.cnf as { jwk: { x: unknown } } | undefined;
  return { attestation, pop: read('oauth-client-attestation-pop'), dpop: read('dpop'), key: cnf?.jwk.x };
}

/** An authorization server that says and does what the test wants. */
export async function startFakeAs(
  answer: Handler,
  metadata: (origin: string) => Record<string, unknown> = () => ({}),
): Promise<LoopbackServer & { issuer: string }> {
  const server = await listen((origin: string) => (request, response) => {
    if (request.path !== '/.well-known/oauth-authorization-server') return answer(request, response);
    return json(response, {
      issuer: origin,
      token_endpoint: `${origin}/token`,
      token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
      ...metadata(origin),
    });
  });
  return { ...server, issuer: server.origin };
}

/** A protected resource: metadata at the well-known place, `answer` for everything else. */
export async function startFakeRs(
  answer: (origin: string) => Handler,
  metadata: (origin: string) => Record<string, unknown> = () => ({}),
): Promise<LoopbackServer & { resource: string; metadataUrl: string }> {
  const server = await listen((origin: string) => (request, response) => {
    if (request.path !== '/.well-known/oauth-protected-resource/mcp') return answer(origin)(request, response);
    return json(response, {
      resource: `${origin}/mcp`,
      client_attestation_pop_methods_supported: ['attestation_pop_jwt', 'dpop_combined'],
      ...metadata(origin),
    });
  });
  const metadataUrl = `${server.origin}/.well-known/oauth-protected-resource/mcp`;
  return { ...server, resource: `${server.origin}/mcp`, metadataUrl };
}

export const asked = (server: LoopbackServer, path: string): Seen[] => server.seen.filter((one) => one.path === path);
