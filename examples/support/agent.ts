/** The agent that calls examples/server.ts. examples/client.ts shows how one is made. */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { attestedProvider } from 'attested/mcp';
import type { World } from './world.ts';

export async function callTool({ attester, enrolmentToken, resource }: World, clientId: string, name: string) {
  const keys = await openKeys('software');
  const agent = await createAgent({ clientId, keys, attester, enrolmentToken });
  const client = new Client({ name: clientId, version: '1.0.0' });
  const options = { authProvider: attestedProvider(agent), fetch: agent.fetch };
  await client.connect(new StreamableHTTPClientTransport(new URL(resource), options));
  const { content } = await client.callTool({ name, arguments: {} });
  await client.close();
  await agent.close();
  await keys.close();
  return (content as { text: string }[])[0]?.text;
}
