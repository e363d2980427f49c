/** Tokens for a server that may be hostile, from a real authorization server; and an authorization server that is hostile. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Agent, createAgent } from '../../src/agent/index.ts';
import {
  type Authorization,
  type AuthorizationOptions,
  openAuthorization,
} from '../../src/bridge/auth/authorization.ts';
import { discover } from '../../src/bridge/auth/discovery.ts';
import { authorizedFetch } from '../../src/bridge/auth/fetch.ts';
import { type KeyProvider, openKeys } from '../../src/keys/index.ts';
import type { FetchLike } from '../../src/platform/http.ts';
import { CLIENTS } from '../e2e/support/authorization-server.ts';
import { visit } from '../e2e/support/browser.ts';
import { listenForTest, recordTraffic, type Traffic } from '../e2e/support/http.ts';
import { startWorld } from '../e2e/support/world.ts';
import { expectRefusal } from '../support/errors.ts';

interface Reached {
  path: string;
  method: string;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

/** A server that answers as it is told, and remembers what reached it. */
async function stranger(answer: (reached: Reached, response: ServerResponse) => void) {
  const http = await listenForTest();
  const reached: Reached[] = [];
  http.answerWith(async (request, response) => {
    let body = '';
    for await (const chunk of request.setEncoding('utf8') as AsyncIterable<string>) body += chunk;
    const entry = { path: request.url ?? '', method: request.method ?? '', headers: request.headers, body };
    reached.push(entry);
    answer(entry, response);
  });
  return { origin: http.origin, reached };
}

const json = (response: ServerResponse, body: unknown, status = 200) =>
  void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));

interface Hostile {
  /** Authorization servers that its metadata names. */
  servers?: string[];
  metadata?: object;
  challenge?: (origin: string, refusals: number) => string;
  status?: number;
  /** Tokens that it takes; default none. */
  takes?: (authorization: string) => boolean;
}

async function hostileResource({ servers = [], metadata, challenge, status = 401, takes = () => false }: Hostile) {
  let refusals = 0;
  const server = await stranger(({ path, headers }, response) => {
    const resource = `${server.origin}/mcp`;
    if (path.startsWith('/.well-known/')) {
      return json(response, { resource, authorization_servers: servers, scopes_supported: ['mcp'], ...metadata });
    }
    if (takes(String(headers.authorization ?? ''))) return json(response, {});
    const where = `${server.origin}/.well-known/oauth-protected-resource/mcp`;
    const said = challenge?.(server.origin, refusals++) ?? `Bearer resource_metadata="${where}"`;
    response.writeHead(headers.authorization === undefined ? 401 : status, { 'www-authenticate': said }).end();
  });
  return { ...server, url: new URL(`${server.origin}/mcp`) };
}

interface Client {
  fetch: FetchLike;
  agent: Agent;
  keys: KeyProvider;
  authorization: Authorization;
  traffic: Traffic;
  directory: string;
  pages: URL[];
  logs: string[];
}

async function clientOf(
  world: Awaited<ReturnType<typeof startWorld>>,
  server: URL,
  options: Partial<AuthorizationOptions> & { directory?: string } = {},
): Promise<Client> {
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'attested-bridge-')));
  const keys = await openKeys('software', { directory, machineSecret: new Uint8Array(32).fill(7) });
  const traffic = recordTraffic();
  const clientId = CLIENTS.attestation_pop_jwt;
  const agent = await createAgent({
    clientId,
    keys,
    attester: world.attester.issuer,
    enrolmentToken: await world.attester.createEnrolmentToken({ clientId }),
    method: 'attestation_pop_jwt',
    fetch: traffic.fetch,
  });
  const pages: URL[] = [];
  const logs: string[] = [];
  const authorization = openAuthorization({
    agent,
    keys,
    server,
    grant: 'client_credentials',
    scope: undefined,
    issuer: undefined,
    login: {
      show: (page) => {
        pages.push(page);
        void visit(page, 'http://127.0.0.1:0/').catch(() => undefined);
      },
      timeout: 5000,
      port: undefined,
      signal: new AbortController().signal,
    },
    log: (text) => logs.push(text),
    now: Date.now,
    ...options,
  });
  onTestFinished(async () => {
    await agent.close();
    await keys.close();
    await rm(directory, { recursive: true, force: true });
  });
  return { fetch: authorizedFetch(agent, authorization), agent, keys, authorization, traffic, directory, pages, logs };
}

const tokenRequests = ({ traffic }: Client, issuer: string) =>
  traffic.lines(issuer).filter((line) => line.startsWith('POST') && line.endsWith('/token')).length;

