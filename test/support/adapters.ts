/** Every server adapter with an MCP server of either SDK behind it, on a port of this machine. */
import { createServer, type RequestListener, request as sendRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text as textOf } from 'node:stream/consumers';
import { getRequestListener } from '@hono/node-server';
import { toNodeHandler } from '@modelcontextprotocol/node';
import { McpServer as McpServerV1 } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js';
import { createMcpHandler, McpServer as McpServerV2 } from '@modelcontextprotocol/server';
import express from 'express';
import fastify from 'fastify';
import { Hono } from 'hono';
import { onTestFinished } from 'vitest';
import { attestedWorker } from '../../src/integrations/cloudflare.ts';
import * as forExpress from '../../src/integrations/express.ts';
import * as forFastify from '../../src/integrations/fastify.ts';
import * as forHono from '../../src/integrations/hono.ts';
import { toNodeListener } from '../../src/integrations/node.ts';
import {
  type AuthInfo,
  attestationOf,
  type ProtectOptions,
  protect,
  requireForTool,
  type ToolContext,
} from '../../src/mcp/index.ts';
import { RESOURCE } from './gate.ts';

/** What a tool of the server saw. */
export const calls: string[] = [];

/** What tools can know of their caller, as text. */
export function callerOf(context: ToolContext): string {
  const { clientId, thumbprint, keyStorage, keyEvidence, attester, claims } = attestationOf(context) ?? {};
  return JSON.stringify({ client: clientId, thumbprint, keyStorage, keyEvidence, attester, sub: claims?.sub });
}

const said = (text: string) => ({ content: [{ type: 'text' as const, text }] });

function registerTools(register: (name: string, tool: (context: ToolContext) => object) => void): void {
  for (const name of ['whoami', 'deploy', 'Deploy', 'other']) {
    register(name, (context) => {
      calls.push(name);
      return said(callerOf(context));
    });
  }
  register('guarded', (context) => requireForTool(context, { keyStorage: 'hardware' }) ?? said('done'));
}

export function serverV1(): McpServerV1 {
  const server = new McpServerV1({ name: 'v1', version: '1.0.0' });
  registerTools((name, tool) =>
    server.registerTool(name, { description: name }, async (extra) => tool(extra) as never),
  );
  server.registerResource('note', 'note://1', {}, async () => ({ contents: [{ uri: 'note://1', text: 'a note' }] }));
  return server;
}

export function serverV2(): McpServerV2 {
  const server = new McpServerV2({ name: 'v2', version: '1.0.0' });
  registerTools((name, tool) => server.registerTool(name, { description: name }, async (ctx) => tool(ctx) as never));
  server.registerResource('note', 'note://1', {}, async () => ({ contents: [{ uri: 'note://1', text: 'a note' }] }));
  return server;
}

/** v1 without sessions: one server per request. */
async function nodeTransportV1(): Promise<StreamableHTTPServerTransport> {
  const transport = new StreamableHTTPServerTransport({});
  await serverV1().connect(transport as never);
  return transport;
}

const expressApp = (options: ProtectOptions, mcp: express.Handler): RequestListener => {
  const app = express();
  const endpoints = forExpress.attestedResource(options);
  app.use(endpoints);
  const guard = forExpress.requireAttestedAgent({ ...options, resourceMetadataUrl: endpoints.metadataUrl });
  app.all('/mcp', express.json(), guard, mcp);
  return app as unknown as RequestListener;
};

const fastifyApp = async (
  options: ProtectOptions,
  mcp: (request: never, response: never, body: unknown) => Promise<unknown>,
): Promise<RequestListener> => {
  const app = fastify();
  const endpoints = forFastify.attestedResource(options);
  const preHandler = forFastify.requireAttestedAgent({ ...options, resourceMetadataUrl: endpoints.metadataUrl });
  app.addHook('onRequest', endpoints);
  app.all('/mcp', { preHandler }, async (request, reply) => {
    reply.hijack();
    await mcp(request.raw as never, reply.raw as never, request.body);
  });
  await app.ready();
  return (request, response) => app.routing(request, response);
};

