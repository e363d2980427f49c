import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { text as textOf } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Act, perform } from '../../src/cli/demo/act.ts';
import { Halt } from '../../src/cli/demo/halt.ts';
import { judge } from '../../src/cli/demo/judge.ts';
import type { LoggedRefusal } from '../../src/cli/demo/protocol.ts';
import type { Scene } from '../../src/cli/demo/scene.ts';
import { type Listening, listen, listenerOf } from '../../src/cli/demo/serve.ts';

/** A scene with an MCP server that has logged these refusals. */
function sceneWith(...refusals: LoggedRefusal[]): Scene {
  return { fact: () => ({ mcp: { takeRefusals: async () => refusals } }) } as unknown as Scene;
}

describe('an attack counts as refused only when it was refused as it must be', () => {
  const expected = { at: 'mcp', status: 401, error: 'invalid_token', because: 'BIND-1' } as const;
  const answer = { status: 401, error: 'invalid_token', description: 'not yours' };
  const logged = { code: 'invalid_token', rule: 'BIND-1', message: 'not yours' };

  test.each<[string, Partial<typeof answer>, LoggedRefusal[], boolean, string]>([
    ['as expected', {}, [logged], true, '401 invalid_token'],
    ['accepted', { status: 200, error: undefined as unknown as string }, [], false, '200 without an error code'],
    ['another status', { status: 500 }, [logged], false, '500 invalid_token'],
    ['another code', { error: 'invalid_request' }, [logged], false, '401 invalid_request'],
    ['another reason', {}, [{ ...logged, rule: 'VER-1' }], false, '401 invalid_token, for another reason'],
    ['nothing in the log', {}, [], false, '401 invalid_token, for another reason'],
  ])('%s', async (_what, difference, refusals, ok, got) => {
    expect(await judge(sceneWith(...refusals), expected, { ...answer, ...difference })).toMatchObject({ ok, got });
  });
});

describe('whatever an act does, it has an outcome', () => {
  const never = new Promise<never>(() => undefined);
  const act = (run: Act['run']): Act => ({ id: 'x', title: 'X', expected: 'y', advice: 'try again', run });

  test('it throws', async () => {
    const thrown = act(async () => {
      throw Object.assign(new Error('no'), { code: 'attester_refused' });
    });
    expect(await perform(thrown, sceneWith(), never)).toMatchObject({
      ok: false,
      got: 'attester_refused: no',
      advice: 'try again',
    });
  });

  test('it hangs, and the demo is halted', async () => {
    const halted = Promise.reject(new Halt('a process died', 'look at it'));
    const outcome = await perform(
      act(() => never),
      sceneWith(),
      halted,
    );
    expect(outcome).toMatchObject({ ok: false, got: 'a process died', advice: 'look at it' });
  });

  test('a good one has no advice', async () => {
    const good = act(async () => ({ ok: true, got: 'y' }));
    const outcome = await perform(good, sceneWith(), never);
    expect(outcome).toMatchObject({ ok: true, got: 'y', details: [] });
    expect(outcome).not.toHaveProperty('advice');
  });
});

describe('node:http in front of a web-standard handler', () => {
  let http: Listening;
  beforeEach(async () => {
    http = await listen();
  });
  afterEach(() => http.close());

  const answerWith = (handler: (request: Request) => Promise<Response>) =>
    http.answerWith(listenerOf(http.origin, handler));

  test('a repeated field is not lost', async () => {
    answerWith(async ({ headers }) => new Response(headers.get('authorization')));
    const body = await new Promise<string>((resolve, reject) => {
      const request = httpRequest(http.origin, { method: 'POST' }, (response) =>
        textOf(response).then(resolve, reject),
      );
      request.setHeader('Authorization', ['Bearer a', 'Bearer b']);
      request.end('x');
    });
    expect(body).toBe('Bearer a, Bearer b');
  });

  test('method, path, body, status and headers pass both ways', async () => {
    answerWith(async (request) => {
      const { pathname, search } = new URL(request.url);
      const headers = { 'X-Seen': `${request.method} ${pathname}${search}` };
      return new Response(await request.text(), { status: 418, headers });
    });
    const response = await fetch(`${http.origin}/a/b?c=d`, { method: 'PUT', body: 'grüße' });
    expect([response.status, response.headers.get('x-seen'), await response.text()]).toEqual([
      418,
      'PUT /a/b?c=d',
      'grüße',
    ]);
  });

  test('an absolute-form target names no path of ours', async () => {
    answerWith(async ({ url }) => new Response(url));
    const { hostname, port } = new URL(http.origin);
    const socket = connect(Number(port), hostname);
    socket.write('GET http://evil.example/mcp HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n');
    expect(await textOf(socket)).toContain(`\r\n${http.origin}/`);
  });

  test('nobody there yet: 503; a handler that throws: 500 and none of its words', async () => {
    expect((await fetch(http.origin)).status).toBe(503);
    answerWith(async () => {
      throw new Error('secret');
    });
    const response = await fetch(http.origin);
    expect([response.status, await response.text()]).toEqual([500, '']);
  });

  test('a client that goes away aborts the request', async () => {
    const aborted = new Promise<void>((resolve) => {
      answerWith(({ signal }) => {
        signal.addEventListener('abort', () => resolve());
        return new Promise(() => undefined);
      });
    });
    await expect(fetch(http.origin, { signal: AbortSignal.timeout(50) })).rejects.toThrow();
    await aborted;
  });
});