describe('a server that refuses whatever it gets', () => {
  test('one token, one more try, and the refusal stands', async () => {
    const world = await startWorld();
    const resource = await hostileResource({ servers: [world.as.issuer] });
    const client = await clientOf(world, resource.url);
    for (let round = 1; round <= 3; round++) {
      expect((await client.fetch(resource.url, { method: 'POST', body: '{}' })).status).toBe(401);
      expect(tokenRequests(client, world.as.issuer)).toBe(round);
    }
    expect(resource.reached.filter(({ path }) => path === '/mcp').length).toBeLessThan(10);
  });

  test('and always wants another scope', async () => {
    const world = await startWorld();
    const resource = await hostileResource({
      servers: [world.as.issuer],
      status: 403,
      challenge: (_origin, n) => `Bearer error="insufficient_scope", scope="mcp scope-${n}"`,
    });
    const client = await clientOf(world, resource.url);
    await client.fetch(resource.url, { method: 'POST', body: '{}' }).catch(() => undefined);
    expect(tokenRequests(client, world.as.issuer)).toBeLessThanOrEqual(2);
  });

  test('nobody is sent to sign in again and again', async () => {
    const world = await startWorld();
    const resource = await hostileResource({ servers: [world.as.issuer] });
    const client = await clientOf(world, resource.url, { grant: 'authorization_code' });
    expect((await client.fetch(resource.url, { method: 'POST', body: '{}' })).status).toBe(401);
    for (let round = 0; round < 3; round++) {
      await client.fetch(resource.url, { method: 'POST', body: '{}' }).catch(() => undefined);
    }
    expect(client.pages).toHaveLength(1);
  });

  test('nor for ever new scopes', async () => {
    const world = await startWorld();
    const resource = await hostileResource({
      servers: [world.as.issuer],
      status: 403,
      challenge: (_origin, n) => `Bearer error="insufficient_scope", scope="mcp scope-${n}"`,
    });
    const client = await clientOf(world, resource.url, { grant: 'authorization_code' });
    for (let round = 0; round < 6; round++) {
      await client.fetch(resource.url, { method: 'POST', body: '{}' }).catch(() => undefined);
    }
    expect(client.pages.length).toBeLessThanOrEqual(3);
  });

  test('an attestation that it does not like is no reason for other tokens', async () => {
    const world = await startWorld();
    const resource = await hostileResource({
      servers: [world.as.issuer],
      challenge: (origin, n) =>
        n === 0
          ? `Bearer resource_metadata="${origin}/.well-known/oauth-protected-resource/mcp"`
          : 'Bearer error="invalid_client_attestation"',
    });
    const client = await clientOf(world, resource.url);
    for (let round = 0; round < 3; round++) await client.fetch(resource.url, { method: 'POST', body: '{}' });
    expect(tokenRequests(client, world.as.issuer)).toBe(1);
  });
});

