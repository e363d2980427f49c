// run: yes, with tpm
// An agent whose keys are in a TPM, an attester that checks it, a server that demands it. The TPM is swtpm here.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { splitAttestation } from 'attested';
import { createAttester } from 'attested/attester';
import { generateSigner } from 'attested/keys';
import { createVerifier, jwks } from 'attested/verifier';
import { startSwtpm } from '../test/support/swtpm.ts';

const machine = await startSwtpm();
const otherMachine = await startSwtpm({ fresh: true });
const directory = mkdtempSync(join(tmpdir(), 'attested-example-'));
process.env.ATTESTED_HOME = join(directory, 'home');
process.env.TPM2TOOLS_TCTI = machine.tcti;

const { root, issuer } = machine.roots; // of the TPM's maker
const attester = createAttester({
  issuer: 'https://attester.example',
  signer: generateSigner(),
  policy: { clients: { 'weather-agent': { evidence: ['tpm'], enrolment: { tokens: true } } } },
  tpm: { roots: [root], intermediates: [issuer] },
});
const enrolmentToken = await attester.createEnrolmentToken({ clientId: 'weather-agent' });
const resource = 'https://mcp.example/mcp';

// #region agent
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';

const keys = await openKeys('tpm'); // 'auto' takes the TPM too, where there is one
const agent = await createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
// #endregion

// #region verifier
const trust = jwks({ ...attester.jwks(), clients: ['weather-agent'] });
const policy = { require: { keyStorage: 'hardware', keyEvidence: 'tpm-certified' } } as const;
const verifier = createVerifier({ role: 'rs', audience: resource, trust, policy });

// #endregion
const { attestation, pop } = splitAttestation(await agent.presenter(resource).present(await challengeOf()));
const headers = { 'oauth-client-attestation': attestation, 'oauth-client-attestation-pop': pop };
const caller = await verifier.verify({ headers });
assert.deepEqual([caller.keyStorage, caller.keyEvidence], ['hardware', 'tpm-certified']);
await agent.close();
await keys.close();

// another process, the same machine: the same key, and no enrolment token
const again = await openKeys('auto');
const agentAgain = await createAgent({ clientId: 'weather-agent', keys: again, attester });
assert.equal(agentAgain.identities()[0]?.thumbprint, caller.thumbprint);
await agentAgain.rotate(resource);
assert.equal((await attester.instances()).length, 1);
await agentAgain.close();
await again.close();

// a copy of the directory, another machine
const copy = join(directory, 'copy');
await cp(process.env.ATTESTED_HOME, copy, { recursive: true });
const copied = await openKeys('auto', { directory: copy, tpm: { tcti: otherMachine.tcti } });
await assert.rejects(createAgent({ clientId: 'weather-agent', keys: copied, attester }), {
  code: 'key_store_wrong_secret',
});
await copied.close();

await attester.close();
await machine.stop();
await otherMachine.stop();
rmSync(directory, { recursive: true });

/** As the server's challenge endpoint gives it to anybody. */
async function challengeOf(): Promise<string> {
  const answer = await verifier.challengeHandler(new Request(resource, { method: 'POST' }));
  return answer.headers.get('oauth-client-attestation-challenge') ?? '';
}
