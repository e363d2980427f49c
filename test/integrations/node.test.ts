/** Fetch-style handlers behind node:http, over real connections. */
import { createHash, randomBytes } from 'node:crypto';
import { Agent, createServer, request as httpRequest } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { text as textOf } from 'node:stream/consumers';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { describe, expect, onTestFinished, test } from 'vitest';
import { toNodeListener } from '../../src/integrations/node.ts';
import { expectRefusal } from '../support/errors.ts';

type Handler = (request: Request) => Response | Promise<Response>;

const URL_OF_SERVER = 'https://as.example/tenant';

async function start(handler: Handler, mount?: string) {
  const errors: unknown[] = [];
  const listener = toNodeListener(handler, { url: URL_OF_SERVER, onError: (error) => errors.push(error) });
  const server = createServer(mount === undefined ? listener : express().use(mount, listener));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  const raw = (head: string) => {
    const socket = connect(port, '127.0.0.1');
    socket.write(`${head}\r\nConnection: close\r\n\r\n`, 'latin1');
    return textOf(socket);
  };
  return { origin: `http://127.0.0.1:${port}`, port, errors, raw };
}

describe('requests', () => {
  test('method, path, body, status and headers pass both ways', async () => {
    const { origin } = await start(async (request) => {
      const headers = new Headers([
        ['X-Seen', `${request.method} ${request.url}`],
        ['Set-Cookie', 'a=1'],
        ['Set-Cookie', 'b=2'],
      ]);
      return new Response(await request.text(), { status: 418, headers });
    });
    const response = await fetch(`${origin}/a/b?c=d`, { method: 'PUT', body: 'grüße' });
    expect([response.status, await response.text()]).toEqual([418, 'grüße']);
    expect(response.headers.get('x-seen')).toBe('PUT https://as.example/a/b?c=d');
    expect(response.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
  });

  test('a repeated field is not lost', async () => {
    const { origin } = await start(({ headers }) => new Response(headers.get('authorization')));
    const body = await new Promise<string>((resolve, reject) => {
      const request = httpRequest(origin, { method: 'POST' }, (response) => textOf(response).then(resolve, reject));
      request.setHeader('Authorization', ['Bearer a', 'Bearer b']);
      request.end('x');
    });
    expect(body).toBe('Bearer a, Bearer b');
  });

  test.each([
    ['GET /mcp HTTP/1.1\r\nHost: evil.example', 'https://as.example/mcp'],
    ['GET http://evil.example/mcp HTTP/1.1\r\nHost: evil.example', 'https://as.example/mcp'],
    ['GET //evil.example/mcp HTTP/1.1\r\nHost: as.example', 'https://as.example//evil.example/mcp'],
    ['GET /\\evil.example/mcp HTTP/1.1\r\nHost: as.example', 'https://as.example//evil.example/mcp'],
    ['GET /@evil.example/mcp HTTP/1.1\r\nHost: as.example', 'https://as.example/@evil.example/mcp'],
  ])('DPOP-2: the origin is the configured one, whatever is asked for: %j', async (head, url) => {
    const { raw } = await start((request) => new Response(request.url));
    expect(await raw(head)).toContain(`\r\n${url}\r\n`);
  });

  test.each(['OPTIONS * HTTP/1.1\r\nHost: a', 'TRACE / HTTP/1.1\r\nHost: a', 'GET ftp://a/b HTTP/1.1\r\nHost: a'])(
    'what no Request can express is a 400 and reaches no handler: %j',
    async (head) => {
      let called = false;
      const { raw, errors } = await start(() => {
        called = true;
        return new Response();
      });
      expect(await raw(head)).toMatch(/^HTTP\/1\.1 400 /);
      expect([called, errors]).toEqual([false, []]);
    },
  );

  test('under the path of an Express app the whole path is seen', async () => {
    const { origin } = await start(({ url }) => new Response(url), '/tenant');
    expect(await (await fetch(`${origin}/tenant/jwks`)).text()).toBe('https://as.example/tenant/jwks');
  });

  test.each<[string, (body: ReadableStream<Uint8Array>) => unknown]>([
    ['nobody reads', () => undefined],
    ['somebody begins to read', (body) => body.getReader().read()],
    [
      'somebody stops reading',
      async (body) => {
        const reader = body.getReader();
        await reader.read();
        await reader.cancel();
      },
    ],
  ])('a body that %s blocks neither the answer nor the connection', async (_what, use) => {
    const { port, errors } = await start(async ({ body }) => {
      await use(body!);
      return new Response('no', { status: 413 });
    });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    onTestFinished(() => agent.destroy());
    const sockets = new Set<unknown>();
    const post = () =>
      new Promise<number | undefined>((resolve, reject) => {
        const request = httpRequest({ port, host: '127.0.0.1', method: 'POST', agent }, (response) => {
          sockets.add(response.socket);
          response.resume().on('end', () => resolve(response.statusCode));
        });
        request.on('error', reject).end(Buffer.alloc(4 * 1024 * 1024));
      });
    expect([await post(), await post(), await post()]).toEqual([413, 413, 413]);
    expect([sockets.size, errors]).toEqual([1, []]);
  });

  test('a large body arrives whole, in order, and no faster than it is read', async () => {
    const { origin } = await start(async (request) => {
      const hash = createHash('sha256');
      for await (const chunk of request.body!) {
        hash.update(chunk);
        await setImmediate();
      }
      return new Response(hash.digest('hex'));
    });
    const body = randomBytes(3 * 1024 * 1024);
    const response = await fetch(origin, { method: 'POST', body });
    expect(await response.text()).toBe(createHash('sha256').update(body).digest('hex'));
  });

  test('a body that breaks off is an error for who reads it', async () => {
    let seen: unknown;
    const { port } = await start(async (request) => {
      await request.text().catch((error: unknown) => {
        seen = error;
      });
      return new Response();
    });
    const socket = connect(port, '127.0.0.1');
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf');
    await sleep(50);
    socket.destroy();
    await expect.poll(() => seen).toBeInstanceOf(Error);
  });
});

describe('answers', () => {
  test('the head of a stream arrives before its first event, and what follows as it comes', async () => {
    let push: (text: string) => void = () => undefined;
    const { origin } = await start(() => {
      const body = new ReadableStream({
        start(controller) {
          push = (text) => controller.enqueue(new TextEncoder().encode(text));
        },
      });
      return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
    });
    const response = await fetch(origin);
    const reader = response.body!.getReader();
    for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
      push(event);
      expect(new TextDecoder().decode((await reader.read()).value)).toBe(event);
    }
    await reader.cancel();
  });

  test('no body where there is none to be', async () => {
    const { origin } = await start(({ method }) => new Response(method === 'HEAD' ? 'text' : null, { status: 200 }));
    expect(await (await fetch(origin, { method: 'HEAD' })).text()).toBe('');
    expect(await (await fetch(origin)).text()).toBe('');
  });
});

