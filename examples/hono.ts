// run: yes
// An MCP server on Hono that admits attested agents only; one of its tools demands more of them.
import assert from 'node:assert/strict';
import { callTool } from './support/agent.ts';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, issuer, resource, port } = world;

// #region server
import { serve } from '@hono/node-server';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { type AttestedEnv, attestedResource, requireAttestedAgent } from 'attested/integrations/hono';
import { attestationOf, jwtAccessTokens } from 'attested/mcp';
import { createVerifier, remoteJwks } from 'attested/verifier';
import { Hono } from 'hono';

const mcp = createMcpHandler(() => {
  const server = new McpServer({ name: 'weather', version: '1.0.0' });
  server.registerTool('greet', { description: 'Greets its caller' }, async (ctx) => ({
    content: [{ type: 'text', text: `Hello ${attestationOf(ctx)?.clientId}` }],
  }));
  server.registerTool('deploy', { description: 'Needs a key in hardware' }, async () => ({ content: [] }));
  return server;
});

const trust = remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] });
const verifier = createVerifier({ role: 'rs', audience: resource, trust });
const verifyAccessToken = jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` });
const endpoints = attestedResource({ verifier, authorizationServers: [issuer] });
const { metadataUrl: resourceMetadataUrl } = endpoints;
const tools = { deploy: { keyStorage: 'hardware' } } as const;
const guard = requireAttestedAgent({ verifier, verifyAccessToken, resourceMetadataUrl, tools });

const app = new Hono<AttestedEnv>();
app.use(endpoints); // metadata document and challenge endpoint
app.all('/mcp', guard, (c) => mcp.fetch(c.req.raw, { authInfo: c.get('auth') }));
const http = serve({ fetch: app.fetch, port });
// #endregion

assert.equal((await fetch(resource, { method: 'POST' })).status, 401);
assert.equal(await callTool(world, 'weather-agent', 'greet'), 'Hello weather-agent');
const enrolmentToken = await world.createEnrolmentToken();
await assert.rejects(callTool({ ...world, enrolmentToken }, 'weather-agent', 'deploy'), /access_denied/);

http.close();
world.close();
