// run: yes
// openid-client whose client authentication is attestation. oauth4webapi takes the same two functions.
import assert from 'node:assert/strict';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { serveMcp } from './support/mcp-server.ts';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const server = serveMcp(world);
const { attester, enrolmentToken, issuer, resource } = world;

// #region agent
const keys = await openKeys('auto');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });

// #endregion

// #region client
import * as client from 'openid-client';

const config = await client.discovery(new URL(issuer), agent.clientId, undefined, agent.clientAuth, {
  [client.customFetch]: agent.fetch,
  execute: [client.allowInsecureRequests], // for http on this machine only
});
const tokens = await client.clientCredentialsGrant(config, { resource });
const response = await agent.fetch(resource, { headers: { authorization: `DPoP ${tokens.access_token}` } });
// #endregion

assert.equal(tokens.token_type, 'dpop');
assert.equal(response.status, 405); // past the gate, where it is not refused any more but misunderstood: no MCP message was sent

await agent.close();
await keys.close();
server.close();
server.closeAllConnections();
world.close();
