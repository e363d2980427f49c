// run: yes
/** Calls through `attested connect` against calls of a direct client, both attested, with software keys, on loopback. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';
import { startWorld } from '../examples/support/world.ts';
import { comparePairs, report } from './support/pairs.ts';

const clientId = 'weather-agent';
const world = await startWorld(clientId);
const { attester, resource, directory, enrolmentToken } = world;
const server = fork(join(import.meta.dirname, 'support/mcp-server.ts'), {
  env: { ...process.env, BENCH_WORLD: JSON.stringify({ ...world, close: undefined }) },
});
await once(server, 'message');

const keys = await openKeys('software');
const agent = await createAgent({ clientId, keys, attester, enrolmentToken });
const direct = new Client({ name: 'direct', version: '1.0.0' });
await direct.connect(
  new StreamableHTTPClientTransport(new URL(resource), { authProvider: attestedProvider(agent), fetch: agent.fetch }),
);

const bridged = new Client({ name: 'bridged', version: '1.0.0' });
const main = join(import.meta.dirname, '../dist/cli/main.js');
await bridged.connect(
  new StdioClientTransport({
    command: process.execPath,
    args: [main, 'connect', resource, '--client-id', clientId, '--attester', attester, '--keys', 'software'],
    env: {
      PATH: process.env.PATH ?? '',
      ATTESTED_HOME: join(directory, 'bridge'),
      ATTESTED_ENROLMENT_TOKEN: await world.createEnrolmentToken(),
    },
  }),
);

const call = (client: Client) => client.callTool({ name: 'whoami' });
async function oneByOne(client: Client, n: number): Promise<void> {
  for (let i = 0; i < n; i++) await call(client);
}
const ATONCE = 8;
async function severalAtOnce(client: Client, n: number): Promise<void> {
  await Promise.all(Array.from({ length: ATONCE }, () => oneByOne(client, n / ATONCE)));
}

const options = { rounds: 30, operations: 16 };
let met = true;
for (const [title, calls] of [
  ['MCP calls, one after another', oneByOne],
  [`MCP calls, ${ATONCE} at once`, severalAtOnce],
] as const) {
  const rows = await comparePairs(
    [
      { name: 'direct client', run: (n) => calls(direct, n) },
      { name: 'attested connect', run: (n) => calls(bridged, n) },
    ],
    options,
  );
  met = report(title, rows, { 'attested connect': 0.7 }) && met;
}

await direct.close();
await bridged.close();
await agent.close();
server.disconnect();
world.close();
process.exitCode = met ? 0 : 1;
