/** The tracking guard with real MCP servers, watched from the servers' side. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { attestedProvider } from '../../src/mcp/index.ts';
import { METHODS, SCOPE } from './support/authorization-server.ts';
import { connect, SDKS } from './support/mcp-clients.ts';
import { startMcpV2 } from './support/mcp-servers.ts';
import { startWorld } from './support/world.ts';

/** Fields by which a request shows who sent it. */
const TELLING = ['oauth-client-attestation', 'oauth-client-attestation-pop', 'dpop', 'authorization'];

/** Counts what reaches a server of this process: all requests, and those that show a key, a token, or what vouches for them. */
function watch(url: URL) {
  const seen = { all: 0, telling: 0 };
  const listener = (message: unknown) => {
    const { request, server } = message as { request: IncomingMessage; server: Server };
    if (String((server.address() as AddressInfo | null)?.port) !== url.port) return;
    seen.all++;
    if (TELLING.some((name) => request.headers[name] !== undefined)) seen.telling++;
  };
  subscribe('http.server.request.start', listener);
  onTestFinished(() => void unsubscribe('http.server.request.start', listener));
  return seen;
}

const rows = SDKS.flatMap((sdk) => METHODS.map((method) => ({ sdk, method })));

describe.each(rows)('SDK $sdk, $method', ({ sdk, method }) => {
  async function twoServers(tracking: 'separate' | 'warn' | 'refuse') {
    const world = await startWorld();
    const [first, second] = [await startMcpV2(world), await startMcpV2(world)];
    const instance = await world.instance(method, { tracking });
    const [atFirst, atSecond] = [watch(first.url), watch(second.url)];
    const open = (url: URL) =>
      connect(sdk, {
        agent: instance.agent,
        url,
        authProvider: attestedProvider(instance.agent, { scope: SCOPE }),
      });
    return { ...instance, first, second, atFirst, atSecond, open };
  }

  test('PRIV-2: mode warn: the warning comes before the second server has seen anything that tells', async () => {
    const { agent, warnings, first, second, atFirst, atSecond, open } = await twoServers('warn');
    const atWarning: number[] = [];
    agent.on('warning', ({ code }) => code === 'tracking' && atWarning.push(atSecond.telling));
    const { thumbprint } = await (await open(first.url)).whoami();
    expect(atFirst.telling).toBeGreaterThan(0);
    expect(atSecond.all).toBe(0);
    expect(warnings).toEqual([]);
    expect((await (await open(second.url)).whoami()).thumbprint).toBe(thumbprint);
    expect(atWarning).toEqual([0]);
    expect(atSecond.telling).toBeGreaterThan(0);
    expect(warnings).toMatchObject([{ code: 'tracking', servers: [first.url.href, second.url.href], thumbprint }]);
  });

  test('PRIV-2: mode refuse: the second server sees nothing that tells, the first goes on', async () => {
    const { first, second, atSecond, open } = await twoServers('refuse');
    const client = await open(first.url);
    await expect(open(second.url)).rejects.toMatchObject({ code: 'tracking_refused' });
    expect(atSecond.telling).toBe(0);
    expect(await client.tools()).toContain('whoami');
  });

  test('PRIV-1: mode separate: both see the agent, neither the other’s key', async () => {
    const { agent, warnings, first, second, open } = await twoServers('separate');
    const one = await (await open(first.url)).whoami();
    const other = await (await open(second.url)).whoami();
    expect(one.thumbprint).not.toBe(other.thumbprint);
    expect(warnings).toEqual([]);
    expect(agent.correlations().links.every(({ by }) => by === 'token')).toBe(true);
  });
});
