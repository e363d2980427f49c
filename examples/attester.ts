// run: yes
// The Client Attester as a service: enrolment by one-time tokens, a store on disk, revocation.
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { port, directory } = world;
const issuer = `http://127.0.0.1:${port}`;
const privateKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;

// #region attester
import { createServer } from 'node:http';
import { createAttester, sqliteStore } from 'attested/attester';
import { toNodeListener } from 'attested/integrations/node';
import { importSigner } from 'attested/keys';

const attester = createAttester({
  issuer, // such as https://attester.example
  signer: importSigner(pem), // or any object with alg, publicJwk, thumbprint and sign: a KMS or HSM fits
  store: sqliteStore(`${directory}/attester.db`),
  policy: { clients: { 'weather-agent': { lifetime: 3600, enrolment: { tokens: true } } } },
  log: (event) => console.log(event.type),
});
const http = createServer(toNodeListener(attester.handler, { url: issuer })).listen(port);

// for one instance, once
const enrolmentToken = await attester.createEnrolmentToken({ clientId: 'weather-agent' });
// #endregion

const keys = await openKeys('software');
const agent = await createAgent({ clientId: 'weather-agent', keys, attester: issuer, enrolmentToken });
await agent.rotate('https://mcp.example/mcp'); // gets an attestation for that server, which is not asked

// #region revoke
const [instance] = await attester.instances();
await attester.revoke({ instanceId: instance!.instanceId }); // or { thumbprint }, as a server's log has it
// #endregion

await assert.rejects(agent.rotate('https://mcp.example/mcp'), { code: 'attester_refused' });
const second = await createAgent({
  clientId: 'weather-agent',
  keys: await openKeys('software'),
  attester: issuer,
  enrolmentToken,
});
await assert.rejects(second.rotate('https://mcp.example/mcp'), { code: 'attester_refused' });

http.close();
http.closeAllConnections();
await attester.close();
world.close();
