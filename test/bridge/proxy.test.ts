/** The proxy's guards, and what it passes on and what it keeps. */
import { createServer, request as httpRequest, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { withinServer } from '../../src/bridge/http.ts';
import { type LocalProxy, openProxy, type ProxyOptions } from '../../src/bridge/proxy.ts';
import type { FetchLike } from '../../src/platform/http.ts';
import { expectRefusal } from '../support/errors.ts';

const SECRET = 'a-secret-that-nobody-could-guess';
const PAGE = 'https://app.example';

interface Reached {
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  size: number;
}

interface Scene {
  proxy: LocalProxy;
  reached: Reached[];
  logs: string[];
}

async function scene(
  options: Partial<ProxyOptions> = {},
  respond = 'ok',
  headers: OutgoingHttpHeaders = {},
): Promise<Scene> {
  const reached: Reached[] = [];
  const server = createServer(async (request, response) => {
    let size = 0;
    for await (const chunk of request as AsyncIterable<Buffer>) size += chunk.length;
    reached.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers, size });
    response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(respond);
  });
  const remote = await listening(server);
  const url = new URL(`${remote}/mcp`);
  const logs: string[] = [];
  const fetchRemote: FetchLike = (input, init) => fetch(input, init);
  const proxy = await openProxy({
    url,
    fetch: withinServer(fetchRemote, url),
    secret: SECRET,
    host: '127.0.0.1',
    port: 0,
    origins: [PAGE],
    maxBytes: 1000,
    log: (text) => logs.push(text),
    ...options,
  });
  onTestFinished(() => proxy.close());
  return { proxy, reached, logs };
}

async function listening(server: ReturnType<typeof createServer>): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

interface Asked {
  method?: string;
  path?: string;
  headers?: OutgoingHttpHeaders;
  body?: string;
}

/** A request as any program could send it: fetch would not let us choose all headers. */
function ask({ origin }: LocalProxy, { method = 'POST', path = `/${SECRET}`, headers = {}, body = '{}' }: Asked = {}) {
  const { hostname, port, host } = new URL(origin);
  return new Promise<{ status: number; headers: IncomingHttpHeaders; text: string }>((resolve, reject) => {
    const request = httpRequest({ hostname, port, method, path, headers: { host, ...headers } }, async (response) => {
      let text = '';
      for await (const chunk of response.setEncoding('utf8') as AsyncIterable<string>) text += chunk;
      resolve({ status: response.statusCode ?? 0, headers: response.headers, text });
    });
    request.once('error', reject);
    request.end(method === 'POST' ? body : undefined);
  });
}

