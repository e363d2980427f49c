/** Clients of both MCP SDKs sign in at the SDK v1's own authorization server, with a person, and call an attested MCP server. */
import * as v2 from '@modelcontextprotocol/client';
import * as v1 from '@modelcontextprotocol/sdk/client/auth.js';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type AgentWarning, createAgent } from '../../src/agent/index.ts';
import { createAttester } from '../../src/attester/index.ts';
import { toNodeListener } from '../../src/integrations/node.ts';
import { openKeys } from '../../src/keys/index.ts';
import { protect, withAttestation } from '../../src/mcp/index.ts';
import { createVerifier, remoteJwks, type TrustSource } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { startMcpAuthServer } from '../support/mcp-auth-server.ts';
import { newSigner } from '../support/tokens.ts';
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
  const { as, url } = await startServers(trust, pushed);
  const client_id = CLIENTS[method];
  as.clients.set(client_id, {
    client_id,
    redirect_uris: [CALLBACK],
    token_endpoint_auth_method: AUTH_METHODS[method],
  });
  return { world, as, url, instance: await world.instance(method) };
}

/** An authorization server and an MCP server that trust the same attesters. */
async function startServers(trust: TrustSource, pushed: 'optional' | 'required') {
  const as = await startMcpAuthServer({ trust, pushed });
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
  return { as, url: new URL(resource) };
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

test.each(SDKS)(
  'META-5: client SDK %s registers a client, which then enrols at the attester and calls a tool',
  async (sdk) => {
    const http = await listenForTest();
    const attester = createAttester({
      issuer: http.origin,
      signer: newSigner('ES256', 'attester-1'),
      // the attester's operator hears of a client from the authorization server
      policy: (clientId) => (as.clients.has(clientId) ? { enrolment: { tokens: true } } : undefined),
    });
    http.answerWith(toNodeListener(attester.handler, { url: http.origin }));
    const { as, url } = await startServers(remoteJwks(`${http.origin}/jwks`), 'required');

    const { discoverAuthorizationServerMetadata, registerClient } = sdk === 'v1' ? v1 : v2;
    const metadata = await discoverAuthorizationServerMetadata(as.issuer);
    const registered = await registerClient(as.issuer, {
      metadata: metadata as never,
      clientMetadata: {
        redirect_uris: [CALLBACK],
        grant_types: ['authorization_code', 'refresh_token'],
        token_endpoint_auth_method: 'attest_jwt_client_auth',
      },
    });
    expect(registered.client_secret).toBeUndefined();
    const { client_id: clientId } = registered;
    await expectRefusal(() => attester.createEnrolmentToken({ clientId: `${clientId}x` }), {
      code: 'invalid_argument',
    });

    const warnings: AgentWarning[] = [];
    const agent = await createAgent({
      clientId,
      keys: await openKeys('software'),
      attester: http.origin,
      enrolmentToken: await attester.createEnrolmentToken({ clientId }),
      method: 'attestation_pop_jwt',
      onWarning: (warning) => warnings.push(warning),
    });
    onTestFinished(() => agent.close());
    const authProvider = withAttestation(new Person(agent, as.issuer), agent);
    const client = await connect(sdk, { agent, url, authProvider });
    expect(await client.whoami()).toMatchObject({ clientId, thumbprint: agent.identities()[0]?.thumbprint });
    // a client_id of its own is what all servers know it by
    expect(warnings).toMatchObject([{ code: 'identifying_client_id' }]);
  },
);
