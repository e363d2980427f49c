// run: yes
// LangChain: the tools of an MCP server that admits attested agents only.
import assert from 'node:assert/strict';
import { startWeather } from './support.ts';

const { attester, enrolmentToken, resource, finish } = await startWeather();

// #region langchain
import { loadMcpTools } from '@langchain/mcp-adapters';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';

const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
const options = { authProvider: attestedProvider(agent), fetch: agent.fetch };
const client = new Client({ name: 'weather-agent', version: '1.0.0' });
await client.connect(new StreamableHTTPClientTransport(new URL(resource), options));
const tools = await loadMcpTools('weather', client); // for createAgent of langchain
// #endregion

assert.deepEqual(
  tools.map(({ name }) => name),
  ['whoami'],
);
const answer = await tools[0]?.invoke({});
await client.close();
await finish([answer], agent, keys);
