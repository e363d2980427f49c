/** MCP hosts of both SDKs → `attested connect` as a process → attested MCP servers of both SDKs and node-oidc-provider. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { CreateMessageRequestSchema, ToolListChangedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { fromJsonSchema } from '@modelcontextprotocol/server';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openKeys } from '../../src/keys/index.ts';
import { jwks } from '../../src/verifier/index.ts';
import { CLIENTS, METHODS } from './support/authorization-server.ts';
import { type Bridged, commandFor, connectBridge, newPlace, type Place, textOf } from './support/bridge.ts';
import { visit } from './support/browser.ts';
import { SDKS, type Sdk } from './support/mcp-clients.ts';
import { startMcpV1, startMcpV2 } from './support/mcp-servers.ts';
import { startWorld } from './support/world.ts';

const servers = { v1: startMcpV1, v2: startMcpV2 } as const;
const pairs = SDKS.flatMap((host) => SDKS.flatMap((server) => METHODS.map((method) => ({ host, server, method }))));
const MEGABYTES = 50;

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

async function until(condition: () => boolean, milliseconds = 15_000): Promise<void> {
  const end = Date.now() + milliseconds;
  while (!condition()) {
    if (Date.now() > end) throw new Error('it did not happen in time');
    await sleep(20);
  }
}

/** A tool that reports progress, with pauses: of what comes in one piece over stdio, the hosts' SDKs drop progress. */
function addSteps(server: McpServer): void {
  server.registerTool('steps', { description: 'Takes three steps' }, async (given) => {
    const ctx = given as unknown as StepsContext;
    const progressToken = (ctx._meta ?? ctx.mcpReq?._meta)?.progressToken;
    const notify = ctx.sendNotification ?? ctx.mcpReq?.notify;
    for (let progress = 1; progress <= 3; progress++) {
      await notify?.({ method: 'notifications/progress', params: { progressToken, progress } });
      await sleep(50);
    }
    return { content: [] };
  });
}

interface StepsContext {
  _meta?: { progressToken?: unknown };
  sendNotification?: (notification: object) => Promise<void>;
  mcpReq?: { _meta?: { progressToken?: unknown }; notify: (notification: object) => Promise<void> };
}

async function steps({ client }: Bridged, sdk: Sdk): Promise<number[]> {
  const reports: number[] = [];
  const onprogress = ({ progress }: { progress: number }) => void reports.push(progress);
  // v1 has the schema of the result in between
  const more = sdk === 'v1' ? [undefined, { onprogress }] : [{ onprogress }];
  await client.callTool({ name: 'steps' }, ...(more as [object]));
  return reports;
}

describe.each(pairs)('host SDK $host, server SDK $server, $method', ({ host, server, method }) => {
  test('without a person: lists, calls, progress; and the process ends with its host', async () => {
    const world = await startWorld();
    const mcp = await servers[server](world, { extend: addSteps });
    const bridge = await connectBridge(host, mcp.url, { place: await newPlace(world, method) });
    const { tools } = await bridge.client.listTools();
    expect(tools.map(({ name }) => name)).toEqual(['whoami', 'count', 'steps']);
    expect(await steps(bridge, host)).toEqual([1, 2, 3]);
    const caller = JSON.parse(textOf(await bridge.client.callTool({ name: 'whoami' })));
    expect(caller).toMatchObject({
      clientId: CLIENTS[method],
      subject: CLIENTS[method],
      method,
      keyStorage: 'software',
    });
    expect(mcp.refusals.map(({ code }) => code)).toEqual(['invalid_token']);
    const { pid } = bridge;
    await bridge.close();
    await until(() => !isAlive(pid));
    expect(bridge.said()).toBe('');
  });
});