describe('who gets in', () => {
  test.each<[string, Asked, number]>([
    ['with the secret', {}, 200],
    ['by GET', { method: 'GET' }, 200],
    ['by DELETE', { method: 'DELETE' }, 200],
    ['a page that was let in', { headers: { origin: PAGE } }, 200],
    ['somebody who types the address into a browser', { method: 'GET', headers: { 'sec-fetch-site': 'none' } }, 200],
    ['without the secret', { path: '/' }, 404],
    ['with a part of it', { path: `/${SECRET.slice(0, -1)}` }, 404],
    ['with more than it', { path: `/${SECRET}x` }, 404],
    ['with a path behind it', { path: `/${SECRET}/x` }, 404],
    ['with another case', { path: `/${SECRET.toUpperCase()}` }, 404],
    ['with it in the query', { path: `/?${SECRET}` }, 404],
    ['asking for OAuth metadata', { method: 'GET', path: '/.well-known/oauth-protected-resource' }, 404],
    ['a page', { headers: { origin: 'https://evil.example' } }, 403],
    ['a page of no origin', { headers: { origin: 'null' } }, 403],
    ['a page on this machine', { headers: { origin: 'http://localhost:3000' } }, 403],
    ['a page’s image', { method: 'GET', headers: { 'sec-fetch-site': 'cross-site' } }, 403],
    [
      'a page’s preflight',
      { method: 'OPTIONS', headers: { origin: 'https://evil.example', 'access-control-request-method': 'POST' } },
      403,
    ],
    ['another name for this machine (rebinding)', { headers: { host: 'evil.example' } }, 421],
    ['another name with our port', { headers: { host: 'evil.example:80' } }, 421],
    ['a name that begins like ours', { headers: { host: '127.0.0.1.evil.example' } }, 421],
    ['our name with another port', { headers: { host: '127.0.0.1:1' } }, 421],
    ['a method that cannot be forwarded', { method: 'TRACE' }, 405],
    ['a body over the limit', { body: 'x'.repeat(1001) }, 413],
    ['a body at the limit', { body: 'x'.repeat(1000) }, 200],
  ])('%s', async (_who, asked, status) => {
    const { proxy, reached } = await scene();
    const answer = await ask(proxy, asked);
    expect(answer.status, answer.text).toBe(status);
    expect(reached).toHaveLength(status === 200 ? 1 : 0);
    if (status !== 200) expect(answer.text + JSON.stringify(answer.headers)).not.toContain(SECRET);
  });

  test('under the address that it was told to listen on, whichever of this machine’s that is', async () => {
    const { proxy, reached } = await scene({ host: '127.0.0.2' });
    expect((await ask(proxy)).status).toBe(200);
    expect((await ask(proxy, { headers: { host: '127.0.0.3' } })).status).toBe(421);
    expect(reached).toHaveLength(1);
  });

  test('a preflight of a page that was let in', async () => {
    const { proxy, reached } = await scene();
    const headers = {
      origin: PAGE,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'mcp-session-id',
    };
    const answer = await ask(proxy, { method: 'OPTIONS', headers });
    expect(answer.status).toBe(204);
    expect(answer.headers).toMatchObject({
      'access-control-allow-origin': PAGE,
      'access-control-allow-headers': 'mcp-session-id',
    });
    expect(reached).toEqual([]);
  });

  test.each([
    ['an address that others reach', { host: '0.0.0.0' }],
    ['all addresses', { host: '::' }],
    ['a network address', { host: '192.0.2.1' }],
    ['a name', { host: 'example.com' }],
    ['a short secret', { secret: 'guess' }],
    ['a secret with a slash', { secret: `${SECRET}/x` }],
    ['an empty secret', { secret: '' }],
  ])('it does not even start with %s', async (_what, options) => {
    await expectRefusal(() => scene(options), { code: 'invalid_argument' });
  });
});

