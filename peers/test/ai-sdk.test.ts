/** The Vercel AI SDK's own OAuth code with a provider of ours: a person signs in, and an expired token is refreshed. */
import { setTimeout as sleep } from 'node:timers/promises';
import { auth, createMCPClient } from '@ai-sdk/mcp';
import type { Agent } from 'attested/agent';
import { withAttestation } from 'attested/mcp';
import { expect, onTestFinished, test } from 'vitest';
import { CLIENTS, METHODS } from '../../test/e2e/support/authorization-server.ts';
import { Person } from '../../test/e2e/support/mcp-clients.ts';
import { startMcpV1, startMcpV2 } from '../../test/e2e/support/mcp-servers.ts';
import { startWorld } from '../../test/e2e/support/world.ts';

/** The AI SDK demands that a client which authenticates names its authorization server, and remembers the one it met. */
class AiSdkPerson extends Person {
  readonly #client: { client_id: string; issuer: string };
  #server: unknown;

  constructor(agent: Agent, issuer: string) {
    super(agent, issuer);
    this.#client = { client_id: agent.clientId, issuer };
  }
  override clientInformation() {
    return this.#client as never;
  }
  authorizationServerInformation() {
    return this.#server;
  }
  saveAuthorizationServerInformation(information: unknown) {
    this.#server = information;
  }
}

const pairs = METHODS.flatMap((method) => [startMcpV1, startMcpV2].map((start) => ({ method, start })));

test.each(pairs)('$method, $start.name: signs in through PAR, calls, refreshes', async ({ method, start }) => {
  const world = await startWorld();
  world.as.tokens.lifetime = 1;
  const mcp = await start(world);
  const { agent, traffic } = await world.instance(method);
  const person = new AiSdkPerson(agent, world.as.issuer);
  const authProvider = withAttestation(person, agent) as never;
  const connect = () =>
    createMCPClient({
      transport: { type: 'http', url: mcp.url.href, authProvider, fetch: agent.fetch as typeof fetch },
    });

  await expect(connect()).rejects.toThrow();
  const answer = (person.callback as URL).searchParams;
  await auth(authProvider, {
    serverUrl: mcp.url,
    authorizationCode: answer.get('code') as string,
    callbackIssuer: answer.get('iss') as string,
    fetchFn: agent.fetch as typeof fetch,
  });
  const client = await connect();
  onTestFinished(() => client.close());
  const { whoami } = await client.tools();
  await sleep(1500);
  world.as.tokens.lifetime = 300;
  traffic.clear();
  const result = await whoami?.execute({}, { toolCallId: '1', messages: [], context: {} });
  const { thumbprint } = agent.identities().find(({ server }) => server === mcp.url.href)!;
  const { text } = (result as { content: { text: string }[] }).content[0]!;
  expect(JSON.parse(text)).toMatchObject({ subject: 'alice', clientId: CLIENTS[method], method, thumbprint });
  const grants = traffic.exchanges.filter(({ url }) => url.endsWith('/token')).map(({ body }) => body);
  expect(grants.map((body) => new URLSearchParams(body).get('grant_type'))).toEqual(['refresh_token']);
  expect(person.asked).toBe(1);
  expect(world.as.refusals).toEqual([]);
});
