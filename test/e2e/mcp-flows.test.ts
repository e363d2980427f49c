/** Client flows of both MCP SDKs that mcp-clients.test.ts does not walk through: what they cost, what discovery loses, whose DPoP keys. */
import { describe, expect, test } from 'vitest';
import { attestedProvider, withAttestation } from '../../src/mcp/index.ts';
import { decode } from '../support/tokens.ts';
import { CLIENTS, METHODS, SCOPE } from './support/authorization-server.ts';
import { connect, Person, SDKS } from './support/mcp-clients.ts';
import { startMcpV2 } from './support/mcp-servers.ts';
import { startWorld } from './support/world.ts';

const flows = SDKS.flatMap((sdk) => METHODS.map((method) => ({ sdk, method })));
const RFC8414 = '/.well-known/oauth-authorization-server';

describe.each(flows)('client SDK $sdk, $method', ({ sdk, method }) => {
  test('CHA-2, CHA-3: one request more per server and process, and none where the server sends challenges itself', async () => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const { agent, traffic } = await world.instance(method);
    const client = await connect(sdk, { agent, url: mcp.url, authProvider: attestedProvider(agent, { scope: SCOPE }) });
    for (let i = 0; i < 3; i++) await client.whoami();
    // without attestation it would be all of these but the challenge
    expect(traffic.lines(world.as.issuer)).toEqual([`GET 200 ${RFC8414}`, 'POST 200 /challenge', 'POST 200 /token']);
    const atMcp = traffic.lines(mcp.url.origin);
    expect(atMcp.filter((line) => line.includes('challenge'))).toEqual([]);
    expect(atMcp.filter((line) => line.startsWith('POST 401'))).toHaveLength(1);

    // a second MCP server, with an identity of its own, at the same authorization server
    const other = await startMcpV2(world);
    traffic.clear();
    const options = { agent, url: other.url, authProvider: attestedProvider(agent, { scope: SCOPE }) };
    await (await connect(sdk, options)).whoami();
    expect(traffic.lines(world.as.issuer)).toEqual([`GET 200 ${RFC8414}`, 'POST 200 /token']);
    expect(traffic.lines(other.url.origin).filter((line) => line.includes('challenge'))).toEqual([]);
    expect(world.as.refusals).toEqual([]);
  });

  test('META-2, META-4: parameters that OpenID Connect discovery strips from what the SDK sees are read all the same', async () => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const paths: string[] = [];
    const { agent } = await world.instance(method, {
      fetch: async (input, init) => {
        const { pathname } = new URL(input);
        paths.push(pathname);
        // an authorization server that has its metadata in the other place only
        return pathname.startsWith(RFC8414) ? new Response('none', { status: 404 }) : fetch(input, init);
      },
    });
    const person = new Person(agent, world.as.issuer);
    const client = await connect(sdk, { agent, url: mcp.url, authProvider: withAttestation(person, agent) });
    expect(await client.whoami()).toMatchObject({ subject: 'alice', clientId: CLIENTS[method], method });
    expect(paths).toContain('/.well-known/openid-configuration');
    expect(paths).toContain('/challenge');
    expect(paths).toContain('/request'); // PAR
    expect(world.as.refusals).toEqual([]);
  });

  test('META-4, CHA-2: a runtime that takes no fetch gets its tokens by attestation all the same, if not in', async () => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const { agent, warnings } = await world.instance(method);
    const authProvider = attestedProvider(agent, { scope: SCOPE });
    // the SDKs' transports with the authProvider alone, as LangChain's MultiServerMCPClient makes them
    await expect(
      connect(sdk, { agent: { ...agent, fetch: globalThis.fetch as never }, url: mcp.url, authProvider }),
    ).rejects.toThrow();
    expect(decode((await authProvider.tokens())?.access_token as string).payload).toMatchObject({
      client_id: CLIENTS[method],
      client_instance_jkt: agent.identities()[0]?.thumbprint,
    });
    expect(world.as.refusals).toEqual([]);
    expect(warnings.map(({ code }) => code)).toContain('fetch_unused');
    expect(mcp.refusals.length).toBeGreaterThan(0);
  });
});

describe("client SDK v2 with the instance's key for DPoP", () => {
  test.each(METHODS)('DPOP-1, DPOP-2, %s: the SDK asks for proofs, and never sees the key', async (method) => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const { agent, traffic } = await world.instance(method);
    const person = Object.assign(new Person(agent, world.as.issuer), { dpop: agent.dpopSession });
    const authProvider = withAttestation(person, agent);
    const client = await connect('v2', { agent, url: mcp.url, authProvider });
    const { thumbprint } = await client.whoami();
    const tokens = await authProvider.tokens();
    expect(tokens?.token_type).toBe('DPoP');
    expect(decode(tokens?.access_token as string).payload.cnf).toEqual({ jkt: thumbprint });
    const last = traffic.exchanges.findLast(({ url }) => url === mcp.url.href)!;
    expect(last.headers.get('authorization')).toMatch(/^DPoP /);
    expect(decode(last.headers.get('dpop') as string).payload).toMatchObject({ htm: 'POST', htu: mcp.url.href });
    expect(world.as.refusals).toEqual([]);
    expect(mcp.refusals.map(({ code }) => code)).toEqual(['invalid_token']);
  });
});