describe.each(METHODS)('%s', (method) => {
  test('BIND-1, BIND-2: a person signs in once; the token is refreshed; the next run needs neither', async () => {
    const world = await startWorld();
    world.as.tokens.lifetime = 2;
    const mcp = await startMcpV2(world);
    const place = await newPlace(world, method);
    const args = ['--grant', 'authorization_code'];
    const bridge = await connectBridge('v2', mcp.url, { place, args, signIn: true });
    expect(JSON.parse(textOf(await bridge.client.callTool({ name: 'whoami' })))).toMatchObject({
      subject: 'alice',
      method,
    });
    await sleep(2500);
    world.as.tokens.lifetime = 300;
    expect(JSON.parse(textOf(await bridge.client.callTool({ name: 'whoami' })))).toMatchObject({ subject: 'alice' });
    expect(bridge.said().match(/open this page/g)).toHaveLength(1);
    await bridge.close();

    const next = await connectBridge('v1', mcp.url, { place, args });
    expect(JSON.parse(textOf(await next.client.callTool({ name: 'whoami' })))).toMatchObject({
      subject: 'alice',
      method,
    });
    expect(next.said()).toBe('');
    expect(world.as.refusals).toEqual([]);
  });
});

test('two bridges of one identity: rotated refresh tokens are used once each, by whoever comes first', async () => {
  const world = await startWorld();
  const mcp = await startMcpV2(world);
  const place = await newPlace(world);
  const args = ['--grant', 'authorization_code'];
  world.as.tokens.lifetime = 2;
  const first = await connectBridge('v2', mcp.url, { place, args, signIn: true });
  const second = await connectBridge('v2', mcp.url, { place, args });
  for (let round = 0; round < 3; round++) {
    await sleep(2200);
    const calls = [first, second].map(({ client }) => client.callTool({ name: 'whoami' }));
    for (const result of await Promise.all(calls))
      expect(JSON.parse(textOf(result))).toMatchObject({ subject: 'alice' });
  }
  expect(first.said().match(/open this page/g)).toHaveLength(1);
  expect(second.said()).not.toContain('sign in');
});

test('a client that attests itself, at a server that knows its key', async () => {
  const place = await newPlace(await startWorld());
  const keys = await openKeys('software', { directory: place.directory });
  const { publicJwk } = await keys.createKey({ label: 'self' });
  await keys.close();
  const world = await startWorld({ as: { trust: jwks({ keys: [publicJwk] }), policy: {} } });
  const mcp = await startMcpV2(world, { trust: jwks({ keys: [publicJwk] }), policy: { require: {} } });
  delete place.env.ATTESTED_ATTESTER;
  const bridge = await connectBridge('v2', mcp.url, { place, args: ['--self-attester-key', 'self'] });
  expect(textOf(await bridge.client.callTool({ name: 'whoami' }))).toContain(CLIENTS.attestation_pop_jwt);
});

