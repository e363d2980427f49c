/** The MCP server that examples/client.ts calls. examples/server.ts shows how one is made. */
import { createServer, type Server } from 'node:http';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { toNodeListener } from 'attested/integrations/node';
import { jwtAccessTokens, protect } from 'attested/mcp';
import { type AttestedClient, createVerifier, remoteJwks } from 'attested/verifier';
import type { World } from './world.ts';

export function serveMcp(world: World): Server {
  return createServer(toNodeListener(mcpHandler(world), { url: world.resource })).listen(world.port);
}

export function mcpHandler({ attester, issuer, resource }: World): (request: Request) => Promise<Response> {
  const trust = remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] });
  const verifier = createVerifier({ role: 'rs', audience: resource, trust });
  const verifyAccessToken = jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` });
  return protect(createMcpHandler(tools), { verifier, authorizationServers: [issuer], verifyAccessToken });
}

export function tools(): McpServer {
  const server = new McpServer({ name: 'weather', version: '1.0.0' });
  server.registerTool('whoami', { description: 'Names its caller' }, async (ctx) => {
    const caller = ctx.http?.authInfo?.extra?.attestation as AttestedClient | undefined;
    return { content: [{ type: 'text', text: `${caller?.clientId} ${caller?.thumbprint}` }] };
  });
  return server;
}