describe('what passes', () => {
  test('what the client says of itself, but nothing that is the agent’s, the browser’s or the connection’s', async () => {
    const { proxy, reached } = await scene();
    const headers = {
      'content-type': 'application/json',
      'mcp-session-id': 's-1',
      'last-event-id': '7',
      'x-custom': 'yes',
      authorization: 'Bearer other',
      dpop: 'x',
      'oauth-client-attestation': 'x',
      'oauth-client-attestation-pop': 'x',
      cookie: 'a=b',
      forwarded: 'for=1.2.3.4',
      'x-forwarded-for': '1.2.3.4',
      'x-forwarded-prefix': '/admin',
      'x-real-ip': '1.2.3.4',
      via: '1.1 x',
      referer: `http://127.0.0.1/${SECRET}`,
      connection: 'keep-alive, x-hop',
      'x-hop': 'x',
      te: 'trailers',
      'proxy-authorization': 'x',
      origin: PAGE,
    };
    await ask(proxy, { path: `/${SECRET}?a=1&b=%20`, headers });
    const [{ url, headers: got } = { url: '', headers: {} }] = reached;
    expect(url).toBe('/mcp?a=1&b=%20');
    expect(got).toMatchObject({ 'mcp-session-id': 's-1', 'last-event-id': '7', 'x-custom': 'yes' });
    const kept = [
      'authorization',
      'dpop',
      'oauth-client-attestation',
      'oauth-client-attestation-pop',
      'cookie',
      'forwarded',
      'x-forwarded-prefix',
      'x-real-ip',
      'via',
    ];
    for (const name of [...kept, 'x-forwarded-for', 'x-hop', 'te', 'proxy-authorization', 'origin', 'referer']) {
      expect(got, name).not.toHaveProperty(name);
    }
    expect(got.host).not.toBe(new URL(proxy.origin).host);
  });

  test('the answer, without what is between server and agent', async () => {
    const { proxy } = await scene({}, '{"ok":true}', {
      'mcp-session-id': 's-2',
      'dpop-nonce': 'n',
      'oauth-client-attestation-challenge': 'c',
      'set-cookie': 'a=b',
      'www-authenticate': 'Bearer',
    });
    const { headers, text } = await ask(proxy);
    expect(text).toBe('{"ok":true}');
    expect(headers).toMatchObject({ 'mcp-session-id': 's-2', 'content-type': 'application/json' });
    for (const name of ['dpop-nonce', 'oauth-client-attestation-challenge', 'set-cookie', 'www-authenticate']) {
      expect(headers, name).not.toHaveProperty(name);
    }
  });

  test('which pages may read, and what a page may do, is not the server’s to say', async () => {
    const { proxy } = await scene({}, '{"ok":true}', {
      'access-control-allow-origin': 'https://evil.example',
      'access-control-allow-credentials': 'true',
      'clear-site-data': '"*"',
      refresh: '0;url=https://evil.example',
      vary: '*',
      'content-security-policy': 'default-src *',
      'referrer-policy': 'unsafe-url',
    });
    const page = await ask(proxy, { headers: { origin: PAGE } });
    expect(page.headers).toMatchObject({ 'access-control-allow-origin': PAGE, vary: 'Origin' });
    const { headers } = await ask(proxy);
    for (const answer of [page.headers, headers]) {
      for (const name of ['access-control-allow-credentials', 'clear-site-data', 'refresh']) {
        expect(answer, name).not.toHaveProperty(name);
      }
      expect(answer).toMatchObject({
        'content-security-policy': "sandbox; default-src 'none'",
        'referrer-policy': 'no-referrer',
        'x-content-type-options': 'nosniff',
      });
    }
    expect(headers).not.toHaveProperty('access-control-allow-origin');
  });

  test('a refusal of this client is the proxy’s own trouble: no host shall sign in here', async () => {
    const { proxy } = await scene({
      fetch: async () => new Response('no', { status: 401, headers: { 'www-authenticate': 'Bearer' } }),
    });
    const answer = await ask(proxy);
    expect(answer.status).toBe(502);
    expect(answer.headers).not.toHaveProperty('www-authenticate');
  });

  test('a server that fails or redirects elsewhere', async () => {
    const { proxy, logs } = await scene({ fetch: async () => Promise.reject(new TypeError('fetch failed')) });
    const answer = await ask(proxy);
    expect([answer.status, JSON.parse(answer.text).error]).toEqual([502, 'http_failed']);
    expect(logs.join()).not.toContain(SECRET);
  });

  test('large bodies both ways; a stream part by part; a reader that stops holds the server back', async () => {
    const size = 50 * 1024 * 1024;
    let written = 0;
    let connectionClosed = false;
    const server = createServer(async (request, response) => {
      response.once('close', () => {
        connectionClosed = true;
      });
      if (request.method === 'POST') {
        let got = 0;
        for await (const chunk of request as AsyncIterable<Buffer>) got += chunk.length;
        return void response.writeHead(200).end(String(got));
      }
      if (request.headers.accept === 'text/event-stream') {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('data: 1\n\n');
        return;
      }
      response.writeHead(200);
      const chunk = Buffer.alloc(65_536, 'x');
      const pour = (): void => {
        while (written < size) {
          written += chunk.length;
          if (!response.write(chunk)) return void response.once('drain', pour);
        }
        response.end();
      };
      pour();
    });
    const remote = await listening(server);
    const { proxy } = await scene({ url: new URL(`${remote}/mcp`), maxBytes: size });
    const posted = await ask(proxy, { body: 'x'.repeat(size) });
    expect(posted.text).toBe(String(size));

    const events = await fetch(proxy.url, { headers: { accept: 'text/event-stream' } });
    const reader = events.body?.getReader();
    expect(Buffer.from((await reader?.read())?.value as Uint8Array).toString()).toBe('data: 1\n\n');
    connectionClosed = false;
    await reader?.cancel();
    while (!connectionClosed) await sleep(10); // a client that goes away frees the server

    const slow = await fetch(proxy.url);
    await sleep(300);
    const before = written;
    await sleep(200);
    expect(written).toBe(before);
    expect(written).toBeLessThan(size);
    expect((await slow.arrayBuffer()).byteLength).toBe(size);
  });
});
