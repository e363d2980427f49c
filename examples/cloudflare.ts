// run: yes
// A Worker that is an MCP server for attested agents. Here Node runs it; in workerd the tests do.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { toNodeListener } from 'attested/integrations/node';
import { callTool } from './support/agent.ts';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, issuer, resource, port } = world;

// #region worker
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { attestedWorker } from 'attested/integrations/cloudflare';
import { attestationOf, jwtAccessTokens } from 'attested/mcp';
import { createVerifier, remoteJwks, sealedChallenges } from 'attested/verifier';

const mcp = createMcpHandler(() => {
  const server = new McpServer({ name: 'weather', version: '1.0.0' });
  server.registerTool('greet', { description: 'Greets its caller' }, async (ctx) => ({
    content: [{ type: 'text', text: `Hello ${attestationOf(ctx)?.clientId}` }],
  }));
  return server;
});

const worker = attestedWorker<{ CHALLENGE_KEY: string }>(
  (request, _env, _context, authInfo) => mcp.fetch(request, { authInfo }),
  (env) => {
    const trust = remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] });
    const challenges = sealedChallenges({ keys: [env.CHALLENGE_KEY] });
    const verifier = createVerifier({ role: 'rs', audience: resource, trust, challenges });
    const verifyAccessToken = jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` });
    return { verifier, authorizationServers: [issuer], verifyAccessToken };
  },
);
// #endregion

const env = { CHALLENGE_KEY: 'a secret of 32 bytes, from `wrangler secret`' };
const http = createServer(toNodeListener((request) => worker.fetch(request, env, {}), { url: resource })).listen(port);

assert.equal((await fetch(resource, { method: 'POST' })).status, 401);
assert.equal(await callTool(world, 'weather-agent', 'greet'), 'Hello weather-agent');

http.close();
http.closeAllConnections();
world.close();
