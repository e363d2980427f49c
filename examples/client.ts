// run: yes
// An MCP client that authenticates by attestation instead of a secret.
import assert from 'node:assert/strict';
import { serveMcp } from './support/mcp-server.ts';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const server = serveMcp(world);
const { attester, enrolmentToken, resource } = world;

// #region quickstart
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';

const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
const transport = new StreamableHTTPClientTransport(new URL(resource), {
  authProvider: attestedProvider(agent),
  fetch: agent.fetch,
});

const client = new Client({ name: 'weather-agent', version: '1.0.0' });
await client.connect(transport);
const answer = await client.callTool({ name: 'whoami', arguments: {} });
// #endregion

// the server knows the client, and the very key that this agent made for it
const [identity] = agent.identities();
assert.deepEqual(answer.content, [{ type: 'text', text: `weather-agent ${identity?.thumbprint}` }]);

await client.close();
await agent.close();
await keys.close();
server.close();
server.closeAllConnections();
world.close();
