// run: yes
/**
 * What attestation costs an MCP call on loopback with a software key: the client's part of it, and both ends'.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';
import { startWorld } from '../examples/support/world.ts';
import { comparePairs, type Row, report, reportAtMost } from './support/pairs.ts';

/** Microseconds that the client may add to a call, in the median. */
const MAY_ADD = 300;
const clientId = 'weather-agent';
const world = await startWorld(clientId);
const { attester, resource, enrolmentToken } = world;
const server = fork(join(import.meta.dirname, 'support/mcp-server.ts'), {
  env: { ...process.env, BENCH_WORLD: JSON.stringify({ ...world, close: undefined }) },
});
const [{ open, blind }] = (await once(server, 'message')) as [{ open: string; blind: string }];

const keys = await openKeys('software');
const agent = await createAgent({ clientId, keys, attester, enrolmentToken });
async function connect(url: string, attested: boolean): Promise<Client> {
  const client = new Client({ name: 'bench', version: '1.0.0' });
  const options = attested ? { authProvider: attestedProvider(agent), fetch: agent.fetch } : {};
  await client.connect(new StreamableHTTPClientTransport(new URL(url), options));
  return client;
}
const [bare, attested, both] = [await connect(open, false), await connect(blind, true), await connect(resource, true)];

async function call(client: Client, n: number): Promise<void> {
  for (let i = 0; i < n; i++) await client.callTool({ name: 'whoami' });
}
const rows = await comparePairs(
  [
    { name: 'bare SDK', run: (n) => call(bare, n) },
    { name: 'attested, to a server that verifies nothing', run: (n) => call(attested, n) },
    { name: 'attested, to a server that verifies all', run: (n) => call(both, n) },
  ],
  { rounds: 300, operations: 4 },
);
report('MCP calls, one after another', rows);
const [{ microseconds }, { ratio }] = rows as [Row, Row];
// from the ratio within rounds: on a machine with other work the medians of two candidates may be of different moments
const met = reportAtMost('added by the client, per call', microseconds * (1 / ratio - 1), MAY_ADD, 'µs');

for (const client of [bare, attested, both]) await client.close();
await agent.close();
server.disconnect();
world.close();
process.exitCode = met ? 0 : 1;
