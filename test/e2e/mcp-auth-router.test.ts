/** Clients of both MCP SDKs sign in at the SDK v1's own authorization server, with a person, and call an attested MCP server. */
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { describe, expect, test } from 'vitest';
import { toNodeListener } from '../../src/integrations/node.ts';
import { protect, withAttestation } from '../../src/mcp/index.ts';
import { createVerifier, remoteJwks } from '../../src/verifier/index.ts';
import { startMcpAuthServer } from '../support/mcp-auth-server.ts';
import { AUTH_METHODS, CALLBACK, CLIENTS, METHODS, type Method } from './support/authorization-server.ts';
import { visit } from './support/browser.ts';
import { listenForTest } from './support/http.ts';
import { connect, Person, SDKS } from './support/mcp-clients.ts';
import { callerOf } from './support/mcp-servers.ts';
import { startWorld } from './support/world.ts';

async function start(method: Method, pushed: 'optional' | 'required') {
  const world = await startWorld();
  const attester = world.attester.issuer;
  const trust = remoteJwks(`${attester}/jwks`, { clients: Object.values(CLIENTS), attester });
  const as = await startMcpAuthServer({ trust, pushed });
  const client_id = CLIENTS[method];
  as.clients.set(client_id, {
    client_id,
    redirect_uris: [CALLBACK],
    token_endpoint_auth_method: AUTH_METHODS[method],
  });
  const http = await listenForTest();
  const resource = `${http.origin}/mcp`;
  const handler = createMcpHandler(() => {
    const server = new McpServer({ name: 'behind', version: '1.0.0' });
    server.registerTool('whoami', { description: 'Names the caller' }, async (ctx) => ({
      content: [{ type: 'text', text: JSON.stringify(callerOf(ctx.http?.authInfo)) }],
    }));
    return server;
  });
  const guarded = protect(handler, {
    verifier: createVerifier({ role: 'rs', audience: resource, trust }),
    authorizationServers: [as.issuer],
    // the token names the instance that it was issued to, and that is the only one that may use it
    binding: 'instance',
    async verifyAccessToken(token) {
      const { clientId, instance } = as.accessTokens.get(token) ?? {};
      if (clientId === undefined || instance === undefined) throw new Error('unknown token');
      return { token, clientId, instance, scopes: [], expiresAt: Math.floor(Date.now() / 1000) + 300 };
    },
  });
  http.answerWith(toNodeListener(guarded, { url: resource }));
  return { world, as, url: new URL(resource), instance: await world.instance(method) };
}

/** An application that does not push its requests. */
class PlainPerson extends Person {
  override async redirectToAuthorization(url: URL) {
    this.asked++;
    this.callback = await visit(url, CALLBACK);
  }
}

const rows = SDKS.flatMap((sdk) => METHODS.map((method) => ({ sdk, method })));

describe.each(rows)('client SDK $sdk, $method', ({ sdk, method }) => {
  test('BIND-2: a person signs in through a pushed request; whose code and token it is, is known', async () => {
    const { as, url, instance } = await start(method, 'required');
    const { agent, traffic } = instance;
    const person = new Person(agent, as.issuer);
    const client = await connect(sdk, { agent, url, authProvider: withAttestation(person, agent) });
    expect(await client.whoami()).toMatchObject({
      clientId: CLIENTS[method],
      thumbprint: [...as.accessTokens.values()].at(-1)?.instance,
    });
    expect(person.asked).toBe(1);
    expect(traffic.lines(as.origin)).toContain('POST 201 /par');
    expect(as.refusals).toEqual([]);
  });

  test('BIND-1: without pushed requests too; a lost access token is refreshed without asking again', async () => {
    const { as, url, instance } = await start(method, 'optional');
    const { agent, traffic } = instance;
    const person = new PlainPerson(agent, as.issuer);
    const client = await connect(sdk, { agent, url, authProvider: withAttestation(person, agent) });
    const caller = await client.whoami();
    as.accessTokens.clear();
    traffic.clear();
    expect(await client.whoami()).toEqual(caller);
    expect(as.calls).toEqual(['code', 'refresh']);
    expect(person.asked).toBe(1);
    expect(as.refusals).toEqual([]);
  });
});
