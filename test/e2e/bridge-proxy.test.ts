/** MCP clients that know nothing of attestation → `attested proxy` as a process → an attested MCP server. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client as ClientV2, StreamableHTTPClientTransport as TransportV2 } from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ToolListChangedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { expect, onTestFinished, test } from 'vitest';
import { CLIENTS, METHODS } from './support/authorization-server.ts';
import { commandFor, newPlace, type Place, textOf } from './support/bridge.ts';
import { SDKS } from './support/mcp-clients.ts';
import { startMcpV1, startMcpV2 } from './support/mcp-servers.ts';
import { startWorld } from './support/world.ts';

async function startProxy(url: URL, place: Place, more: readonly string[] = []) {
  const { command, args, env } = commandFor(url, place, ['--listen', '0', ...more], 'proxy');
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const [printed] = (await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])) as [Buffer];
  return { child, printed: String(printed).trim(), said: () => said };
}

const cases = SDKS.flatMap((sdk) => METHODS.map((method) => ({ sdk, method })));
test.each(cases)(
  'client SDK $sdk, $method: lists, calls, hears of changes; the proxy ends when asked',
  async ({ sdk, method }) => {
    const world = await startWorld();
    const mcp = await startMcpV1(world);
    const { child, printed } = await startProxy(mcp.url, await newPlace(world, method));
    expect(printed).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/[\w-]{43}$/);
    const info = { name: 'client', version: '1.0.0' };
    const client = (sdk === 'v1' ? new ClientV1(info) : new ClientV2(info)) as ClientV2;
    const transport = sdk === 'v1' ? new TransportV1(new URL(printed)) : new TransportV2(new URL(printed));
    let changed = 0;
    const on = client as unknown as { setNotificationHandler(what: unknown, handler: () => unknown): void };
    const what = sdk === 'v1' ? ToolListChangedNotificationSchema : 'notifications/tools/list_changed';
    on.setNotificationHandler(what, () => ++changed);
    await client.connect(transport as never);
    expect((await client.listTools()).tools.map(({ name }) => name)).toEqual(['whoami', 'count']);
    const caller = JSON.parse(textOf(await client.callTool({ name: 'whoami' })));
    expect(caller).toMatchObject({ clientId: CLIENTS[method], method });
    while (changed === 0) {
      mcp.announce();
      await sleep(20);
    }
    await client.close();
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
  },
);

test('version 2026-07-28 passes too, and a large result', async () => {
  const world = await startWorld();
  const mcp = await startMcpV2(world, {
    extend: (server) =>
      void server.registerTool('big', { description: 'Says a lot' }, async () => ({
        content: [{ type: 'text', text: 'x'.repeat(50 * 1024 * 1024) }],
      })),
  });
  const { printed } = await startProxy(mcp.url, await newPlace(world));
  const client = new ClientV2({ name: 'client', version: '1.0.0' }, { versionNegotiation: { mode: 'auto' } });
  await client.connect(new TransportV2(new URL(printed)));
  expect(client.getNegotiatedProtocolVersion()).toBe('2026-07-28');
  expect(textOf(await client.callTool({ name: 'big' }))).toHaveLength(50 * 1024 * 1024);
  await client.close();
});

test('a client that the attester does not let in gets a reason, and nothing to sign in at', async () => {
  const world = await startWorld();
  const mcp = await startMcpV2(world);
  const place = await newPlace(world);
  place.env.ATTESTED_ENROLMENT_TOKEN = 'never-issued';
  const { printed, said } = await startProxy(mcp.url, place);
  const response = await fetch(printed, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{}',
  });
  expect([response.status, ((await response.json()) as { error: string }).error]).toEqual([502, 'attester_refused']);
  expect(response.headers.get('www-authenticate')).toBeNull();
  expect(said()).not.toContain(new URL(printed).pathname.slice(1));
});

test('with a secret file the address is not shown, and stays the same', async () => {
  const world = await startWorld();
  const mcp = await startMcpV2(world);
  const place = await newPlace(world);
  const path = join(place.directory, 'proxy-secret');
  const { printed } = await startProxy(mcp.url, place, ['--secret-file', path]);
  expect(printed).toMatch(/\/<secret>$/);
  const secret = (await readFile(path, 'utf8')).trim();
  const ask = (at: string) => fetch(`${new URL(printed).origin}/${at}`, { method: 'POST', body: '{}' });
  expect((await ask('x')).status).toBe(404);
  expect((await ask(secret)).status).toBe(415); // the server's own word: no content type
});
