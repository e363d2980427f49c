/** The transport against servers that do what servers do, and what they should not. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { withinServer } from '../../src/bridge/http.ts';
import { type Envelope, readEnvelope } from '../../src/bridge/message.ts';
import { openRemote, type Remote } from '../../src/bridge/remote.ts';

interface Seen {
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
  body: string;
}
type Answer = (seen: Seen, response: ServerResponse) => void;

interface Scene {
  remote: Remote;
  url: URL;
  seen: Seen[];
  /** What the host got, parsed. */
  got: Record<string, unknown>[];
  logs: string[];
  send(message: unknown): Promise<void>;
}

async function listen(answer: Answer, seen: Seen[] = []): Promise<URL> {
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (text: string) => {
      body += text;
    });
    request.on('end', () => {
      const { method = '', url = '', headers } = request;
      const entry = { method, path: url, headers, body };
      seen.push(entry);
      answer(entry, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`);
}

async function scene(answer: Answer, { maxBytes = 100_000, deliver = () => Promise.resolve() } = {}): Promise<Scene> {
  const seen: Seen[] = [];
  const url = await listen(answer, seen);
  const got: Record<string, unknown>[] = [];
  const logs: string[] = [];
  const remote = openRemote({
    url,
    fetch: withinServer((input, init) => fetch(input, init), url),
    deliver: (line) => {
      const text = Buffer.from(line).toString('utf8');
      expect(text.indexOf('\n')).toBe(text.length - 1);
      got.push(JSON.parse(text));
      return deliver();
    },
    log: (text) => logs.push(text),
    maxBytes,
    firstPause: 20,
  });
  onTestFinished(() => remote.close());
  const send = (message: unknown) => remote.send(readEnvelope(Buffer.from(JSON.stringify(message))) as Envelope);
  return { remote, url, seen, got, logs, send };
}

const json = (response: ServerResponse, body: unknown, status = 200, headers: Record<string, string> = {}) =>
  void response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
const stream = (response: ServerResponse, text: string) => {
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(text);
};
const event = (message: unknown, id?: string) =>
  `${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(message)}\n\n`;

const call = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'x' } };
const result = { jsonrpc: '2.0', id: 1, result: { ok: true } };
const initialize = { jsonrpc: '2.0', id: 'i', method: 'initialize', params: {} };
const initialized = { jsonrpc: '2.0', method: 'notifications/initialized' };
const started = { jsonrpc: '2.0', id: 'i', result: { protocolVersion: '2025-06-18' } };
const failure = (data: object) => [{ jsonrpc: '2.0', id: 1, error: expect.objectContaining(data) }];

describe('what servers may do', () => {
  test('the bytes of a message pass as they are', async () => {
    const text = '{ "jsonrpc":"2.0", "id":1,\n "result":{"n":1.0,"big":12345678901234567890,"a":1,"a":2} }';
    const lines: string[] = [];
    const url = await listen((_, response) =>
      response.writeHead(200, { 'content-type': 'application/json' }).end(text),
    );
    const remote = openRemote({
      url,
      fetch: (input, init) => fetch(input, init),
      deliver: async (line) => void lines.push(Buffer.from(line).toString()),
      log: () => undefined,
      maxBytes: 1000,
    });
    await remote.send(readEnvelope(Buffer.from(JSON.stringify(call))) as Envelope);
    expect(lines).toEqual([`${text.replace('\n', ' ')}\n`]);
  });

  test('a session: its id and version go with every message after the handshake, and it is ended', async () => {
    const { remote, seen, send } = await scene((request, response) => {
      if (request.body.includes('"initialize"')) return json(response, started, 200, { 'mcp-session-id': 's-1' });
      if (request.body.includes('tools/call')) return json(response, result);
      response.writeHead(request.method === 'GET' ? 405 : 202).end();
    });
    await send(initialize);
    await send(initialized);
    await send(call);
    await remote.close();
    await sleep(50);
    const rows = seen.map(({ method, headers }) => [
      method,
      headers['mcp-session-id'],
      headers['mcp-protocol-version'],
    ]);
    expect(rows.sort()).toEqual([
      ['DELETE', 's-1', '2025-06-18'],
      ['GET', 's-1', '2025-06-18'],
      ['POST', undefined, undefined],
      ['POST', 's-1', '2025-06-18'],
      ['POST', 's-1', '2025-06-18'],
    ]);
    expect(seen[0]?.headers).toMatchObject({
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
    });
  });

  test('a batch is one request, and its answers may come in any form', async () => {
    const second = { ...result, id: 2 };
    const { got, seen, send } = await scene((_, response) => json(response, [result, second]));
    await send([call, { ...call, id: 2 }]);
    expect(got).toEqual([[result, second]]);
    expect(seen).toHaveLength(1);
  });

  test('a message for the host, in one batch with an answer to the bridge itself, reaches the host', async () => {
    const note = { jsonrpc: '2.0', method: 'notifications/message' };
    let calls = 0;
    const { got, send } = await scene(({ body }, response) => {
      const { id, method } = JSON.parse(body);
      if (method === 'tools/list') return json(response, [note, { jsonrpc: '2.0', id, result: { tools: [] } }]);
      if (++calls === 2) return json(response, result);
      json(response, { jsonrpc: '2.0', id, error: { code: -32_020, message: 'a header field is missing' } }, 400);
    });
    await send(call);
    expect(got.map((message) => [message].flat().some((item) => item.method === note.method))).toEqual([true, false]);
    expect(got[1]).toEqual(result);
  });

  test('a stream that breaks off is resumed where it stopped, more than once', async () => {
    let posts = 0;
    const { got, seen, send } = await scene(({ method, headers }, response) => {
      const last = headers['last-event-id'];
      if (method === 'POST') {
        posts++;
        stream(response, 'retry: 100\n');
        stream(response, event({ jsonrpc: '2.0', method: 'n', params: { step: 1 } }, '1'));
        return void response.end();
      }
      stream(
        response,
        last === '1' ? event({ jsonrpc: '2.0', method: 'n', params: { step: 2 } }, '2') : event(result, '3'),
      );
      if (last === '1') setTimeout(() => response.destroy(), 30);
      else response.end();
    });
    await send(call);
    expect(got.map((message) => (message.params as { step?: number } | undefined)?.step ?? message.result)).toEqual([
      1,
      2,
      { ok: true },
    ]);
    expect(posts).toBe(1);
    expect(seen.map(({ headers }) => headers['last-event-id'])).toEqual([undefined, '1', '2']);
  });

  test('the server’s own stream is opened again, where it stopped', async () => {
    let streams = 0;
    const note = (step: number) => ({ jsonrpc: '2.0', method: 'n', params: { step } });
    const { got, seen, send } = await scene(({ method, body }, response) => {
      if (body.includes('"initialize"')) return json(response, started);
      if (method === 'POST') return void response.writeHead(202).end();
      stream(response, `retry: 100\n${event(note(++streams), `${streams}`)}`);
      if (streams < 3) response.destroy();
    });
    await send(initialize);
    await send(initialized);
    while (streams < 3 || got.length < 2) await sleep(20);
    const asked = seen.filter(({ method }) => method === 'GET').map(({ headers }) => headers['last-event-id']);
    expect(asked[0]).toBeUndefined();
    expect(asked).toHaveLength(3);
  });

  test('a JSON-RPC error in a refusal reaches the host under its own id', async () => {
    const error = { code: -32_022, message: 'unsupported', data: { supported: ['2025-06-18'] } };
    const { got, send } = await scene((_, response) => json(response, { jsonrpc: '2.0', id: null, error }, 400));
    await send(call);
    expect(got).toEqual([{ jsonrpc: '2.0', id: 1, error }]);
  });

  test('a request of the server’s own comes while the host’s call is open, and is answered', async () => {
    const open: ServerResponse[] = [];
    const { got, send } = await scene(({ body }, response) => {
      const { method } = JSON.parse(body);
      if (method === 'tools/call') {
        open.push(response);
        return stream(response, event({ jsonrpc: '2.0', id: 1, method: 'sampling/createMessage', params: {} }));
      }
      response.writeHead(202).end();
      stream(open[0] as ServerResponse, event(result));
      open[0]?.end();
    });
    const called = send(call);
    while (got.length === 0) await sleep(10);
    await send({ jsonrpc: '2.0', id: 1, result: { role: 'assistant' } });
    await called;
    expect(got.at(-1)).toEqual(result);
  });

  test('a redirect to the same path with a slash', async () => {
    const { got, seen, send } = await scene(({ path }, response) => {
      if (path === '/mcp') response.writeHead(307, { location: '/mcp/' }).end();
      else json(response, result);
    });
    await send(call);
    expect(got).toEqual([result]);
    expect(seen.map(({ path, body }) => [path, JSON.parse(body).id])).toEqual([
      ['/mcp', 1],
      ['/mcp/', 1],
    ]);
  });

  test('a read that broke off is asked again, once; a call is not: it may have had its effect', async () => {
    const { got, seen, send } = await scene((_, response) => void response.destroy());
    await send({ jsonrpc: '2.0', id: 2, method: 'tools/list' });
    expect(seen).toHaveLength(2);
    await send(call);
    expect(seen).toHaveLength(3);
    expect(got.map(({ error }) => error)).toEqual([expect.anything(), expect.anything()]);
  });

  test('a cancelled call: the notification goes on, and an answer that comes all the same is left out', async () => {
    const open: ServerResponse[] = [];
    const { got, seen, send } = await scene(({ body }, response) => {
      if (body.includes('tools/call')) return void open.push(response);
      response.writeHead(202).end();
    });
    const called = send(call);
    while (open.length === 0) await sleep(10);
    await send({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } });
    expect(JSON.parse(seen.at(-1)?.body ?? '').method).toBe('notifications/cancelled');
    json(open[0] as ServerResponse, result);
    await called;
    expect(got).toEqual([]);
  });

  test('a host that does not read holds the server back', async () => {
    let sent = 0;
    let read = (): void => undefined;
    const blocked = new Promise<void>((resolve) => {
      read = resolve;
    });
    const line = event({ jsonrpc: '2.0', method: 'n', params: { text: 'x'.repeat(10_000) } });
    const { send } = await scene(
      (_, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        const pour = (): void => {
          while (sent < 5000) {
            sent++;
            if (!response.write(line)) return void response.once('drain', pour);
          }
          response.end(event(result));
        };
        pour();
      },
      { deliver: () => blocked },
    );
    const called = send(call);
    await sleep(500);
    const before = sent;
    await sleep(300);
    expect(sent).toBe(before);
    expect(sent).toBeLessThan(4000);
    read();
    await called;
    expect(sent).toBe(5000);
  });
});

describe('what servers should not do', () => {
  test.each<[string, Answer, object]>([
    [
      'HTML',
      (_, r) => void r.writeHead(200, { 'content-type': 'text/html' }).end('<p>'),
      { data: { code: 'http_failed' } },
    ],
    ['nothing', (_, r) => void r.writeHead(202).end(), { data: { code: 'http_failed' } }],
    [
      'JSON that is none',
      (_, r) => void r.writeHead(200, { 'content-type': 'application/json' }).end('{'),
      { data: { code: 'http_failed' } },
    ],
    ['an answer to somebody else', (_, r) => json(r, { ...result, id: 77 }), { data: { code: 'http_failed' } }],
    [
      'a stream without the answer',
      (_, r) => r.writeHead(200, { 'content-type': 'text/event-stream' }).end(': hello\n\n'),
      { data: { code: 'http_failed' } },
    ],
    ['an endless answer', (_, r) => endless(r, 'application/json'), { data: { code: 'http_too_large' } }],
    ['an endless event', (_, r) => endless(r, 'text/event-stream'), { data: { code: 'http_too_large' } }],
    ['a 500', (_, r) => void r.writeHead(500).end('secret'), { data: { status: 500 } }],
    [
      'a refusal with its reason',
      (_, r) => void r.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_client_attestation"' }).end(),
      {
        message: expect.stringContaining('(invalid_client_attestation)'),
        data: { status: 401, code: 'invalid_client_attestation' },
      },
    ],
    [
      'a refusal with odd words',
      (_, r) => void r.writeHead(401, { 'www-authenticate': 'Bearer error="Look: secret"' }).end(),
      { data: { status: 401 } },
    ],
    ['a 404 without a session', (_, r) => void r.writeHead(404).end(), { data: { status: 404 } }],
    ['an endless refusal', (_, r) => endless(r, 'application/json', 400), { data: { status: 400 } }],
    [
      'a refusal that drips',
      (_, r) => {
        r.writeHead(400, { 'content-type': 'application/json' });
        const drops = setInterval(() => r.write(' '), 100);
        r.once('close', () => clearInterval(drops));
      },
      { data: { status: 400 } },
    ],
    ['a broken connection', (_, r) => void r.destroy(), { data: { code: 'http_failed' } }],
    [
      'a stream that breaks',
      (_, r) => {
        stream(r, 'data: {');
        setTimeout(() => r.destroy(), 20);
      },
      { data: { code: 'http_failed' } },
    ],
    [
      'a redirect in circles',
      (_, r) => void r.writeHead(308, { location: '/mcp' }).end(),
      { data: { code: 'http_failed' } },
    ],
    [
      'a redirect beside its path',
      (_, r) => void r.writeHead(307, { location: '/other' }).end(),
      { data: { code: 'http_failed' } },
    ],
    [
      'a redirect that loses the body',
      (_, r) => void r.writeHead(302, { location: '/mcp/' }).end(),
      { data: { code: 'http_failed' } },
    ],
  ])('%s: the host gets an error', { timeout: 15_000 }, async (_what, answer, expected) => {
    const { got, send } = await scene(answer);
    await send(call);
    expect(got.filter((message) => 'error' in message)).toEqual(failure(expected));
    expect(JSON.stringify(got)).not.toContain('secret');
  });

  function endless(response: ServerResponse, type: string, status = 200): void {
    response.writeHead(status, { 'content-type': type });
    const pour = (): void => {
      while (!response.destroyed)
        if (!response.write('data: "'.padEnd(20_000, 'x'))) return void response.once('drain', pour);
    };
    pour();
  }

  test('a redirect to another origin takes nothing along', async () => {
    const elsewhere: Seen[] = [];
    const other = await listen((_, response) => json(response, result), elsewhere);
    for (const status of [301, 302, 303, 307, 308]) {
      const { got, send } = await scene(
        (_, response) => void response.writeHead(status, { location: other.href }).end(),
      );
      await send(call);
      expect(got).toEqual(failure({ data: { code: 'http_failed' } }));
    }
    expect(elsewhere).toEqual([]);
  });

  test('a stream that ends again and again without the answer is given up', async () => {
    const { got, seen, send } = await scene(({ method }, response) => {
      if (method === 'GET') return void response.writeHead(200, { 'content-type': 'text/event-stream' }).end();
      stream(response, 'retry: 100\nid: 1\n\n');
      response.end();
    });
    await send(call);
    expect(got).toEqual(failure({ data: { code: 'http_failed' } }));
    expect(seen.length).toBeLessThan(10);
  });

  test('a server that loses every session: one new session per message, and then an error', async () => {
    let sessions = 0;
    const { got, seen, send } = await scene(({ method, body }, response) => {
      if (body.includes('"initialize"')) {
        const { id } = JSON.parse(body);
        return json(response, { ...started, id }, 200, { 'mcp-session-id': `s-${++sessions}` });
      }
      if (body.includes('initialized')) return void response.writeHead(202).end();
      response.writeHead(method === 'GET' ? 405 : 404).end();
    });
    await send(initialize);
    await send(initialized);
    await send(call);
    expect(got.slice(1)).toEqual(failure({ data: { status: 404 } }));
    expect(sessions).toBe(2);
    expect(seen.length).toBeLessThan(10);
  });

  test('a server that forgets a new session before the handshake is over: an error, and the next call is not held up', async () => {
    let sessions = 0;
    const { got, seen, send } = await scene(({ method, body }, response) => {
      if (body.includes('"initialize"')) {
        return json(response, { ...started, id: JSON.parse(body).id }, 200, { 'mcp-session-id': `s-${++sessions}` });
      }
      if (sessions === 1 && body.includes('initialized')) return void response.writeHead(202).end();
      response.writeHead(method === 'GET' ? 405 : 404).end();
    });
    await send(initialize);
    await send(initialized);
    await Promise.all([send(call), send({ ...call, id: 2 })]);
    expect(got.slice(1)).toHaveLength(2);
    expect(got.slice(1).every((message) => 'error' in message)).toBe(true);
    expect(seen.length).toBeLessThan(15);
  });

  test.each([
    ['line ends', '2025-06-18\r\nX-Injected: yes'],
    ['what is not ASCII', '€'],
    ['fifty kilobytes', 'x'.repeat(50_000)],
  ])('a version of %s never becomes a header, and stops nothing', async (_what, protocolVersion) => {
    const { got, remote, seen, send } = await scene(({ method, body }, response) => {
      if (body.includes('"initialize"')) {
        return json(response, { jsonrpc: '2.0', id: 'i', result: { protocolVersion } }, 200, { 'mcp-session-id': 's' });
      }
      if (body.includes('tools/call')) return json(response, result);
      response.writeHead(method === 'GET' ? 405 : 202).end();
    });
    await send(initialize);
    await send(initialized);
    await send(call);
    expect(got.at(-1)).toEqual(result);
    await remote.close();
    expect(seen.at(-1)?.method).toBe('DELETE');
    for (const { headers } of seen) {
      expect(headers).not.toHaveProperty('mcp-protocol-version');
      expect(headers).not.toHaveProperty('x-injected');
    }
  });

  test('a message that is none, in the middle of a stream, is left out', async () => {
    const { got, logs, send } = await scene((_, response) => {
      stream(response, 'data: {"jsonrpc":\n\ndata: \ndata: "text"\n\n');
      stream(response, event(result));
      response.end();
    });
    await send(call);
    expect(got).toEqual([result]);
    expect(logs).toHaveLength(2);
  });

  test('what belongs to no session is not invented: an id with line ends never becomes a header', async () => {
    const { got, send } = await scene(({ method }, response) => {
      if (method === 'GET') return json(response, {}, 400);
      stream(response, 'retry: 100\nid: a\u0000b\n\nid: ü\ndata: {"jsonrpc":"2.0","method":"n"}\n\n');
      response.end();
    });
    await send(call);
    expect(got.at(-1)).toMatchObject({ id: 1, error: { data: { code: 'http_failed' } } });
  });
});