describe('META-6: metadata that speaks for others', () => {
  test.each<[string, (as: string) => Hostile, string]>([
    [
      'documents on another origin',
      () => ({ challenge: () => 'Bearer resource_metadata="https://evil.example/x"' }),
      'metadata_mismatch',
    ],
    [
      'another resource',
      (as) => ({ servers: [as], metadata: { resource: 'https://bank.example/mcp' } }),
      'metadata_mismatch',
    ],
    ['no authorization server', () => ({ servers: [] }), 'server_unsupported'],
    ['an authorization server over plain HTTP', () => ({ servers: ['http://as.example'] }), 'invalid_argument'],
    ['an authorization server that is none', () => ({ servers: ['javascript:x'] }), 'invalid_argument'],
  ])('%s', async (_what, hostile, code) => {
    const world = await startWorld();
    const resource = await hostileResource(hostile(world.as.issuer));
    const client = await clientOf(world, resource.url);
    await expectRefusal(() => client.fetch(resource.url, { method: 'POST', body: '{}' }), { code: code as never });
    expect(client.traffic.exchanges.filter(({ headers }) => headers.has('oauth-client-attestation'))).toEqual([]);
  });

  test('an authorization server whose document is another’s', async () => {
    const world = await startWorld();
    const evil = await stranger((_, response) =>
      json(response, { issuer: world.as.issuer, token_endpoint: 'https://x.example' }),
    );
    const resource = await hostileResource({ servers: [evil.origin] });
    const client = await clientOf(world, resource.url);
    await expectRefusal(() => client.fetch(resource.url, { method: 'POST', body: '{}' }), {
      code: 'metadata_mismatch',
    });
    expect(evil.reached.every(({ method }) => method === 'GET')).toBe(true);
  });

  test('another authorization server than the operator’s', async () => {
    const world = await startWorld();
    const resource = await hostileResource({ servers: ['https://evil.example'] });
    const client = await clientOf(world, resource.url, { issuer: world.as.issuer });
    await expectRefusal(() => client.fetch(resource.url, { method: 'POST', body: '{}' }), {
      code: 'metadata_mismatch',
    });
  });

  test('a server elsewhere that names one on this machine', async () => {
    const documents: Record<string, object> = {
      'https://mcp.example/.well-known/oauth-protected-resource/mcp': {
        resource: 'https://mcp.example/mcp',
        authorization_servers: ['http://127.0.0.1:6379'],
      },
    };
    const asked: string[] = [];
    const agent = {
      fetch: async (input: string | URL) => {
        asked.push(String(input));
        const document = documents[String(input)];
        return document === undefined ? new Response(null, { status: 404 }) : Response.json(document);
      },
    } as unknown as Agent;
    const nothing = { error: undefined, scope: undefined, resourceMetadata: undefined };
    await expectRefusal(() => discover(agent, new URL('https://mcp.example/mcp'), nothing), {
      code: 'metadata_mismatch',
    });
    expect(asked).toEqual(['https://mcp.example/.well-known/oauth-protected-resource/mcp']);
  });

  test('BIND-1: a refresh token goes back to who gave it, also when the resource now names somebody else', async () => {
    const world = await startWorld();
    world.as.tokens.lifetime = 1;
    const servers = [world.as.issuer];
    const resource = await hostileResource({
      servers,
      takes: (authorization) => authorization !== '' && servers[0] === world.as.issuer,
    });
    const client = await clientOf(world, resource.url, { grant: 'authorization_code' });
    expect((await client.fetch(resource.url)).status).toBe(200);
    const kept = (await client.authorization.current())?.refreshToken ?? '';
    expect(kept).not.toBe('');

    const evil = await stranger(({ path }, response) => {
      if (!path.startsWith('/.well-known/')) return json(response, { error: 'invalid_grant' }, 400);
      json(response, {
        issuer: evil.origin,
        token_endpoint: `${evil.origin}/token`,
        grant_types_supported: ['client_credentials'],
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
      });
    });
    servers[0] = evil.origin;
    await client.fetch(resource.url).catch(() => undefined);
    await client.fetch(resource.url).catch(() => undefined);
    expect(evil.reached.length).toBeGreaterThan(0);
    expect(JSON.stringify(evil.reached)).not.toContain(kept);
    expect(client.logs.join()).toContain('another authorization server');
  });
});

describe('grant: auto', () => {
  test.each([
    ['unauthorized_client', 1],
    ['invalid_client', 0],
    ['server_error', 0],
  ])('%s: a person is asked %i times', async (error, asked) => {
    const world = await startWorld();
    const as = await stranger(({ path }, response) => {
      if (path === '/token') return json(response, { error }, 400);
      json(response, {
        issuer: as.origin,
        token_endpoint: `${as.origin}/token`,
        authorization_endpoint: `${as.origin}/authorize`,
        code_challenge_methods_supported: ['S256'],
        grant_types_supported: ['authorization_code', 'client_credentials'],
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
      });
    });
    const resource = await hostileResource({ servers: [as.origin] });
    const pages: URL[] = [];
    const login = { timeout: 100, port: undefined, signal: new AbortController().signal };
    const client = await clientOf(world, resource.url, {
      grant: 'auto',
      login: { ...login, show: (page) => void pages.push(page) },
    });
    const refused = await client.fetch(resource.url).catch((cause: unknown) => cause);
    expect(refused).toMatchObject({ code: error === 'invalid_client' ? 'invalid_client' : 'authorization_failed' });
    expect(pages).toHaveLength(asked);
  });

  test('without client_credentials in the metadata a person is asked at once', async () => {
    const world = await startWorld();
    const as = await stranger((_, response) =>
      json(response, {
        issuer: as.origin,
        token_endpoint: `${as.origin}/token`,
        authorization_endpoint: `${as.origin}/authorize`,
        code_challenge_methods_supported: ['S256'],
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
      }),
    );
    const resource = await hostileResource({ servers: [as.origin] });
    const pages: URL[] = [];
    const login = { timeout: 100, port: undefined, signal: new AbortController().signal };
    const show = (page: URL) => void pages.push(page);
    const client = await clientOf(world, resource.url, { grant: 'auto', login: { ...login, show } });
    await expectRefusal(() => client.fetch(resource.url), { code: 'authorization_failed' });
    expect(pages[0]?.searchParams.get('resource')).toBe(resource.url.href);
    expect(as.reached.every(({ method }) => method === 'GET')).toBe(true);
  });
});