const honoApp = (
  options: ProtectOptions,
  mcp: (request: Request, authInfo: AuthInfo) => Response | Promise<Response>,
): RequestListener => {
  const app = new Hono<forHono.AttestedEnv>();
  const endpoints = forHono.attestedResource(options);
  app.use(endpoints);
  const guard = forHono.requireAttestedAgent({ ...options, resourceMetadataUrl: endpoints.metadataUrl });
  app.all('/mcp', guard, (c) => mcp(c.req.raw, c.get('auth')));
  return getRequestListener(app.fetch);
};

const webTransportV1 = async (request: Request, authInfo: AuthInfo): Promise<Response> => {
  const transport = new WebStandardStreamableHTTPServerTransport({});
  await serverV1().connect(transport as never);
  return transport.handleRequest(request, { authInfo });
};

export type Adapter = (options: ProtectOptions) => RequestListener | Promise<RequestListener>;

export const adapters: Readonly<Record<string, Adapter>> = {
  'Express, v1': (options) =>
    expressApp(options, async (request, response) => {
      await (await nodeTransportV1()).handleRequest(request as never, response, request.body);
    }),
  'Express, v2': (options) => {
    const handler = toNodeHandler(createMcpHandler(serverV2));
    return expressApp(options, (request, response) => handler(request as never, response as never, request.body));
  },
  'Fastify, v1': (options) =>
    fastifyApp(options, async (request, response, body) =>
      (await nodeTransportV1()).handleRequest(request, response, body),
    ),
  'Fastify, v2': (options) => {
    const handler = toNodeHandler(createMcpHandler(serverV2));
    return fastifyApp(options, async (request, response, body) => handler(request, response, body));
  },
  'Hono, v1': (options) => honoApp(options, webTransportV1),
  'Hono, v2': (options) => {
    const handler = createMcpHandler(serverV2);
    return honoApp(options, (request, authInfo) => handler.fetch(request, { authInfo }));
  },
  'node:http, v1': (options) =>
    toNodeListener(protect({ fetch: (request, { authInfo }) => webTransportV1(request, authInfo) }, options), {
      url: RESOURCE,
    }),
  'node:http, v2': (options) => toNodeListener(protect(createMcpHandler(serverV2), options), { url: RESOURCE }),
  'Worker, v2': (options) => {
    const handler = createMcpHandler(serverV2);
    const worker = attestedWorker<{ options: ProtectOptions }>(
      (request, _env, _context, authInfo) => handler.fetch(request, { authInfo }),
      (env) => env.options,
    );
    return toNodeListener((request) => worker.fetch(request, { options }, {}), { url: RESOURCE });
  },
};

export interface Listening {
  origin: string;
  /** Sends these very header lines and gives the whole answer. */
  raw(
    target: string,
    headers: readonly (readonly [string, string])[],
    method?: string,
    body?: string,
  ): Promise<RawAnswer>;
}

export interface RawAnswer {
  status: number;
  headers: Headers;
  text: string;
}

export async function listen(listener: RequestListener): Promise<Listening> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return at((server.address() as AddressInfo).port);
}

export function at(port: number): Listening {
  return {
    origin: `http://127.0.0.1:${port}`,
    raw: (target, headers, method = 'POST', body = '') =>
      new Promise((resolve, reject) => {
        const length = method === 'GET' ? [] : ['Content-Length', String(Buffer.byteLength(body))];
        // a flat list is sent as it is, with whatever is in it twice
        const lines = [...headers.flat(), ...length, 'Connection', 'close'];
        const request = sendRequest({ port, host: '127.0.0.1', path: target, method, headers: lines, agent: false });
        request.on('error', reject);
        request.on('response', (response) => {
          textOf(response).then((text) => {
            resolve({ status: response.statusCode ?? 0, headers: headersOf(response.rawHeaders), text });
          }, reject);
        });
        request.end(body);
      }),
  };
}

function headersOf(rawHeaders: readonly string[]): Headers {
  const headers = new Headers();
  for (let i = 0; i + 1 < rawHeaders.length; i += 2)
    headers.append(rawHeaders[i] as string, rawHeaders[i + 1] as string);
  return headers;
}
