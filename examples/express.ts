// run: yes
// An MCP server on MCP SDK v1 and Express that admits attested agents only.
import assert from 'node:assert/strict';
import { callTool } from './support/agent.ts';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, issuer, resource, port } = world;

// #region server
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { attestedResource, requireAttestedAgent } from 'attested/integrations/express';
import { jwtAccessTokens } from 'attested/mcp';
import { createVerifier, remoteJwks } from 'attested/verifier';
import express from 'express';

const trust = remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] });
const verifier = createVerifier({ role: 'rs', audience: resource, trust });
const verifyAccessToken = jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` });
const endpoints = attestedResource({ verifier, authorizationServers: [issuer] });
const { metadataUrl: resourceMetadataUrl } = endpoints;
const guard = requireAttestedAgent({ verifier, verifyAccessToken, resourceMetadataUrl });

const app = express();
app.use(endpoints); // metadata document and challenge endpoint
app.post('/mcp', guard, express.json(), async (request, response) => {
  const server = new McpServer({ name: 'weather', version: '1.0.0' });
  server.registerTool('greet', { description: 'Greets its caller' }, async ({ authInfo }) => ({
    content: [{ type: 'text', text: `Hello ${authInfo?.clientId}` }],
  }));
  const transport = new StreamableHTTPServerTransport({});
  await server.connect(transport);
  await transport.handleRequest(request, response, request.body);
});
const http = app.listen(port);
// #endregion

const stranger = await fetch(resource, { method: 'POST' });
assert.equal(stranger.status, 401);
assert.match(stranger.headers.get('www-authenticate') ?? '', /resource_metadata="/);

assert.equal(await callTool(world, 'weather-agent', 'greet'), 'Hello weather-agent');

http.close();
http.closeAllConnections();
world.close();