describe('an authorization server that misbehaves', () => {
  const answers: [string, (response: ServerResponse) => void, string][] = [
    ['redirects', (r) => void r.writeHead(307, { location: 'https://evil.example/token' }).end(), 'http_failed'],
    ['a body without end', (r) => void endless(r), 'http_too_large'],
    ['HTML', (r) => void r.writeHead(200, { 'content-type': 'text/html' }).end('<p>'), 'authorization_failed'],
    ['no token', (r) => json(r, {}), 'authorization_failed'],
    [
      'a token of a kind that nobody knows',
      (r) => json(r, { access_token: 'x', token_type: 'mac' }),
      'authorization_failed',
    ],
    [
      'a token that would be a header field of its own',
      (r) => json(r, { access_token: 'x\r\nX-Evil: y', token_type: 'bearer' }),
      'authorization_failed',
    ],
    ['a token of no ASCII', (r) => json(r, { access_token: '€', token_type: 'bearer' }), 'authorization_failed'],
    ['a refusal with odd words', (r) => json(r, { error: '\u001b[2J' }, 400), 'authorization_failed'],
    ['a refusal', (r) => json(r, { error: 'invalid_client_attestation' }, 401), 'invalid_client_attestation'],
  ];
  function endless(response: ServerResponse): void {
    response.writeHead(200, { 'content-type': 'application/json' });
    const pour = (): void => {
      while (!response.destroyed) if (!response.write('x'.repeat(10_000))) return void response.once('drain', pour);
    };
    pour();
  }
  test.each(answers)('%s', async (_what, answer, code) => {
    const world = await startWorld();
    const as = await stranger(({ path }, response) => {
      if (!path.startsWith('/.well-known/')) return answer(response);
      json(response, {
        issuer: as.origin,
        token_endpoint: `${as.origin}/token`,
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
      });
    });
    const resource = await hostileResource({ servers: [as.origin] });
    const client = await clientOf(world, resource.url);
    const error = await expectRefusal(() => client.fetch(resource.url), { code: code as never });
    expect(error.message).not.toContain('\u001b');
  });
});

test('metadata that only a refusal leads to is found again by the next run, whose token has ended', async () => {
  const world = await startWorld();
  world.as.tokens.lifetime = 1;
  const server = await stranger(({ path, headers }, response) => {
    if (path === '/odd')
      return json(response, { resource: `${server.origin}/mcp`, authorization_servers: [world.as.issuer] });
    if (path !== '/mcp') return void response.writeHead(404).end();
    if (headers.authorization !== undefined && headers.authorization !== ended) return json(response, {});
    response.writeHead(401, { 'www-authenticate': `Bearer resource_metadata="${server.origin}/odd"` }).end();
  });
  let ended: string | undefined;
  const url = new URL(`${server.origin}/mcp`);
  const client = await clientOf(world, url, { grant: 'authorization_code' });
  expect((await client.fetch(url)).status).toBe(200);
  ended = `Bearer ${(await client.authorization.current())?.accessToken}`;
  await sleep(1200);
  for (const run of [
    client,
    await clientOf(world, url, { grant: 'authorization_code', directory: client.directory }),
  ]) {
    expect((await run.fetch(url)).status).toBe(200);
    world.as.tokens.lifetime = 300;
  }
  expect(client.pages).toHaveLength(1);
});

test('twenty requests that are refused at once share one token request', async () => {
  const world = await startWorld();
  const resource = await hostileResource({
    servers: [world.as.issuer],
    takes: (authorization) => authorization !== '',
  });
  const client = await clientOf(world, resource.url);
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => client.fetch(resource.url, { method: 'POST', body: '{}' })),
  );
  expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200));
  expect(tokenRequests(client, world.as.issuer)).toBe(1);
});

test('tokens lie in no file that can be read', async () => {
  const world = await startWorld();
  const resource = await hostileResource({
    servers: [world.as.issuer],
    takes: (authorization) => authorization !== '',
  });
  const client = await clientOf(world, resource.url, { grant: 'authorization_code' });
  await client.fetch(resource.url);
  const tokens = await client.authorization.current();
  await client.agent.close();
  const files = await readdir(client.directory, { recursive: true, withFileTypes: true });
  let read = 0;
  for (const file of files.filter((entry) => entry.isFile())) {
    const content = await readFile(join(file.parentPath, file.name), 'utf8');
    expect(
      content.includes(tokens?.accessToken ?? '?') || content.includes(tokens?.refreshToken ?? '?'),
      file.name,
    ).toBe(false);
    read++;
  }
  expect(read).toBeGreaterThan(2);
  expect(tokens?.refreshToken).toBeDefined();
  // and are there for the next run
  const next = await clientOf(world, resource.url, { directory: client.directory });
  expect((await next.authorization.current())?.refreshToken).toBe(tokens?.refreshToken);
});
