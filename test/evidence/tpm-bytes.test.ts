/** Changed bytes anywhere in TPM evidence, over the attester's handler: refused with a reason or of no effect, never a fault. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { proveTpm } from '../../src/evidence/tpm/prove.ts';
import { CLIENT, challengeOf, post } from '../attester/helpers.ts';
import { CA_USAGE, issueCertificate } from '../support/certificates.ts';
import { agileLog, boot } from '../support/event-logs.ts';
import { ekCertificate, newMaker } from './software-tpm.ts';
import { bytesOf, firstStep, newTpm, PCRS, statement, textOf, tpmAttester } from './tpm-world.ts';

const root = newMaker('root above');
const authority = issueCertificate({ name: 'authority', issuer: root, ca: true, usage: CA_USAGE });

type Place = [name: string, of: (evidence: JsonObject) => { holder: Record<string, string>; member: string }];
const member = (part: string, name: string): Place => [
  `${part}.${name}`,
  (evidence) => ({ holder: statement(part)(evidence), member: name }),
];
const places: Place[] = [
  member('ek', 'public'),
  member('ek', 'certificate'),
  [
    'ek.chain',
    (evidence) => ({ holder: statement('ek')(evidence).chain as unknown as Record<string, string>, member: '0' }),
  ],
  ['ak', (evidence) => ({ holder: evidence as Record<string, string>, member: 'ak' })],
  ...['public', 'attest', 'signature'].map((name) => member('enrolment', name)),
  ...['attest', 'signature', 'event_log'].map((name) => member('quote', name)),
];

/** What a change does at a place: other bytes, fewer, more, or a length or type that lies. */
const change = fc.record({
  how: fc.constantFrom('flip', 'cut', 'add', 'fill'),
  at: fc.nat(),
  by: fc.integer({ min: 1, max: 255 }),
});

test.each(places)('%s', async (_name, placeIn) => {
  const { attester, events } = tpmAttester({
    tpm: { roots: [root.der], quote: { pcrs: { sha256: PCRS }, check: () => true } },
  });
  const tpm = newTpm();
  tpm.certificate = ekCertificate(authority, tpm.ek);
  tpm.chain = [new Uint8Array(authority.der)];
  tpm.log = new Uint8Array(agileLog(['sha1', 'sha256'], boot));
  const { input, answer } = await firstStep(attester, tpm);
  expect(answer.body).toHaveProperty('next');
  await fc.assert(
    fc.asyncProperty(change, async ({ how, at, by }) => {
      const challenge = await challengeOf(attester);
      const evidence: JsonObject = await proveTpm({ ...input, challenge });
      const { holder, member } = placeIn(evidence);
      const bytes = bytesOf(holder[member]);
      if (how === 'flip') bytes[at % bytes.length]! ^= by;
      if (how === 'fill') bytes.fill(by, at % bytes.length, (at % bytes.length) + 4);
      const cut = how === 'cut' ? bytes.subarray(0, 1 + (at % (bytes.length - 1))) : bytes;
      holder[member] = textOf(how === 'add' ? Buffer.concat([cut, Buffer.alloc(1 + (at % 40), by)]) : cut);
      const { status, body } = await post(attester, '/attestation', { client_id: CLIENT, challenge, evidence });
      // a change may be of no matter, as in a log that is not believed, or in an intermediate's own signature; then it has to
      // open a credential, which only the right TPM can
      if (status === 200) expect(body).toHaveProperty('next');
      else expect(status).toBe(400);
    }),
    { numRuns: Number(process.env.RUNS ?? 60) },
  );
  expect(events.filter(({ type }) => type === 'fault')).toEqual([]);
  expect(await attester.instances()).toEqual([]);
});
