// run: yes
// Mastra: the tools of an MCP server that admits attested agents only.
import assert from 'node:assert/strict';
import { startWeather } from './support.ts';

const { attester, enrolmentToken, resource, finish } = await startWeather();

// #region mastra
import { MCPClient } from '@mastra/mcp';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';

const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
const mcp = new MCPClient({
  servers: {
    weather: { url: new URL(resource), authProvider: attestedProvider(agent), fetch: agent.fetch },
  },
});
const tools = await mcp.listTools(); // for the tools of an Agent
// #endregion

assert.deepEqual(Object.keys(tools), ['weather_whoami']);
const answer = await tools.weather_whoami?.execute?.({}, {} as never);
await mcp.disconnect();
await finish(answer, agent, keys);
