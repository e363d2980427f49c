/** FastMCP behind our `authenticate`: the table of all adapters, and FastMCP's own ways around. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { attestedAuthenticate, attestedResource, type FastMcpSession } from 'attested/integrations/fastmcp';
import { type ProtectOptions, requireForTool } from 'attested/mcp';
import { FastMCP } from 'fastmcp';
import { expect, onTestFinished, test } from 'vitest';
import { callTool, describeAdapter, rpc } from '../../test/support/adapter-suite.ts';
import { at, callerOf, calls, type Listening } from '../../test/support/adapters.ts';
import { createGate } from '../../test/support/gate.ts';
import { createWorld, requestOf } from '../../test/support/world.ts';

const quiet = { debug() {}, error() {}, info() {}, log() {}, warn() {} };

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function listen(options: ProtectOptions, stateless = true): Promise<Listening> {
  const endpoints = attestedResource(options);
  const { metadataUrl: resourceMetadataUrl } = endpoints;
  const server = new FastMCP<FastMcpSession>({
    name: 'fastmcp',
    version: '1.0.0',
    logger: quiet,
    authenticate: attestedAuthenticate({ ...options, resourceMetadataUrl }),
  });
  for (const name of ['whoami', 'deploy', 'other']) {
    server.addTool({
      name,
      description: name,
      execute: async (_args, { session }) => {
        calls.push(name);
        return callerOf({ authInfo: session });
      },
    });
  }
  server.addTool({
    name: 'guarded',
    description: 'guarded',
    execute: async (_args, { session }) => (requireForTool(session, { keyStorage: 'hardware' }) as never) ?? 'done',
  });
  server.getApp().use(endpoints as never);
  const port = await freePort();
  await server.start({ transportType: 'httpStream', httpStream: { port, host: '127.0.0.1', stateless } });
  onTestFinished(() => server.stop());
  return at(port);
}

describeAdapter('FastMCP', { listen: (options) => listen(options), tools: false });

const STANDARD = [
  ['Host', 'mcp.example'],
  ['Content-Type', 'application/json'],
  ['Accept', 'application/json, text/event-stream'],
] as const;

async function start(stateless: boolean) {
  const gate = createGate();
  delete gate.token.instance;
  const { verifier, clock } = gate.world;
  const verifyAccessToken = async () => gate.token;
  const server = await listen(
    { verifier, authorizationServers: ['https://as.example'], verifyAccessToken, now: () => clock.now },
    stateless,
  );
  const lines = async (world = gate.world) => {
    const pop = await world.pop({ payload: { challenge: await gate.world.challenge() } });
    const attestation = await world.attestation();
    const sent = await gate.sentPop({ attestation, pop });
    return requestOf(sent).headers.filter(([name]) => name !== 'Accept');
  };
  return { gate, server, lines };
}

test('inside a tool: a result that says no', async () => {
  const { server, lines } = await start(true);
  const answer = await server.raw(
    '/mcp',
    [...STANDARD, ...(await lines())],
    'POST',
    JSON.stringify(callTool('guarded')),
  );
  expect(answer.text).toContain('this tool requires an attestation with a key in hardware storage');
});

test('the /sse endpoint is closed, whose messages would come without proofs', async () => {
  const { server, lines } = await start(false);
  const answer = await server.raw('/sse', [...STANDARD, ...(await lines())], 'GET');
  expect(answer.status).toBeGreaterThanOrEqual(400);
  expect(answer.text).not.toContain('sessionId');
});

test('BIND-1: a session is not for another instance, attested as it may be', async () => {
  const { gate, server, lines } = await start(false);
  const initialize = rpc('initialize', {
    protocolVersion: '2025-06-18',
    capabilities: {},
    clientInfo: { name: 'c', version: '1' },
  });
  const begun = await server.raw('/mcp', [...STANDARD, ...(await lines())], 'POST', JSON.stringify(initialize));
  const session = ['Mcp-Session-Id', begun.headers.get('mcp-session-id') ?? ''] as const;
  expect(session[1]).not.toBe('');
  const call = async (world = gate.world) =>
    server.raw('/mcp', [...STANDARD, session, ...(await lines(world))], 'POST', JSON.stringify(callTool('whoami')));
  calls.length = 0;
  expect((await call()).status).toBe(200);
  const thief = createWorld({ attester: gate.world.attester, role: 'rs', audience: gate.world.verifier.audience });
  expect((await call(thief)).status).toBe(404);
  expect(calls).toEqual(['whoami']);
  expect((await call()).status).toBe(200);
});
