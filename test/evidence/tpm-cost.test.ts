/** What a stranger can make the attester spend: processor time for each request, over its handler. */
import { generateKeyPairSync } from 'node:crypto';
import type { Attester } from 'attested/attester';
import { expect, test } from 'vitest';
import { proveTpm } from '../../src/evidence/tpm/prove.ts';
import { CLIENT, challengeOf, post } from '../attester/helpers.ts';
import { CA_USAGE, type Issued, issueCertificate } from '../support/certificates.ts';
import { ekCertificate, type SoftwareTpm } from './software-tpm.ts';
import { firstStep, maker, newTpm, tpmAttester } from './tpm-world.ts';

/** Milliseconds of processor time for a first request, the least of several: other programs only ever add to it. */
async function costOf(attester: Attester, tpm: SoftwareTpm, status: number): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  const { input } = await firstStep(attester, tpm);
  for (let round = 0; round < 8; round++) {
    const challenge = await challengeOf(attester);
    const evidence = await proveTpm({ ...input, challenge });
    const body = JSON.stringify({ client_id: CLIENT, challenge, evidence });
    const before = process.cpuUsage();
    const answer = await post(attester, '/attestation', body);
    const { user, system } = process.cpuUsage(before);
    expect(answer.status).toBe(status);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

test('long lists of roots and intermediates are read once, not for each request', { timeout: 60_000 }, async () => {
  const many = Array.from(
    { length: 600 },
    (_, i) => new Uint8Array(issueCertificate({ name: `another ${i}`, ca: true, usage: CA_USAGE }).der),
  );
  const { attester: one } = tpmAttester();
  const { attester: bundle } = tpmAttester({ tpm: { roots: [maker.der, ...many.slice(0, 100)], intermediates: many } });
  const alone = await costOf(one, newTpm(), 200);
  expect(await costOf(bundle, newTpm(), 200)).toBeLessThan(alone * 3);
});

test('authorities that all could have issued each other end the search soon', { timeout: 60_000 }, async () => {
  const keys = generateKeyPairSync('rsa', { modulusLength: 4096 });
  const issuer = { name: 'loop', privateKey: keys.privateKey } as Issued;
  const loop = Array.from({ length: 8 }, () =>
    issueCertificate({ name: 'loop', issuer, ca: true, usage: CA_USAGE, keys }),
  );
  const { attester } = tpmAttester();
  const tpm = newTpm();
  tpm.certificate = ekCertificate(issuer, tpm.ek);
  tpm.chain = loop.map(({ der }) => new Uint8Array(der));
  expect(await costOf(attester, tpm, 400)).toBeLessThan(250);
});
