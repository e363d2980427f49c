/**
 * One MCP server three times, in a process of its own, so that it takes no time of those that are measured: attested, open to
 * all, and one that asks for attestation as the first does but then looks at nothing.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createMcpHandler } from '@modelcontextprotocol/server';
import { toNodeListener } from 'attested/integrations/node';
import { mcpHandler, serveMcp, tools } from '../../examples/support/mcp-server.ts';
import type { World } from '../../examples/support/world.ts';

const world = JSON.parse(process.env.BENCH_WORLD ?? '') as World;
const mcp = createMcpHandler(tools);

type Handler = (request: Request) => Response | Promise<Response>;
async function serve(handlerFor: (url: string) => Handler): Promise<string> {
  const server = createServer();
  await listening(server.listen(0, '127.0.0.1'));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
  server.on('request', toNodeListener(handlerFor(url), { url }));
  return url;
}
function listening(server: Server): Promise<unknown> {
  return new Promise((resolve) => server.once('listening', resolve));
}

const open = await serve(() => (request) => mcp.fetch(request));
const blind = await serve((resource) => {
  const gate = mcpHandler({ ...world, resource });
  return (request) => (request.headers.has('authorization') ? mcp.fetch(request) : gate(request));
});
await listening(serveMcp(world));
process.send?.({ open, blind });
process.once('disconnect', () => process.exit());
