/** MCP servers of both SDKs behind our gate, with tools that say what is known of their caller. */
import { randomUUID } from 'node:crypto';
import { McpServer as McpServerV1 } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { createMcpHandler, McpServer as McpServerV2 } from '@modelcontextprotocol/server';
import express from 'express';
import type { AttestedError } from '../../../src/errors.ts';
import { attestedResource, requireAttestedAgent } from '../../../src/integrations/express.ts';
import { toNodeListener } from '../../../src/integrations/node.ts';
import { type AuthInfo, jwtAccessTokens, protect, type RequireAttestedAgentOptions } from '../../../src/mcp/index.ts';
import { createVerifier, remoteJwks, type VerifierOptions } from '../../../src/verifier/index.ts';
import { CLIENTS, SCOPE } from './authorization-server.ts';
import { listenForTest } from './http.ts';
import type { LoopbackWorld } from './world.ts';

export interface McpServer {
  /** The MCP endpoint, which is the resource identifier too. */
  url: URL;
  refusals: AttestedError[];
  /** Sends every connected client of a stateful server word that the tools have changed. */
  announce(): void;
  /** Forgets all sessions, as a restart does. */
  forget(): Promise<void>;
}

export interface McpServerOptions {
  policy?: VerifierOptions['policy'];
  trust?: VerifierOptions['trust'];
  binding?: RequireAttestedAgentOptions['binding'];
  /** Adds tools. */
  extend?: (server: McpServerV1) => void;
}

/** What the tool `whoami` gives, as JSON. */
export interface Caller {
  clientId: string;
  subject: string | undefined;
  thumbprint: string | undefined;
  method: string | undefined;
  keyStorage: string | undefined;
}

export function callerOf(auth: { clientId: string; extra?: Record<string, unknown> } | undefined): Caller {
  const { attestation, subject } = (auth?.extra ?? {}) as AuthInfo['extra'] & { subject?: string };
  const { thumbprint, method, keyStorage } = attestation ?? {};
  return { clientId: auth?.clientId ?? 'nobody', subject, thumbprint, method, keyStorage };
}

const text = (value: unknown) => ({ content: [{ type: 'text' as const, text: JSON.stringify(value) }] });

function gateOptions(world: LoopbackWorld, resource: string, refusals: AttestedError[], options: McpServerOptions) {
  const { issuer } = world.as;
  const attester = world.attester.issuer;
  const verifier = createVerifier({
    role: 'rs',
    audience: resource,
    trust: options.trust ?? remoteJwks(`${attester}/jwks`, { clients: Object.values(CLIENTS), attester }),
    policy: { require: { status: true }, ...options.policy },
  });
  return {
    verifier,
    authorizationServers: [issuer],
    scopesSupported: [SCOPE],
    requiredScopes: [SCOPE],
    verifyAccessToken: jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` }),
    onRefusal: (error: AttestedError) => void refusals.push(error),
    ...(options.binding !== undefined && { binding: options.binding }),
  };
}

/** SDK v2 behind `protect`. */
export async function startMcpV2(world: LoopbackWorld, options: McpServerOptions = {}): Promise<McpServer> {
  const http = await listenForTest();
  const resource = `${http.origin}/mcp`;
  const refusals: AttestedError[] = [];
  const handler = createMcpHandler(() => {
    const server = new McpServerV2({ name: 'v2', version: '1.0.0' });
    server.registerTool('whoami', { description: 'Names the caller' }, async (ctx) =>
      text(callerOf(ctx.http?.authInfo)),
    );
    server.registerTool('count', { description: 'Counts to three' }, async (ctx) => {
      const progressToken = ctx.mcpReq._meta?.progressToken;
      for (let progress = 1; progress <= 3 && progressToken !== undefined; progress++) {
        await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress } });
      }
      return text('done');
    });
    options.extend?.(server as never);
    return server;
  });
  const guarded = protect(handler, gateOptions(world, resource, refusals, options));
  http.answerWith(toNodeListener(guarded, { url: resource }));
  return { url: new URL(resource), refusals, announce: () => undefined, forget: async () => undefined };
}

/** SDK v1, with sessions, behind the Express adapter. */
export async function startMcpV1(world: LoopbackWorld, options: McpServerOptions = {}): Promise<McpServer> {
  const http = await listenForTest();
  const resource = `${http.origin}/mcp`;
  const refusals: AttestedError[] = [];
  const gate = gateOptions(world, resource, refusals, options);
  const sessions = new Map<string, { owner: string; transport: StreamableHTTPServerTransport; server: McpServerV1 }>();

  const app = express();
  const endpoints = attestedResource(gate);
  app.use(endpoints);
  app.use('/mcp', requireAttestedAgent({ ...gate, resourceMetadataUrl: endpoints.metadataUrl }));
  app.all('/mcp', async (request, response) => {
    const { auth } = request as unknown as { auth: AuthInfo };
    const owner = auth.extra.attestation?.thumbprint ?? '';
    const known = sessions.get(request.get('mcp-session-id') ?? '');
    // a session belongs to the instance that began it
    if (known !== undefined && known.owner !== owner) return void response.status(404).end();
    await (known?.transport ?? (await begin(owner))).handleRequest(request as never, response);
  });
  http.answerWith(app);

  async function begin(owner: string): Promise<StreamableHTTPServerTransport> {
    const server = serverV1();
    options.extend?.(server as never);
    const transport: StreamableHTTPServerTransport = new StreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      onsessioninitialized: (id) => void sessions.set(id, { owner, transport, server }),
    });
    await server.connect(transport as never);
    return transport;
  }

  return {
    url: new URL(resource),
    refusals,
    announce: () => {
      for (const { server } of sessions.values()) server.sendToolListChanged();
    },
    forget: async () => {
      const all = [...sessions.values()];
      sessions.clear();
      for (const { transport } of all) await transport.close();
    },
  };
}

function serverV1(): McpServerV1 {
  const server = new McpServerV1({ name: 'v1', version: '1.0.0' });
  server.registerTool('whoami', { description: 'Names the caller' }, async (extra) => text(callerOf(extra.authInfo)));
  server.registerTool('count', { description: 'Counts to three' }, async (extra) => {
    const progressToken = extra._meta?.progressToken;
    for (let progress = 1; progress <= 3 && progressToken !== undefined; progress++) {
      await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress } });
    }
    return text('done');
  });
  return server;
}
