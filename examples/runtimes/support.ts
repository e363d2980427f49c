/** What every example of this folder calls: an MCP server that admits attested agents only, with the attester and the AS around it. */
import assert from 'node:assert/strict';
import type { Agent } from 'attested/agent';
import type { KeyProvider } from 'attested/keys';
import { serveMcp } from '../support/mcp-server.ts';
import { startWorld } from '../support/world.ts';

export async function startWeather() {
  const world = await startWorld('weather-agent');
  const server = serveMcp(world);
  return {
    attester: world.attester,
    enrolmentToken: world.enrolmentToken,
    /** URL of the MCP server. */
    resource: world.resource,
    /** Asserts that the server named its caller: this client, with the very key that this agent made. Then ends all. */
    async finish(answer: unknown, agent: Agent, keys: KeyProvider) {
      const identities = agent.identities();
      assert.equal(identities.length, 1);
      const { server: at, thumbprint } = identities[0]!;
      assert.equal(at, world.resource);
      assert.ok(JSON.stringify(answer).includes(`"weather-agent ${thumbprint}"`), JSON.stringify(answer));
      await agent.close();
      await keys.close();
      server.close();
      server.closeAllConnections();
      world.close();
    },
  };
}
