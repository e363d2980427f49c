// An MCP server over stdio that admits attested agents only. examples/stdio-client.ts starts it.

const jwksOfAttester = JSON.parse(process.env.ATTESTER_KEYS ?? '[]') as { kty: string }[];

// #region server
import { McpServer } from '@modelcontextprotocol/server';
import { StdioServerTransport, serveStdio } from '@modelcontextprotocol/server/stdio';
import { attestationOf, requireAttestedTransport, requireForTool } from 'attested/mcp';
import { createVerifier, jwks } from 'attested/verifier';

const trust = jwks({ keys: jwksOfAttester, clients: ['weather-agent'] }); // or remoteJwks, as over HTTP
const policy = { concatenated: true };
const verifier = createVerifier({ role: 'rs', audience: 'urn:example:weather', trust, policy });
serveStdio(weather, { transport: requireAttestedTransport(new StdioServerTransport(), { verifier }) });
// #endregion

// #region tools
function weather(): McpServer {
  const server = new McpServer({ name: 'weather', version: '1.0.0' });
  server.registerTool('greet', { description: 'Greets its caller' }, async (ctx) => ({
    content: [{ type: 'text', text: `Hello ${attestationOf(ctx)?.clientId}` }],
  }));
  server.registerTool('deploy', { description: 'Needs a key in hardware' }, async (ctx) => {
    return requireForTool(ctx, { keyStorage: 'hardware' }) ?? { content: [{ type: 'text', text: 'done' }] };
  });
  return server;
}
// #endregion