describe('faults', () => {
  const secret = new Error('secret');
  const thrown: [string, Handler][] = [
    ['rejects', () => Promise.reject(secret)],
    [
      'throws',
      () => {
        throw secret;
      },
    ],
  ];

  test.each(thrown)('a handler that %s: 500 and none of its words, which the operator gets', async (_what, handler) => {
    const { origin, errors } = await start(handler);
    const response = await fetch(origin);
    expect([response.status, await response.text(), errors]).toEqual([500, '', [secret]]);
  });

  test('a body that breaks off ends the connection, so that half an answer is not taken for a whole', async () => {
    const { origin, errors } = await start(() => {
      let started = false;
      const body = new ReadableStream({
        pull(controller) {
          if (started) throw secret;
          started = true;
          controller.enqueue(new TextEncoder().encode('half'));
        },
      });
      return new Response(body);
    });
    await expect(fetch(origin).then((response) => response.text())).rejects.toThrow();
    await expect.poll(() => errors).toEqual([secret]);
  });

  test('a client that goes away aborts the request, which is nobody’s fault', async () => {
    let aborted = false;
    const { origin, errors } = await start(
      ({ signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            aborted = true;
            reject(signal.reason);
          });
        }),
    );
    await expect(fetch(origin, { signal: AbortSignal.timeout(50) })).rejects.toThrow();
    await expect.poll(() => aborted).toBe(true);
    await sleep(10);
    expect(errors).toEqual([]);
  });

  test('a client that goes away while it is answered is nobody’s fault either', async () => {
    let cancelled = false;
    const { origin, errors } = await start(
      () =>
        new Response(
          new ReadableStream({
            pull: (controller) => controller.enqueue(new Uint8Array(65536)),
            cancel: () => {
              cancelled = true;
            },
          }),
        ),
    );
    const response = await fetch(origin);
    await response.body!.cancel();
    await expect.poll(() => cancelled).toBe(true);
    await sleep(10);
    expect(errors).toEqual([]);
  });

  test('an answered request is not aborted', async () => {
    let seen: AbortSignal | undefined;
    const { origin } = await start(({ signal }) => {
      seen = signal;
      return new Response('done');
    });
    await (await fetch(origin, { headers: { connection: 'close' } })).text();
    await sleep(20);
    expect(seen?.aborted).toBe(false);
  });

  test('a log that fails ends nothing', async () => {
    const listener = toNodeListener(() => Promise.reject(secret), {
      url: URL_OF_SERVER,
      onError: () => {
        throw new Error('no log');
      },
    });
    const server = createServer(listener).listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    expect((await fetch(`http://127.0.0.1:${port}`)).status).toBe(500);
  });

  test.each(['', 'as.example', 'http://as.example', 'ftp://as.example'])('%j is no URL of a server', async (url) => {
    await expectRefusal(() => toNodeListener(() => new Response(), { url }), { code: 'invalid_argument' });
  });
});
