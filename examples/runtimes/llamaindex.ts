// run: yes
// LlamaIndex: the tools of an MCP server that admits attested agents only.
import assert from 'node:assert/strict';
import { startWeather } from './support.ts';

const { attester, enrolmentToken, resource, finish } = await startWeather();

// #region llamaindex
import { mcp } from '@llamaindex/tools';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';

const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
const server = mcp({ url: resource, authProvider: attestedProvider(agent), fetch: agent.fetch });
const tools = await server.tools(); // for agent({ tools }) of @llamaindex/workflow
// #endregion

assert.deepEqual(
  tools.map(({ metadata }) => metadata.name),
  ['whoami'],
);
const answer = await tools[0]?.call({});
await server.cleanup();
await finish(answer, agent, keys);
