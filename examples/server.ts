// run: yes
// An MCP server that admits attested agents only, and knows which one is calling.
import assert from 'node:assert/strict';
import { callTool } from './support/agent.ts';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, issuer, resource, port } = world;

// #region quickstart
import { createServer } from 'node:http';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { toNodeListener } from 'attested/integrations/node';
import { jwtAccessTokens, protect } from 'attested/mcp';
import { createVerifier, remoteJwks } from 'attested/verifier';

const mcp = createMcpHandler(({ authInfo }) => {
  const server = new McpServer({ name: 'weather', version: '1.0.0' });
  const content = [{ type: 'text' as const, text: `Hello ${authInfo?.clientId}` }];
  server.registerTool('greet', { description: 'Greets its caller' }, async () => ({ content }));
  return server;
});

const trust = remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] });
const verifier = createVerifier({ role: 'rs', audience: resource, trust });
const verifyAccessToken = jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` });
const handler = protect(mcp, { verifier, authorizationServers: [issuer], verifyAccessToken });
const http = createServer(toNodeListener(handler, { url: resource })).listen(port);
// #endregion

const stranger = await fetch(resource, { method: 'POST', headers: { authorization: 'Bearer stolen' } });
assert.equal(stranger.status, 401);
assert.match(await stranger.text(), /"invalid_client_attestation"/);

assert.equal(await callTool(world, 'weather-agent', 'greet'), 'Hello weather-agent');

http.close();
http.closeAllConnections();
world.close();
