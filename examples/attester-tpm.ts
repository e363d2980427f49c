// run: yes
// A Client Attester that believes TPMs of makers it knows: what its attestations then call hardware, it has checked.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import { createAgent } from 'attested/agent';
import type { ProvedLog } from 'attested/attester';
import { generateSigner, openKeys } from 'attested/keys';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { directory } = world;
const issuer = 'https://attester.example';
const signer = generateSigner();
const tpmRoots = `${directory}/tpm-roots`;
mkdirSync(tpmRoots);
writeFileSync(`${tpmRoots}/maker.pem`, rootCertificates[0]!); // here stands the root of a TPM's maker
const knownDigests = new Set<string>();

// #region attester
import { createAttester, readCertificateFiles, sqliteStore } from 'attested/attester';

const attester = createAttester({
  issuer,
  signer,
  store: sqliteStore(`${directory}/attester.db`),
  policy: { clients: { 'weather-agent': { evidence: ['tpm'], enrolment: { tokens: true } } } },
  tpm: {
    roots: await readCertificateFiles([tpmRoots]), // certificates of makers, PEM or DER
    // TPMs without a certificate, one by one, as `attested doctor` on each prints them
    allowEk: ['klGbIIGuNx7B1GZHgFn04XT_kWVXS5bXXAaZbBrY4AQ'],
  },
});
// #endregion

// #region quote
const quote = {
  pcrs: { sha256: [0, 7] },
  check: (_values: unknown, log: ProvedLog | undefined) =>
    log?.sha256?.mismatched.length === 0 &&
    [0, 7].every((pcr) => log.sha256!.events.some((event) => event.pcr === pcr)) && // no event, nothing proved
    log.sha256.events.every(({ digests }) => knownDigests.has(Buffer.from(digests.sha256!).toString('hex'))),
};

// #endregion
const [root] = await readCertificateFiles([tpmRoots]);
createAttester({ issuer, signer, policy: { clients: {} }, tpm: { roots: [root!], quote } });

const keys = await openKeys('software');
const enrolmentToken = await attester.createEnrolmentToken({ clientId: 'weather-agent' });
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
await assert.rejects(agent.rotate('https://mcp.example/mcp'), { code: 'attester_refused' }); // its keys are in no TPM
assert.deepEqual(await attester.instances(), []);

await agent.close();
await attester.close();
world.close();
