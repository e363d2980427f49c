/** MCP SDK v1 and v2 as clients, each against servers of both, with real tokens of node-oidc-provider. */
import { setTimeout as sleep } from 'node:timers/promises';
import { DpopSession } from '@modelcontextprotocol/client';
import { describe, expect, test } from 'vitest';
import { attestedProvider, withAttestation } from '../../src/mcp/index.ts';
import { decode } from '../support/tokens.ts';
import { CLIENTS, METHODS, SCOPE } from './support/authorization-server.ts';
import { connect, Person, SDKS } from './support/mcp-clients.ts';
import { type McpServer, startMcpV1, startMcpV2 } from './support/mcp-servers.ts';
import { startWorld, type TestInstance } from './support/world.ts';

const servers = { v1: startMcpV1, v2: startMcpV2 } as const;
const pairs = SDKS.flatMap((client) => SDKS.flatMap((server) => METHODS.map((method) => ({ client, server, method }))));

/** Requests to the MCP server itself. */
const calls = ({ traffic }: TestInstance, { url }: McpServer) =>
  traffic.lines(url.origin).filter((line) => !line.includes('/.well-known/'));

describe.each(pairs)('client SDK $client, server SDK $server, $method', ({ client: sdk, server, method }) => {
  test('META-4, CHA-2, CHA-3: connects, lists, calls and streams, and loses no round trip to a challenge', async () => {
    const world = await startWorld();
    const mcp = await servers[server](world);
    const instance = await world.instance(method);
    const { agent, traffic } = instance;
    const authProvider = attestedProvider(agent, { scope: SCOPE });
    const client = await connect(sdk, { agent, url: mcp.url, authProvider });
    expect(await client.tools()).toEqual(['whoami', 'count']);
    expect(await client.count()).toEqual([1, 2, 3]);
    const { thumbprint } = agent.identities().find((identity) => identity.server === mcp.url.href)!;
    expect(await client.whoami()).toEqual({
      clientId: CLIENTS[method],
      subject: CLIENTS[method],
      thumbprint,
      method,
      keyStorage: 'software',
    });
    // the first contact is refused, and brings all that the client needs: after that nothing is refused, or asked for
    const [first, ...others] = calls(instance, mcp);
    expect(first).toBe('POST 401 /mcp');
    expect(others.filter((line) => / 4(?!05)|challenge/.test(line))).toEqual([]);
    expect(mcp.refusals.map(({ code, rule }) => [code, rule])).toEqual([['invalid_token', 'RFC 6750 §3']]);
    const atAs = traffic.lines(world.as.issuer).filter((line) => line.startsWith('POST'));
    expect(atAs).toEqual(['POST 200 /challenge', 'POST 200 /token']);
    expect(world.as.refusals).toEqual([]);
  });

  test('BIND-1, BIND-2: a person signs in through PAR; an expired token is refreshed without asking again', async () => {
    const world = await startWorld();
    world.as.tokens.lifetime = 1;
    const mcp = await servers[server](world);
    const { agent, traffic } = await world.instance(method);
    const person = new Person(agent, world.as.issuer);
    const authProvider = withAttestation(person, agent);
    const client = await connect(sdk, { agent, url: mcp.url, authProvider });
    await sleep(1500);
    world.as.tokens.lifetime = 300;
    traffic.clear();
    expect(await client.whoami()).toMatchObject({ subject: 'alice', clientId: CLIENTS[method], method });
    const grants = traffic.exchanges.flatMap(({ url, body }) =>
      url === `${world.as.issuer}/token` ? [new URLSearchParams(body).get('grant_type')] : [],
    );
    expect(grants).toEqual(['refresh_token']);
    expect(person.asked).toBe(1);
    expect(mcp.refusals.at(-1)).toMatchObject({ code: 'invalid_token' });
    expect(world.as.refusals).toEqual([]);
  });
});

