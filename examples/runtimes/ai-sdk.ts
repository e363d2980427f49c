// run: yes
// Vercel AI SDK: the tools of an MCP server that admits attested agents only.
import assert from 'node:assert/strict';
import { startWeather } from './support.ts';

const { attester, enrolmentToken, resource, finish } = await startWeather();

// #region ai-sdk
import { createMCPClient } from '@ai-sdk/mcp';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';

const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
const options = { authProvider: attestedProvider(agent), fetch: agent.fetch };
const transport = new StreamableHTTPClientTransport(new URL(resource), options);
const client = await createMCPClient({ transport });
const tools = await client.tools(); // for generateText, streamText and agents
// #endregion

assert.deepEqual(Object.keys(tools), ['whoami']);
const answer = await tools.whoami?.execute({}, { toolCallId: '1', messages: [], context: {} });
await client.close();
await finish(answer, agent, keys);
