import type { ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { assertSafeUrl, fetchJson, fetchText, isJson, isLoopback, readBounded } from '../../src/platform/http.ts';
import { expectRefusal } from '../support/errors.ts';
import { drip, flood, forbiddenFetch, sendJson, startServer, type TestServer } from '../support/http.ts';

const open: TestServer[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()));
});
async function serve(answer: (response: ServerResponse) => void): Promise<TestServer & { url: string }> {
  const server = await startServer((_, response) => answer(response));
  open.push(server);
  return { ...server, url: `${server.origin}/x?secret=1` };
}

describe('fetchJson', () => {
  it('gives status, headers and one JSON object, of whatever status', async () => {
    for (const status of [200, 400, 503]) {
      const { url } = await serve((response) =>
        sendJson(response, { a: 1 }, 'application/json; charset=utf-8', status),
      );
      const answer = await fetchJson(url, {});
      expect(answer).toMatchObject({ status, json: { a: 1 } });
      expect(answer.headers.get('content-type')).toContain('json');
    }
  });

  it.each([
    ['another content type', { a: 1 }, 'text/html'],
    ['a content type that only looks alike', { a: 1 }, 'application/jsonx'],
    ['a list', [1], 'application/json'],
    ['invalid JSON', '{"a":', 'application/json'],
    ['a member twice', '{"a":1,"a":2}', 'application/json'],
    ['nothing', '', 'application/json'],
  ])('ATT-8: %s is no JSON object', async (_, body, type) => {
    const { url } = await serve((response) => sendJson(response, body, type));
    expect((await fetchJson(url, {})).json).toBeUndefined();
  });

  it('asks for JSON, and keeps what the caller asks for', async () => {
    const seen: (string | undefined)[] = [];
    const server = await startServer((request, response) => {
      seen.push(request.headers.accept);
      sendJson(response, {});
    });
    open.push(server);
    await fetchJson(server.origin, {});
    await fetchJson(server.origin, { headers: { accept: 'application/jwk-set+json' } });
    expect(seen).toEqual(['application/json', 'application/jwk-set+json']);
  });
});

describe('fetchText', () => {
  it.each([301, 302, 303, 307, 308])('a redirect (%i) is not followed', async (status) => {
    const target = await serve((response) => sendJson(response, {}));
    const { url } = await serve((response) => void response.writeHead(status, { location: target.url }).end());
    const error = await expectRefusal(() => fetchText(url, {}), { code: 'http_failed' });
    expect(error.message).toContain('redirect');
    expect(target.seen).toEqual([]);
    // also when the caller asks for it
    await expectRefusal(() => fetchText(url, { redirect: 'follow' }), { code: 'http_failed' });
    expect(target.seen).toEqual([]);
  });

  it.each([
    ['no answer', () => undefined],
    ['a body that does not end', (response: ServerResponse) => drip(response)],
    [
      'a header that does not end',
      (response: ServerResponse) => void response.socket?.write('HTTP/1.1 200 OK\r\nX-A: '),
    ],
  ])('a time-out ends %s', async (_, answer) => {
    const { url } = await serve(answer);
    const startedAt = performance.now();
    const error = await expectRefusal(() => fetchText(url, {}, { timeout: 150 }), { code: 'http_timeout' });
    expect(performance.now() - startedAt).toBeLessThan(1500);
    expect(error.message).not.toContain('secret');
  });

  it('a body of 100 MB is dropped at the limit, and the connection closed', async () => {
    const written = { bytes: 0 };
    let closed: () => void;
    const hungUp = new Promise<void>((resolve) => {
      closed = resolve;
    });
    const { url } = await serve((response) => {
      response.on('close', () => closed());
      flood(response.writeHead(200), 100e6, written);
    });
    await expectRefusal(() => fetchText(url, {}), { code: 'http_too_large' });
    await hungUp;
    expect(written.bytes).toBeLessThan(20e6);
  });

  it('a compressed body is measured unpacked', async () => {
    const body = gzipSync(Buffer.alloc(50e6));
    const { url } = await serve((response) => void response.writeHead(200, { 'content-encoding': 'gzip' }).end(body));
    await expectRefusal(() => fetchText(url, {}), { code: 'http_too_large' });
  });

  it('the limit is exact', async () => {
    const { url } = await serve((response) => void response.end('x'.repeat(1000)));
    expect((await fetchText(url, {}, { maxBytes: 1000 })).text).toHaveLength(1000);
    await expectRefusal(() => fetchText(url, {}, { maxBytes: 999 }), { code: 'http_too_large' });
  });

  it('bytes that are not UTF-8, an aborted body and a closed port are failures', async () => {
    const notText = await serve((response) => void response.end(Buffer.from([0xc3, 0x28])));
    await expectRefusal(() => fetchText(notText.url, {}), { code: 'http_failed' });
    const aborted = await serve((response) => {
      response.writeHead(200, { 'content-length': '100' }).write('part');
      setTimeout(() => response.destroy(), 20);
    });
    await expectRefusal(() => fetchText(aborted.url, {}), { code: 'http_failed' });
    const gone = await startServer(() => undefined);
    await gone.close();
    const error = await expectRefusal(() => fetchText(`${gone.origin}/x?secret=1`, {}), { code: 'http_failed' });
    expect(error.message).toContain(gone.origin);
    expect(error.message).not.toContain('secret');
  });

  it('a fetch of its own that never settles does not hold anybody', async () => {
    const body = new ReadableStream<Uint8Array>({ start: () => undefined });
    const fetch = async () => new Response(body);
    await expectRefusal(() => fetchText('https://x.example', {}, { fetch, timeout: 50 }), { code: 'http_timeout' });
  });
});