describe.each(SDKS)('client SDK %s', (sdk) => {
  test.each(METHODS)('%s: a stream that the server opens reaches the client', async (method) => {
    const world = await startWorld();
    const mcp = await startMcpV1(world);
    const { agent, traffic } = await world.instance(method);
    const client = await connect(sdk, { agent, url: mcp.url, authProvider: attestedProvider(agent, { scope: SCOPE }) });
    const changed = client.toolsChanged();
    while (!traffic.lines(mcp.url.origin).includes('GET 200 /mcp')) await sleep(20);
    mcp.announce();
    await changed;
  });

  test.each(METHODS)('%s: without a person, an expired token is replaced by a new one', async (method) => {
    const world = await startWorld();
    world.as.tokens.lifetime = 1;
    const mcp = await startMcpV2(world);
    const { agent, traffic } = await world.instance(method);
    const client = await connect(sdk, { agent, url: mcp.url, authProvider: attestedProvider(agent, { scope: SCOPE }) });
    const before = await client.whoami();
    await sleep(1500);
    world.as.tokens.lifetime = 300;
    traffic.clear();
    expect(await client.whoami()).toEqual(before);
    expect(traffic.lines(world.as.issuer).filter((line) => line.startsWith('POST'))).toEqual(['POST 200 /token']);
    expect(traffic.lines(mcp.url.origin).filter((line) => line.startsWith('POST'))).toEqual([
      'POST 401 /mcp',
      'POST 200 /mcp',
    ]);
  });

  test.each(METHODS)('IMPL-1, %s: after a restart key and attestation are the same, and it goes on', async (method) => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const before = await world.instance(method);
    const options = { scope: SCOPE };
    const first = await connect(sdk, {
      agent: before.agent,
      url: mcp.url,
      authProvider: attestedProvider(before.agent, options),
    });
    const caller = await first.whoami();
    const [identity] = before.agent.identities();
    await before.agent.close();

    const after = await world.instance(method, { directory: before.directory });
    const second = await connect(sdk, {
      agent: after.agent,
      url: mcp.url,
      authProvider: attestedProvider(after.agent, options),
    });
    expect(await second.whoami()).toEqual(caller);
    expect(after.agent.identities()).toEqual([identity]);
    const shown = ({ traffic }: TestInstance) =>
      new Set(traffic.exchanges.flatMap(({ headers }) => headers.get('oauth-client-attestation') ?? []));
    expect(shown(after)).toEqual(shown(before));
    const contacts = (await world.attester.instances()).length;
    expect(contacts).toBe(1);
  });

  test.each(METHODS)('IMPL-2, %s: a rotation in mid-session: old tokens go on with the old key', async (method) => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const { agent } = await world.instance(method);
    const person = new Person(agent, world.as.issuer);
    const authProvider = withAttestation(person, agent);
    const client = await connect(sdk, { agent, url: mcp.url, authProvider });
    const before = await client.whoami();
    await agent.rotate(mcp.url.href);
    expect(await client.whoami()).toEqual(before);
    expect(agent.identities().map(({ generation, current }) => [generation, current])).toEqual([
      [1, false],
      [2, true],
    ]);
    // a client that signs in anew does so with the new key
    const again = new Person(agent, world.as.issuer);
    const fresh = await connect(sdk, { agent, url: mcp.url, authProvider: withAttestation(again, agent) });
    const { thumbprint } = await fresh.whoami();
    expect(thumbprint).not.toBe(before.thumbprint);
    expect(thumbprint).toBe(agent.identities().find(({ current }) => current)?.thumbprint);
  });

  test.each(METHODS)(
    'IMPL-2, %s: once the old key is destroyed the client gets new tokens by itself',
    async (method) => {
      const world = await startWorld();
      const mcp = await startMcpV2(world);
      const { agent } = await world.instance(method);
      const client = await connect(sdk, {
        agent,
        url: mcp.url,
        authProvider: attestedProvider(agent, { scope: SCOPE }),
      });
      const before = await client.whoami();
      await agent.rotate(mcp.url.href, { keepOld: false });
      const after = await client.whoami();
      expect(after.thumbprint).not.toBe(before.thumbprint);
      expect(agent.identities().map(({ thumbprint }) => thumbprint)).toEqual([after.thumbprint]);
    },
  );

  test.each(METHODS)(
    'PRIV-1, POP-2, %s: a token, attestation and proof for one MCP server are no use at another',
    async (method) => {
      const world = await startWorld();
      const [mcp, other] = [await startMcpV2(world), await startMcpV1(world)];
      const { agent, traffic } = await world.instance(method);
      await connect(sdk, { agent, url: mcp.url, authProvider: attestedProvider(agent, { scope: SCOPE }) });
      const captured = traffic.exchanges.findLast(({ url, method: verb }) => url === mcp.url.href && verb === 'POST')!;
      const response = await fetch(other.url, { method: 'POST', headers: captured.headers, body: '{}' });
      expect(response.status).toBe(401);
      const expected = method === 'dpop_combined' ? { code: 'invalid_dpop_proof' } : { rule: 'POP-2' };
      expect(other.refusals).toMatchObject([expected]);
      const names = traffic.exchanges.flatMap(({ headers }) => headers.get('authorization') ?? []);
      expect(decode(names[0]!.split(' ')[1]!).payload.aud).toBe(mcp.url.href);
    },
  );
});

describe('client SDK v2 with DPoP keys of its own', () => {
  test('DPOP-1: the token is bound to the DPoP key, the request to the instance, and both are demanded', async () => {
    const world = await startWorld();
    const mcp = await startMcpV2(world);
    const { agent, traffic } = await world.instance('attestation_pop_jwt');
    const session = await DpopSession.create();
    const provider = withAttestation({ ...attestedProvider(agent, { scope: SCOPE }), dpop: () => session }, agent);
    const client = await connect('v2', { agent, url: mcp.url, authProvider: provider });
    const { thumbprint, method } = await client.whoami();
    expect(method).toBe('attestation_pop_jwt');
    const { payload } = decode((await provider.tokens())?.access_token as string);
    expect(payload).toMatchObject({ client_instance_jkt: thumbprint, cnf: { jkt: expect.any(String) } });
    expect((payload.cnf as { jkt: string }).jkt).not.toBe(thumbprint);
    const last = traffic.exchanges.findLast(({ url }) => url === mcp.url.href)!;
    for (const name of ['dpop', 'oauth-client-attestation', 'oauth-client-attestation-pop']) {
      expect(last.headers.has(name)).toBe(true);
    }
    expect(last.headers.get('authorization')).toMatch(/^DPoP /);
  });
});
