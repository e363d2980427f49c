/** What a TPM's statements are about: every part counts, and no two lists of parts run into the same bytes. */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { activationFor, type Bound, extraDataFor } from '../../src/evidence/tpm/binding.ts';
import { proveTpm } from '../../src/evidence/tpm/prove.ts';
import { CLIENT, challengeOf, post } from '../attester/helpers.ts';
import { enrolTpm, firstStep, newTpm, refusals, tpmAttester } from './tpm-world.ts';

const bound: Bound = {
  attester: 'https://attester.example',
  clientId: 'client',
  challenge: 'challenge',
  enrolmentThumbprint: 'enrolment',
  instanceThumbprint: 'instance',
};
const secret = new Uint8Array(32).fill(7);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const purposes = ['enrolment', 'instance', 'quote'] as const;

describe('extra data', () => {
  test('is SHA-256 over each part behind its length of four bytes', () => {
    const parts = [
      'attested tpm certify instance key v1',
      'challenge',
      'https://attester.example',
      'client',
      'enrolment',
      'instance',
    ];
    const hash = createHash('sha256');
    for (const part of parts) hash.update(Buffer.of(0, 0, 0, part.length)).update(part);
    expect(hex(extraDataFor('instance', bound))).toBe(hash.digest('hex'));
  });

  test('differs by purpose, and from the answer to an activation', () => {
    const all = [...purposes.map((purpose) => extraDataFor(purpose, bound)), activationFor(secret, bound)].map(hex);
    expect(new Set(all).size).toBe(4);
  });

  test.each(Object.keys(bound) as (keyof Bound)[])('and the answer to an activation differ by %s', (member) => {
    const other = { ...bound, [member]: `${bound[member]}x` };
    for (const purpose of purposes) {
      expect(hex(extraDataFor(purpose, other))).not.toBe(hex(extraDataFor(purpose, bound)));
    }
    // an activation is for one challenge by its secret
    const same = hex(activationFor(secret, other)) === hex(activationFor(secret, bound));
    expect(same).toBe(member === 'challenge');
    expect(hex(activationFor(new Uint8Array(32), bound))).not.toBe(hex(activationFor(secret, bound)));
  });

  test('no part can be taken for a piece of its neighbour', () => {
    const members = Object.keys(bound) as (keyof Bound)[];
    const text = fc.string({ maxLength: 4, unit: fc.constantFrom('a', 'b', '\0') });
    const values = fc.record(
      Object.fromEntries(members.map((member) => [member, text])) as Record<keyof Bound, typeof text>,
    );
    fc.assert(
      fc.property(values, values, (a, b) => {
        const equal = members.every((member) => a[member] === b[member]);
        expect(hex(extraDataFor('quote', a)) === hex(extraDataFor('quote', b))).toBe(equal);
      }),
    );
  });
});

test('statements for an earlier challenge are refused, also beside proofs for the present one', async () => {
  const { attester, events } = tpmAttester();
  const tpm = newTpm();
  await enrolTpm(attester, tpm);
  const { input } = await firstStep(attester, tpm);
  const before = await proveTpm({ ...input, challenge: await challengeOf(attester) });
  const challenge = await challengeOf(attester);
  const { enrolment_proof, key_proof } = await proveTpm({ ...input, challenge });
  events.length = 0;
  const body = { client_id: CLIENT, challenge, evidence: { ...before, enrolment_proof, key_proof } };
  expect(await post(attester, '/attestation', body)).toMatchObject({ status: 400 });
  expect(refusals(events)).toMatchObject([{ rule: 'TPM attestation 5' }]);
});