describe.each(SDKS)('host SDK %s', (sdk) => {
  test('the server says that its tools changed, and asks the host’s model something', async () => {
    const world = await startWorld();
    const mcp = await startMcpV1(world, {
      extend: (server) =>
        void server.registerTool('ask', { description: 'Asks the model' }, async () => {
          const asked = { messages: [{ role: 'user', content: { type: 'text', text: 'Well?' } }], maxTokens: 10 };
          const { content } = (await server.server.createMessage(asked as never)) as { content: { text: string } };
          return { content: [{ type: 'text', text: content.text }] };
        }),
    });
    const answer = async () => ({ model: 'm', role: 'assistant', content: { type: 'text', text: 'Very well.' } });
    let changed = 0;
    const bridge = await connectBridge(sdk, mcp.url, {
      place: await newPlace(world),
      client: { capabilities: { sampling: {} } },
      setUp: (client) => {
        const on = client as unknown as Record<string, (what: unknown, handler: () => unknown) => void>;
        on.setRequestHandler!(sdk === 'v1' ? CreateMessageRequestSchema : 'sampling/createMessage', answer);
        const notification = 'notifications/tools/list_changed';
        on.setNotificationHandler!(sdk === 'v1' ? ToolListChangedNotificationSchema : notification, () => ++changed);
      },
    });
    expect(textOf(await bridge.client.callTool({ name: 'ask' }))).toBe('Very well.');
    await until(() => {
      mcp.announce();
      return changed > 0;
    });
  });

  test('a call is cancelled at the server', async () => {
    const world = await startWorld();
    let started = false;
    let cancelled = false;
    const mcp = await startMcpV1(world, {
      extend: (server) =>
        void server.registerTool('slow', { description: 'Takes its time' }, async (ctx: unknown) => {
          started = true;
          const { signal } = ctx as { signal: AbortSignal };
          await once(signal, 'abort');
          cancelled = true;
          return { content: [] };
        }),
    });
    const { client } = await connectBridge(sdk, mcp.url, { place: await newPlace(world) });
    const stop = new AbortController();
    const more = sdk === 'v1' ? [undefined, { signal: stop.signal }] : [{ signal: stop.signal }];
    const call = client.callTool({ name: 'slow' }, ...(more as [object])).catch((error: unknown) => error);
    await until(() => started);
    stop.abort();
    await call;
    await until(() => cancelled);
    expect(textOf(await client.callTool({ name: 'whoami' }))).toContain(CLIENTS.attestation_pop_jwt);
  });

  test('a server that forgot its sessions gets the handshake again, and the host does not notice', async () => {
    const world = await startWorld();
    const mcp = await startMcpV1(world);
    let changed = 0;
    const bridge = await connectBridge(sdk, mcp.url, {
      place: await newPlace(world),
      setUp: (client) => {
        const on = client as unknown as Record<string, (what: unknown, handler: () => unknown) => void>;
        const notification = 'notifications/tools/list_changed';
        on.setNotificationHandler!(sdk === 'v1' ? ToolListChangedNotificationSchema : notification, () => ++changed);
      },
    });
    for (let restart = 0; restart < 2; restart++) {
      await mcp.forget();
      const calls = Array.from({ length: 3 }, () => bridge.client.callTool({ name: 'whoami' }));
      for (const result of await Promise.all(calls)) expect(textOf(result)).toContain(CLIENTS.attestation_pop_jwt);
      changed = 0;
      await until(() => {
        mcp.announce();
        return changed > 0;
      });
    }
    expect(bridge.said().match(/forgotten the session/g)?.length).toBeGreaterThanOrEqual(2);
  });

  test('a client that the attester does not let in: the host gets the reason', async () => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const place = await newPlace(world);
    place.env.ATTESTED_ENROLMENT_TOKEN = 'never-issued';
    const error = await connectBridge(sdk, mcp.url, { place }).catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: -32_603, data: { code: 'attester_refused' } });
    expect((error as Error).message).not.toContain('never-issued');
  });

  test('an instance that is revoked: the host gets the reason, and nobody is sent to sign in', async () => {
    const world = await startWorld({ as: { status: { maxTtl: 1 } } });
    world.as.tokens.lifetime = 4;
    const mcp = await startMcpV2(world);
    const bridge = await connectBridge(sdk, mcp.url, { place: await newPlace(world) });
    const { thumbprint } = JSON.parse(textOf(await bridge.client.callTool({ name: 'whoami' })));
    await world.attester.revoke({ thumbprint });
    await sleep(4500);
    const error = await bridge.client.callTool({ name: 'whoami' }).catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: -32_603, data: { code: 'invalid_client_attestation' } });
    expect(bridge.said()).toBe('');
  });
});

test('version 2026-07-28: no session, mirrored header fields, and a cancelled call ends its stream', async () => {
  const world = await startWorld();
  let cancelled = false;
  const mcp = await startMcpV2(world, {
    extend: (server) => {
      addSteps(server);
      const region = { type: 'string', 'x-mcp-header': 'Region' };
      const inputSchema = fromJsonSchema<{ region: string }>({ type: 'object', properties: { region } });
      const where = async ({ region }: { region: string }) => ({ content: [{ type: 'text', text: region }] });
      server.registerTool('where', { description: 'Says where', inputSchema } as object, where as never);
      server.registerTool('slow', { description: 'Takes its time' }, async (ctx: unknown) => {
        const { signal } = (ctx as { mcpReq: { signal: AbortSignal } }).mcpReq;
        await once(signal, 'abort');
        cancelled = true;
        return { content: [] };
      });
    },
  });
  const client = { versionNegotiation: { mode: 'auto' } };
  const bridge = await connectBridge('v2', mcp.url, { place: await newPlace(world), client });
  expect(bridge.client.getNegotiatedProtocolVersion()).toBe('2026-07-28');
  // the bridge has not seen the tools yet, so that it has to ask for them itself
  const call = { name: 'where', arguments: { region: ' Zürich' } };
  expect(textOf(await bridge.client.callTool(call))).toBe(' Zürich');
  expect(await steps(bridge, 'v2')).toEqual([1, 2, 3]);
  const stop = new AbortController();
  const slow = bridge.client.callTool({ name: 'slow' }, { signal: stop.signal }).catch((error: unknown) => error);
  await sleep(300);
  stop.abort();
  await slow;
  await until(() => cancelled);
});