describe('URLs', () => {
  const good = [
    'https://a.example',
    'https://a.example:8443/x?y',
    'http://localhost:3000',
    'http://127.0.0.1',
    'http://127.1.2.3:1/',
    'http://[::1]:9',
    'http://2130706433/',
  ];
  it.each(good)('%s may be asked', (url) => expect(assertSafeUrl(url).href).toBe(new URL(url).href));

  const bad = [
    'http://a.example',
    'http://localhost.attacker.example',
    'http://127.0.0.1.attacker.example',
    'http://127.0.0.1@attacker.example',
    'http://10.0.0.1',
    'http://0.0.0.0',
    'http://[::ffff:10.0.0.1]',
    'https://user@a.example',
    'https://user:secret@a.example',
    'ftp://127.0.0.1',
    'file:///etc/passwd',
    'data:application/json,{}',
    'javascript:1',
    '//a.example',
    '/x',
    '',
    'https://',
  ];
  it.each(bad)('%s is refused before any connection', async (url) => {
    const fetch = forbiddenFetch();
    const error = await expectRefusal(() => fetchText(url, {}, { fetch }), { code: 'invalid_argument' });
    expect(error.message).not.toContain('secret');
    expect(fetch.calls).toEqual([]);
  });

  it('this machine is known by few names', () => {
    for (const name of ['localhost', '127.0.0.1', '127.255.255.254', '[::1]']) expect(isLoopback(name)).toBe(true);
    for (const name of ['', 'localhost.', 'LOCALHOST.example', '128.0.0.1', '1127.0.0.1', '127.0.0.1.x', '::1'])
      expect(isLoopback(name)).toBe(false);
  });
});

describe('bodies and types', () => {
  it('readBounded reads any body up to its limit', async () => {
    expect(await readBounded(new Response(null), 10)).toHaveLength(0);
    expect(await readBounded(new Response('0123456789'), 10)).toHaveLength(10);
    await expectRefusal(() => readBounded(new Response('0123456789x'), 10), { code: 'http_too_large' });
  });
  it.each([
    ['application/json', true],
    ['Application/JSON;charset=utf-8', true],
    ['application/jwk-set+json', true],
    ['application/problem+json ; x=y', true],
    ['text/json', false],
    ['application/jsonp', false],
    ['application/json+xml', false],
    ['text/html; application/json', false],
    ['', false],
    [null, false],
  ])('%s is JSON: %s', (type, expected) => expect(isJson(type)).toBe(expected));
});
