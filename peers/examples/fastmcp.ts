// run: yes
// FastMCP that admits attested agents only.
import assert from 'node:assert/strict';
import { callTool } from '../../examples/support/agent.ts';
import { startWorld } from '../../examples/support/world.ts';

const world = await startWorld('weather-agent');
const { attester, issuer, resource, port } = world;

// #region server
import { attestedAuthenticate, attestedResource, type FastMcpSession } from 'attested/integrations/fastmcp';
import { jwtAccessTokens, requireForTool } from 'attested/mcp';
import { createVerifier, remoteJwks } from 'attested/verifier';
import { FastMCP } from 'fastmcp';

const trust = remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] });
const verifier = createVerifier({ role: 'rs', audience: resource, trust });
const verifyAccessToken = jwtAccessTokens({ issuer, audience: resource, jwksUri: `${issuer}/jwks` });
const endpoints = attestedResource({ verifier, authorizationServers: [issuer] });
const { metadataUrl: resourceMetadataUrl } = endpoints;
const authenticate = attestedAuthenticate({ verifier, verifyAccessToken, resourceMetadataUrl });

const server = new FastMCP<FastMcpSession>({ name: 'weather', version: '1.0.0', authenticate });
server.getApp().use(endpoints); // metadata document and challenge endpoint
server.addTool({
  name: 'greet',
  description: 'Greets its caller',
  execute: async (_args, { session }) =>
    requireForTool(session, { keyStorage: 'software' }) ?? `Hello ${session?.extra.attestation?.clientId}`,
});
await server.start({ transportType: 'httpStream', httpStream: { port, stateless: true } });
// #endregion

assert.equal((await fetch(resource, { method: 'POST', body: '{}' })).status, 401);
assert.equal(await callTool(world, 'weather-agent', 'greet'), 'Hello weather-agent');

await server.stop();
world.close();