describe('the process', () => {
  test(`a result of ${MEGABYTES} MB passes, and calls beside it`, { timeout: 60_000 }, async () => {
    const world = await startWorld();
    const mcp = await startMcpV2(world, {
      extend: (server) =>
        void server.registerTool('big', { description: 'Says a lot' }, async () => ({
          content: [{ type: 'text', text: 'x'.repeat(MEGABYTES * 1024 * 1024) }],
        })),
    });
    // the SDKs' hosts would spend a minute on putting such a line together: theirs is not what is tested
    const { say, answer, messages } = await startRaw({ url: mcp.url, place: await newPlace(world) });
    say(`${JSON.stringify(initialize)}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n`);
    say('{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"big"}}\n');
    for (let id = 100; id < 110; id++)
      say(`{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"whoami"}}\n`);
    expect(textOf((await answer(7)).result)).toHaveLength(MEGABYTES * 1024 * 1024);
    await until(() => messages.length === 12);
  });

  const initialize = {
    jsonrpc: '2.0',
    id: 1,
    method: 'initialize',
    params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'raw', version: '1' } },
  };
  const slowTool = { jsonrpc: '2.0', id: 2, method: 'tools/call', params: { name: 'slow' } };

  async function startRaw(options: { url: URL; place: Place }) {
    const { command, args, env } = commandFor(options.url, options.place);
    const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    const messages: { id?: unknown; result?: never; error?: never }[] = [];
    let parts: string[] = [];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const [first = '', ...others] = text.split('\n');
      parts.push(first);
      for (const part of others) {
        messages.push(JSON.parse(parts.join('')));
        parts = [part];
      }
    });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    const exited = once(child, 'exit');
    return {
      child,
      exited,
      messages,
      said: () => said,
      say: (text: string) => void child.stdin.write(text),
      answer: async (id: unknown) => {
        await until(() => messages.some((message) => message.id === id));
        return messages.find((message) => message.id === id) as Record<'result' | 'error', never>;
      },
    };
  }

  async function withSlowTool() {
    const world = await startWorld();
    let calls = 0;
    const mcp = await startMcpV1(world, {
      extend: (server) =>
        void server.registerTool('slow', { description: 'Takes its time' }, async () => {
          calls++;
          await sleep(60_000, undefined, { ref: false });
          return { content: [] };
        }),
    });
    const raw = await startRaw({ url: mcp.url, place: await newPlace(world) });
    raw.say(`${JSON.stringify(initialize)}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n`);
    await raw.answer(1);
    const callSlow = (): Promise<void> => {
      raw.say(`${JSON.stringify(slowTool)}\n`);
      return until(() => calls > 0);
    };
    return { ...raw, callSlow };
  }

  test('garbage, half messages and messages in pieces: errors for the host, and it goes on', async () => {
    const { say, answer, messages, said } = await withSlowTool();
    say('this is not JSON\n');
    say('{"jsonrpc":"2.0","id":9}\n[]\n"text"\n\n   \n\r\n');
    say('{"jsonrpc":"2.0","id":"a');
    await sleep(50);
    say('b","method":"tools/list"}\r');
    await sleep(50);
    say('\n');
    expect(((await answer('ab')).result as { tools: unknown[] }).tools).toHaveLength(3);
    const errors = messages.filter(({ id }) => id === null);
    expect(errors.map(({ error }) => (error as unknown as { code: number }).code)).toEqual([
      -32_700, -32_600, -32_600, -32_600,
    ]);
    expect(said()).not.toContain('this is not JSON');
  });

  test('the host closes its end in the middle of a call', async () => {
    const { child, exited, callSlow } = await withSlowTool();
    await callSlow();
    const closed = performance.now();
    child.stdin.end();
    expect(await exited).toEqual([0, null]);
    expect(performance.now() - closed).toBeLessThan(6000);
  });

  test('answers that are nearly there are waited for', async () => {
    const { child, exited, say, messages } = await withSlowTool();
    say(
      '{"jsonrpc":"2.0","id":3,"method":"tools/list"}\n{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"whoami"}}',
    );
    child.stdin.end();
    expect(await exited).toEqual([0, null]);
    expect(messages.map(({ id }) => id)).toEqual(expect.arrayContaining([3, 4]));
  });

  test('the host goes away while somebody should sign in; signed in beforehand, nobody is asked', async () => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const place = await newPlace(world);
    place.args.push('--grant', 'authorization_code');
    const { child, exited, say, said } = await startRaw({ url: mcp.url, place });
    say(`${JSON.stringify(initialize)}\n`);
    await until(() => said().includes('open this page'));
    const closed = performance.now();
    child.stdin.end();
    expect(await exited).toEqual([0, null]);
    expect(performance.now() - closed).toBeLessThan(6000);

    const first = await startRaw({ url: mcp.url, place: { ...place, args: [...place.args, '--sign-in'] } });
    await until(() => first.said().includes('open this page'));
    const page = /open this page: (\S+)\n/.exec(first.said())?.[1] ?? '';
    await visit(page, 'http://127.0.0.1:0/').catch(() => undefined);
    expect(await first.exited).toEqual([0, null]);
    expect(first.messages).toEqual([]);

    const second = await startRaw({ url: mcp.url, place });
    second.child.stderr.destroy(); // nor does it matter that nobody listens to what is said to people
    second.say(`not JSON\n${JSON.stringify(initialize)}\n`);
    expect((await second.answer(1)).result).toBeDefined();
    expect(world.as.refusals).toEqual([]);
  });

  test.each(['SIGTERM', 'SIGINT'] as const)('%s in the middle of a call', async (signal) => {
    const { child, exited, callSlow } = await withSlowTool();
    await callSlow();
    child.kill(signal);
    expect(await exited).toEqual([0, null]);
  });

  test('nobody reads any more', async () => {
    const { child, exited, say } = await withSlowTool();
    child.stdout.destroy();
    for (let id = 10; id < 14; id++) say(`{"jsonrpc":"2.0","id":${id},"method":"tools/list"}\n`);
    expect(await exited).toEqual([0, null]);
  });

  test('a host that is killed leaves no bridge behind', async () => {
    const world = await startWorld();
    const mcp = await startMcpV1(world);
    const { command, args, env } = commandFor(mcp.url, await newPlace(world));
    const host = spawn(
      command,
      [
        '-e',
        `const c = require('node:child_process').spawn(${JSON.stringify(command)}, ${JSON.stringify(args)}, { stdio: ['pipe', 'pipe', 'ignore'] });
         c.stdin.write(${JSON.stringify(`${JSON.stringify(initialize)}\n`)});
         c.stdout.once('data', () => console.log(c.pid));`,
      ],
      { env, stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const [text] = (await once(host.stdout, 'data')) as [Buffer];
    const pid = Number(text.toString());
    expect(isAlive(pid)).toBe(true);
    host.kill('SIGKILL');
    await until(() => !isAlive(pid));
  });

  test('a server that is not there yet is waited for; one that does not come is an error', async () => {
    const world = await startWorld();
    const server = createServer((request, response) => {
      response.setHeader('content-type', 'application/json');
      if (request.method !== 'POST') response.writeHead(405).end();
      else response.end('{"jsonrpc":"2.0","id":1,"result":{}}');
    });
    const port = await new Promise<number>((resolve) => {
      server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
    });
    await new Promise((resolve) => server.close(resolve));
    const raw = await startRaw({ url: new URL(`http://127.0.0.1:${port}/mcp`), place: await newPlace(world) });
    raw.say(`${JSON.stringify(initialize)}\n`);
    await sleep(800);
    server.listen(port, '127.0.0.1');
    expect((await raw.answer(1)).result).toEqual({});
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    raw.say('{"jsonrpc":"2.0","id":5,"method":"ping"}\n');
    expect((await raw.answer(5)).error).toMatchObject({ code: -32_603, data: { code: 'http_failed' } });
  });
});
