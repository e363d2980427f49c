// run: yes
// An MCP server that admits attested agents only, and knows which one is calling.
import assert from 'node:assert/strict';
import { callTool } from './support/agent.ts';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, issuer, resource, serve } = world;

// #region quickstart
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { jwtAccessTokens, protect } from 'attested/mcp';
import { createVerifier, remoteJwks } from 'attested/verifier';

const handler = createMcpHandler(({ authInfo }) => {
  const server = new McpServer({ name: 'weather', version: '1.0.0' });
  server.registerTool('greet', { description: 'Greets its caller' }, async () => ({
    content: [{ type: 'text', text: `Hello ${authInfo?.clientId}` }],
  }));
  return server;
});

const verifier = createVerifier({
  role: 'rs',
  audience: resource,
  trust: remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] }),
});
const verifyAccessToken = jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` });
serve(protect(handler, { verifier, authorizationServers: [issuer], verifyAccessToken }));
// #endregion

const stranger = await fetch(resource, { method: 'POST', headers: { authorization: 'Bearer stolen' } });
assert.equal(stranger.status, 401);
assert.match(await stranger.text(), /"invalid_client_attestation"/);

assert.equal(await callTool(world, 'weather-agent', 'greet'), 'Hello weather-agent');

world.close();
