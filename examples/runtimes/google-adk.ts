// run: yes
// Google ADK: the tools of an MCP server that admits attested agents only.
import assert from 'node:assert/strict';
import { startWeather } from './support.ts';

const { attester, enrolmentToken, resource, finish } = await startWeather();

// #region google-adk
import { MCPToolset } from '@google/adk';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';

const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
const toolset = new MCPToolset({
  type: 'StreamableHTTPConnectionParams',
  url: resource,
  transportOptions: { authProvider: attestedProvider(agent), fetch: agent.fetch },
});
const tools = await toolset.getTools(); // or the toolset itself, for the tools of an LlmAgent
// #endregion

assert.deepEqual(
  tools.map(({ name }) => name),
  ['whoami'],
);
const answer = await tools[0]?.runAsync({ args: {}, toolContext: {} as never });
await toolset.close();
await finish(answer, agent, keys);
