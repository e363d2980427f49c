/** The gates over HTTP/2, whose requests have fields that are none of HTTP/1.1. */
import { connect, createServer, type IncomingHttpHeaders } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { text as textOf } from 'node:stream/consumers';
import { getRequestListener } from '@hono/node-server';
import fastify from 'fastify';
import { Hono } from 'hono';
import { describe, expect, onTestFinished, test } from 'vitest';
import * as forFastify from '../../src/integrations/fastify.ts';
import * as forHono from '../../src/integrations/hono.ts';
import { toNodeListener } from '../../src/integrations/node.ts';
import { type ProtectOptions, protect } from '../../src/mcp/index.ts';
import { createGate, type GateWorld, RESOURCE, TOKEN } from '../support/gate.ts';
import { CLIENT_ID, requestOf } from '../support/world.ts';

type Line = readonly [string, string];

/** Each gives the port of a server that answers with its caller's client_id. */
const servers: Readonly<Record<string, (options: ProtectOptions) => Promise<number>>> = {
  'node:http2': (options) =>
    listen(
      toNodeListener(protect({ fetch: (_request, { authInfo }) => new Response(authInfo.clientId) }, options), {
        url: RESOURCE,
      }),
    ),
  Hono: (options) => {
    const app = new Hono<forHono.AttestedEnv>();
    app.post('/mcp', forHono.requireAttestedAgent(options), (c) => c.text(c.get('auth').clientId));
    return listen(getRequestListener(app.fetch));
  },
  Fastify: async (options) => {
    const app = fastify({ http2: true });
    app.post('/mcp', { preHandler: forFastify.requireAttestedAgent(options) as never }, async ({ raw }) => {
      return (raw as { auth?: { clientId: string } }).auth?.clientId;
    });
    await app.listen({ port: 0, host: '127.0.0.1' });
    onTestFinished(() => app.close());
    return (app.server.address() as AddressInfo).port;
  },
};

async function listen(listener: unknown): Promise<number> {
  const server = createServer({}, listener as Parameters<typeof createServer>[1]);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

async function post(port: number, lines: readonly Line[], path = '/mcp'): Promise<{ status: number; text: string }> {
  const session = connect(`http://127.0.0.1:${port}`);
  try {
    const own = [':method', 'POST', ':path', path, 'host', 'elsewhere.example', 'content-type', 'application/json'];
    // a flat list is sent as it is, with whatever is in it twice
    const fields = [...own, ...lines.flatMap(([name, value]) => [name.toLowerCase(), value])];
    const stream = session.request(fields as never);
    const answered = new Promise<IncomingHttpHeaders>((resolve, reject) => {
      stream.once('response', resolve).once('error', reject);
    });
    stream.end('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami"}}');
    const [headers, text] = await Promise.all([answered, textOf(stream)]);
    return { status: Number((headers as Record<string, unknown>)[':status']), text };
  } finally {
    session.destroy();
  }
}

function optionsOf(gate: GateWorld): ProtectOptions {
  return {
    verifier: gate.world.verifier,
    authorizationServers: ['https://as.example'],
    verifyAccessToken: async (text) => {
      if (text !== TOKEN) throw new Error('unknown token');
      return gate.token;
    },
    now: () => gate.world.clock.now,
  };
}

describe.each(Object.keys(servers))('%s', (name) => {
  const start = servers[name] as (options: ProtectOptions) => Promise<number>;
  const linesOf = async (gate: GateWorld): Promise<Line[]> =>
    requestOf(await gate.sentPop()).headers.filter(([field]) => field !== 'Accept');

  test('VER-1: who is attested gets in, and any field sent twice is refused', async () => {
    const gate = createGate({});
    const port = await start(optionsOf(gate));
    const lines = await linesOf(gate);
    // Node's client does not send Authorization twice
    for (const [field, value] of lines.filter(([field]) => field !== 'Authorization')) {
      const { status, text } = await post(port, [...lines, [field, value]]);
      expect(status, field).toBe(401);
      expect(text).not.toContain(CLIENT_ID);
    }
    const { status, text } = await post(port, lines);
    expect([status, text]).toEqual([200, CLIENT_ID]);
    expect((await post(port, lines)).status, 'a replay').toBe(401);
  });

  test('DPOP-1: combined mode, whatever authority is named', async () => {
    const gate = createGate({});
    const port = await start(optionsOf(gate));
    const lines = requestOf(await gate.sentCombined()).headers.filter(([field]) => field !== 'Accept');
    expect((await post(port, lines)).status).toBe(200);
  });
});
