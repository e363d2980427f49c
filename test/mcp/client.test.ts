/** MCP SDKs v1 and v2 with attestation, against node-oidc-provider and an MCP server behind our gate. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Client as ClientV2, StreamableHTTPClientTransport as TransportV2 } from '@modelcontextprotocol/client';
import { toNodeHandler } from '@modelcontextprotocol/node';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Agent } from '../../src/agent/index.ts';
import { attestedProvider, withAttestation } from '../../src/mcp/client.ts';
import { protect } from '../../src/mcp/endpoints.ts';
import { createVerifier, jwks } from '../../src/verifier/index.ts';
import { attesterSigner, CLIENT_ID, newAgent, startAs, type TestAs } from '../agent/support.ts';
import { decode } from '../support/tokens.ts';

interface McpTestServer {
  url: URL;
  /** Header fields of every request to the MCP endpoint. */
  seen: IncomingMessage['headers'][];
}

/** An MCP server with one tool, behind the gate of this package. */
async function startMcp(as: TestAs, binding: 'instance' | 'client'): Promise<McpTestServer> {
  const seen: McpTestServer['seen'] = [];
  let handle: ((request: IncomingMessage, response: ServerResponse) => unknown) | undefined;
  const server = createServer((request, response) => {
    if (request.url === '/mcp') seen.push(request.headers);
    handle?.(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const resource = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
  const mcp = createMcpHandler(() => {
    const instance = new McpServer({ name: 'test', version: '1.0.0' });
    instance.registerTool('whoami', { description: 'names the caller' }, (ctx) => {
      const { attestation } = (ctx.http?.authInfo?.extra ?? {}) as { attestation?: { thumbprint: string } };
      return { content: [{ type: 'text', text: attestation?.thumbprint ?? 'nobody' }] };
    });
    return instance;
  });
  const protectedMcp = protect(mcp as never, {
    verifier: createVerifier({
      role: 'rs',
      audience: resource,
      trust: jwks({ keys: [attesterSigner.publicJwk] }),
      policy: { popMethods: ['attestation_pop_jwt', 'dpop_combined'] },
    }),
    authorizationServers: [as.issuer],
    binding,
    async verifyAccessToken(token) {
      const found = await as.provider.ClientCredentials.find(token);
      if (found === undefined) throw new Error('unknown token');
      const jkt = (found as { jkt?: string }).jkt;
      return {
        token,
        clientId: found.clientId as string,
        scopes: ['read'],
        expiresAt: found.exp as number,
        resource: new URL(found.aud as string),
        ...(jkt !== undefined && { jkt }),
      };
    },
  });
  handle = toNodeHandler({ fetch: (request: Request) => protectedMcp(request) } as never) as never;
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: new URL(resource), seen };
}

type Call = (agent: Agent, url: URL) => Promise<string>;

const callers: Record<string, Call> = {
  v1: async (agent, url) => {
    const client = new ClientV1({ name: 'agent', version: '1.0.0' });
    const authProvider = attestedProvider(agent, { scope: 'read' });
    await client.connect(new TransportV1(url, { authProvider, fetch: agent.fetch }) as never);
    const result = await client.callTool({ name: 'whoami' });
    await client.close();
    return (result.content as { text: string }[])[0]?.text ?? '';
  },
  v2: async (agent, url) => {
    const client = new ClientV2({ name: 'agent', version: '1.0.0' });
    const authProvider = attestedProvider(agent, { scope: 'read' });
    await client.connect(new TransportV2(url, { authProvider, fetch: agent.fetch }));
    const result = await client.callTool({ name: 'whoami' });
    await client.close();
    return (result.content as { text: string }[])[0]?.text ?? '';
  },
  'v2 with its own DPoP': async (agent, url) => {
    const client = new ClientV2({ name: 'agent', version: '1.0.0' });
    const provider = { ...attestedProvider(agent, { scope: 'read' }), dpop: () => agent.dpopSession() as never };
    const authProvider = withAttestation(provider, agent);
    await client.connect(new TransportV2(url, { authProvider, fetch: agent.fetch }));
    const result = await client.callTool({ name: 'whoami' });
    await client.close();
    return (result.content as { text: string }[])[0]?.text ?? '';
  },
};

describe.each(Object.entries(callers))('MCP SDK %s', (name, call) => {
  test('META-4, CHA-2: combined mode end to end: token and calls are bound to the attested key', async () => {
    const as = await startAs({ method: 'attest_jwt_client_auth_dpop', requireNonce: true });
    const mcp = await startMcp(as, 'instance');
    const { agent } = await newAgent();
    const thumbprint = await call(agent, mcp.url);
    expect(agent.identities()).toEqual([expect.objectContaining({ server: mcp.url.href, thumbprint, generation: 1 })]);
    const last = mcp.seen.at(-1);
    expect(last?.authorization).toMatch(/^DPoP /);
    expect(last?.['oauth-client-attestation']).toBeDefined();
    expect(last?.['oauth-client-attestation-pop']).toBeUndefined();
  });

  test('POP-9, META-4: PoP mode end to end: each call has a PoP of its own for the MCP server', async () => {
    const as = await startAs({ method: 'attest_jwt_client_auth' });
    const mcp = await startMcp(as, 'client');
    const { agent } = await newAgent({ method: 'attestation_pop_jwt' });
    const thumbprint = await call(agent, mcp.url);
    expect(agent.identities()[0]?.thumbprint).toBe(thumbprint);
    const pops = mcp.seen.flatMap((headers) => headers['oauth-client-attestation-pop'] ?? []) as string[];
    if (name !== 'v2 with its own DPoP') expect(pops.length).toBeGreaterThan(1);
    expect(new Set(pops).size).toBe(pops.length);
    for (const pop of pops) expect(decode(pop).payload.aud).toBe(mcp.url.href);
  });

  test('PRIV-1: two MCP servers of one AS see different keys and attestations', async () => {
    const as = await startAs({ method: 'attest_jwt_client_auth_dpop' });
    const servers = [await startMcp(as, 'instance'), await startMcp(as, 'instance')];
    const { agent, warnings } = await newAgent();
    const keys = [];
    for (const { url } of servers) keys.push(await call(agent, url));
    expect(new Set(keys).size).toBe(2);
    const [first, second] = servers.map(
      ({ seen }) => new Set(seen.map((headers) => headers['oauth-client-attestation'])),
    );
    for (const attestation of first ?? []) if (attestation !== undefined) expect(second?.has(attestation)).toBe(false);
    expect(warnings).toEqual([]);
  });
});

describe('withAttestation', () => {
  class PrivateProvider {
    #saved: unknown[] = [];
    redirectUrl = 'https://agent.example/callback';
    get clientMetadata() {
      return { redirect_uris: [this.redirectUrl], client_name: 'x', seen: this.#saved.length };
    }
    clientInformation(): { client_id: string } | undefined {
      return this.#saved.length > 1 ? { client_id: 'own' } : undefined;
    }
    tokens() {
      return this.#saved.at(-1);
    }
    saveTokens(tokens: unknown) {
      this.#saved.push(tokens);
    }
    get count() {
      return this.#saved.length;
    }
  }

  test('works on class instances with private members, and shows the hook to `in`', async () => {
    const { agent } = await newAgent();
    const provider = withAttestation(new PrivateProvider(), agent);
    expect('addClientAuthentication' in provider).toBe(true);
    expect('dpop' in provider).toBe(false);
    const { saveTokens, tokens } = provider;
    await saveTokens({ access_token: 'a', token_type: 'Bearer' });
    expect(await tokens()).toEqual({ access_token: 'a', token_type: 'Bearer' });
    expect(provider.count).toBe(1);
    expect(provider.saveTokens).toBe(provider.saveTokens);
    expect(provider).toBeInstanceOf(PrivateProvider);
  });

  test("META-5: a registration asks for the agent's method, and the client_id is the attested one", async () => {
    const { agent } = await newAgent({ method: 'dpop_combined' });
    const plain = new PrivateProvider();
    const provider = withAttestation(plain, agent);
    expect(provider.clientMetadata).toMatchObject({
      client_name: 'x',
      token_endpoint_auth_method: 'attest_jwt_client_auth_dpop',
      client_attestation_pop_methods_supported: ['dpop_combined'],
    });
    expect(await provider.clientInformation()).toEqual({ client_id: CLIENT_ID });
    expect(await withAttestation(plain, agent, { clientId: 'provider' }).clientInformation()).toBeUndefined();
    await provider.saveTokens({});
    await provider.saveTokens({});
    expect(await provider.clientInformation()).toEqual({ client_id: 'own' });
  });
});

describe('a transport without the agent’s fetch', () => {
  const connect = async (withFetch: boolean) => {
    const as = await startAs({ method: 'attest_jwt_client_auth', requireNonce: false });
    const mcp = await startMcp(as, 'client');
    const { agent } = await newAgent({ method: 'attestation_pop_jwt' });
    const codes: string[] = [];
    agent.onWarning(({ code }) => codes.push(code));
    const transport = new TransportV2(mcp.url, {
      authProvider: attestedProvider(agent),
      ...(withFetch && { fetch: agent.fetch }),
    });
    const client = new ClientV2({ name: 'test', version: '1.0.0' });
    onTestFinished(() => client.close());
    await client.connect(transport).catch(() => undefined);
    return codes;
  };

  test('is warned of, once', async () => {
    expect(await connect(false)).toEqual(['fetch_unused']);
    expect(await connect(true)).toEqual([]);
  });
});
