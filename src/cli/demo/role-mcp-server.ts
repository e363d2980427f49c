/** An MCP server's process: SDK v2 behind our gate. */
import { createMcpHandler, fromJsonSchema, McpServer } from '@modelcontextprotocol/server';
import { toNodeListener } from '../../integrations/node.ts';
import { jwtAccessTokens, protect } from '../../mcp/index.ts';
import { type AttestedClient, createVerifier, remoteJwks } from '../../verifier/index.ts';
import { type Caller, CLIENTS, HARDWARE_TOOL, type LoggedRefusal, type McpServerRole, SCOPE } from './protocol.ts';
import { listen } from './serve.ts';

export async function mcpServerRole(): Promise<McpServerRole> {
  const http = await listen();
  let refusals: LoggedRefusal[] = [];
  return {
    listen: async () => http.origin,
    async configure({ attester, authorizationServer, ...world }, which = 'mcp') {
      const resource = world[which];
      const verifier = createVerifier({
        role: 'rs',
        audience: resource,
        trust: remoteJwks(`${attester}/jwks`, { clients: Object.values(CLIENTS), attester }),
        status: { maxTtl: 1 },
        policy: { require: { status: true } },
      });
      const handler = protect(createMcpHandler(tools), {
        verifier,
        authorizationServers: [authorizationServer],
        scopesSupported: [SCOPE],
        requiredScopes: [SCOPE],
        binding: 'instance',
        tools: { [HARDWARE_TOOL]: { keyStorage: 'hardware', keyEvidence: 'tpm-certified' } },
        verifyAccessToken: jwtAccessTokens({
          issuer: authorizationServer,
          audience: resource,
          jwksUri: `${authorizationServer}/jwks`,
        }),
        onRefusal: ({ code, rule, message }) => refusals.push({ code, rule, message }),
      });
      http.answerWith(toNodeListener(handler, { url: http.origin }));
    },
    async takeRefusals() {
      const taken = refusals;
      refusals = [];
      return taken;
    },
  };
}

function tools(): McpServer {
  const server = new McpServer({ name: 'demo', version: '1.0.0' });
  server.registerTool(
    'whoami',
    { description: 'What this server knows about its caller', inputSchema: fromJsonSchema({ type: 'object' }) },
    async (_input, ctx) => {
      const attestation = ctx.http?.authInfo?.extra?.attestation as AttestedClient | undefined;
      if (attestation === undefined) throw new Error('an unattested caller got past the gate');
      return { content: [{ type: 'text', text: JSON.stringify(callerOf(attestation)) }] };
    },
  );
  server.registerTool(
    'add',
    {
      description: 'Adds two numbers',
      inputSchema: fromJsonSchema<{ a: number; b: number }>({
        type: 'object',
        properties: { a: { type: 'number' }, b: { type: 'number' } },
        required: ['a', 'b'],
      }),
    },
    async ({ a, b }) => ({ content: [{ type: 'text', text: String(a + b) }] }),
  );
  server.registerTool(
    HARDWARE_TOOL,
    {
      description: 'Approves a payment. Only for keys in hardware: the gate sees to it',
      inputSchema: fromJsonSchema({ type: 'object' }),
    },
    async () => ({ content: [{ type: 'text', text: 'approved' }] }),
  );
  return server;
}

function callerOf(client: AttestedClient): Caller {
  const { clientId, thumbprint, method, keyStorage, keyEvidence, attester, status, expiresAt } = client;
  const expiresIn = Math.round(expiresAt - Date.now() / 1000);
  return { clientId, thumbprint, method, keyStorage, keyEvidence, attester, status, expiresIn };
}
