// run: yes
// OpenAI Agents SDK: the tools of an MCP server that admits attested agents only.
import assert from 'node:assert/strict';
import { startWeather } from './support.ts';

const { attester, enrolmentToken, resource, finish } = await startWeather();

// #region openai-agents
import { MCPServerStreamableHttp } from '@openai/agents-core';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';

const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
const server = new MCPServerStreamableHttp({
  url: resource,
  authProvider: attestedProvider(agent),
  fetch: agent.fetch,
});
await server.connect(); // for mcpServers of an Agent
// #endregion

const tools = await server.listTools();
assert.deepEqual(
  tools.map(({ name }) => name),
  ['whoami'],
);
const answer = await server.callTool('whoami', {});
await server.close();
await finish(answer, agent, keys);
