/** An attested MCP server in a process of its own, so that it takes no time of those that are measured. */
import { serveMcp } from '../../examples/support/mcp-server.ts';
import type { World } from '../../examples/support/world.ts';

serveMcp(JSON.parse(process.env.BENCH_WORLD ?? '') as World).once('listening', () => process.send?.('ready'));
process.once('disconnect', () => process.exit());
