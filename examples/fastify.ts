// run: yes
// An MCP server on Fastify that admits attested agents only.
import assert from 'node:assert/strict';
import { callTool } from './support/agent.ts';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, issuer, resource, port } = world;

// #region server
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { attestedResource, requireAttestedAgent } from 'attested/integrations/fastify';
import { attestationOf, jwtAccessTokens } from 'attested/mcp';
import { createVerifier, remoteJwks } from 'attested/verifier';
import fastify from 'fastify';

const trust = remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] });
const verifier = createVerifier({ role: 'rs', audience: resource, trust });
const verifyAccessToken = jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` });
const endpoints = attestedResource({ verifier, authorizationServers: [issuer] });
const { metadataUrl: resourceMetadataUrl } = endpoints;
const guard = requireAttestedAgent({ verifier, verifyAccessToken, resourceMetadataUrl });

const app = fastify();
app.addHook('onRequest', endpoints); // metadata document and challenge endpoint
app.post('/mcp', { onRequest: guard }, async (request, reply) => {
  const server = new McpServer({ name: 'weather', version: '1.0.0' });
  server.registerTool('greet', { description: 'Greets its caller' }, async (extra) => ({
    content: [{ type: 'text', text: `Hello ${attestationOf(extra)?.clientId}` }],
  }));
  const transport = new StreamableHTTPServerTransport({});
  await server.connect(transport);
  reply.hijack();
  await transport.handleRequest(request.raw, reply.raw, request.body);
});
await app.listen({ port });
// #endregion

assert.equal((await fetch(resource, { method: 'POST' })).status, 401);
assert.equal(await callTool(world, 'weather-agent', 'greet'), 'Hello weather-agent');

app.server.closeAllConnections();
await app.close();
world.close();
