// run: yes
// An attested agent that starts an MCP server and talks to it over stdio.
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, enrolmentToken } = world;
const { keys: attesterKeys } = (await (await fetch(`${attester}/jwks`)).json()) as { keys: object[] };
const command = {
  command: process.execPath,
  args: [fileURLToPath(new URL('stdio-server.ts', import.meta.url))],
  env: { ...process.env, ATTESTER_KEYS: JSON.stringify(attesterKeys) } as Record<string, string>,
};

// #region client
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedTransport } from 'attested/mcp';

const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
const client = new Client({ name: 'weather-agent', version: '1.0.0' });
await client.connect(attestedTransport(new StdioClientTransport(command), agent, { server: 'urn:example:weather' }));
const answer = await client.callTool({ name: 'greet', arguments: {} });
// #endregion

assert.deepEqual(answer.content, [{ type: 'text', text: 'Hello weather-agent' }]);
assert.equal((await client.callTool({ name: 'deploy', arguments: {} })).isError, true); // its key is in software
await client.close();

// without an attestation: tools are neither listed nor called
const stranger = new Client({ name: 'stranger', version: '1.0.0' });
await stranger.connect(new StdioClientTransport(command));
await assert.rejects(stranger.callTool({ name: 'greet', arguments: {} }), /no Client Attestation/);
await assert.rejects(stranger.request({ method: 'tools/list' }), /no Client Attestation/);
await stranger.close();

await agent.close();
await keys.close();
world.close();
