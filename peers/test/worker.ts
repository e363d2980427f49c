/** The Worker that the tests run in workerd. */
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { attestedWorker } from 'attested/integrations/cloudflare';
import { type AccessToken, attestationOf } from 'attested/mcp';
import { createVerifier, remoteJwks, sealedChallenges } from 'attested/verifier';

interface Env {
  RESOURCE: string;
  JWKS_URL: string;
  CHALLENGE_KEY: string;
  /** The one access token that there is, as JSON. */
  TOKEN: string;
}

const mcp = createMcpHandler(() => {
  const server = new McpServer({ name: 'worker', version: '1.0.0' });
  server.registerTool('whoami', { description: 'Names its caller' }, async (ctx) => ({
    content: [{ type: 'text', text: `${attestationOf(ctx)?.thumbprint}` }],
  }));
  server.registerTool('deploy', { description: 'Needs hardware' }, async () => ({ content: [] }));
  return server;
});

export default attestedWorker<Env>(
  (request, _env, _context, authInfo) => mcp.fetch(request, { authInfo }),
  (env) => {
    const known = JSON.parse(env.TOKEN) as AccessToken;
    return {
      verifier: createVerifier({
        role: 'rs',
        audience: env.RESOURCE,
        trust: remoteJwks(env.JWKS_URL),
        challenges: sealedChallenges({ keys: [env.CHALLENGE_KEY] }),
      }),
      authorizationServers: ['https://as.example'],
      verifyAccessToken: async (token) => {
        if (token !== known.token) throw new Error('unknown token');
        return known;
      },
      tools: { deploy: { keyStorage: 'hardware' } },
    };
  },
);
