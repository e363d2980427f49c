/** TPM evidence from somebody who keeps to no form, and parts of ours that fail. */
import { type Attester, type AttesterStore, memoryStore } from 'attested/attester';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { proveKeys } from '../../src/evidence/key-proof/prove.ts';
import { proveTpm } from '../../src/evidence/tpm/prove.ts';
import { type Answer, CLIENT, challengeOf, post } from '../attester/helpers.ts';
import type { SoftwareTpm } from './software-tpm.ts';

import {
  attestTpm,
  bytesOf,
  enrolTpm,
  firstStep,
  instanceOf,
  newTpm,
  refusals,
  statement,
  textOf,
  tpmAttester,
} from './tpm-world.ts';

describe('hostile evidence', () => {
  const long = (bytes: number) => textOf(new Uint8Array(bytes));
  const rows: [string, (evidence: JsonObject) => void][] = [
    ...['enrolment_proof', 'key_proof', 'ek', 'ak', 'enrolment', 'instance'].flatMap((member): typeof rows => [
      [
        `no ${member}`,
        (evidence) => {
          delete evidence[member];
        },
      ],
      [
        `a number as ${member}`,
        (evidence) => {
          evidence[member] = 7;
        },
      ],
      [
        `null as ${member}`,
        (evidence) => {
          evidence[member] = null;
        },
      ],
      [
        `a list as ${member}`,
        (evidence) => {
          evidence[member] = [];
        },
      ],
    ]),
    [
      'a member that nobody knows',
      (evidence) => {
        evidence.extra = 'AA';
      },
    ],
    [
      'a member of a key that nobody knows',
      (evidence) => {
        instanceOf(evidence).name = 'AA';
      },
    ],
    [
      'an empty AK',
      (evidence) => {
        evidence.ak = '';
      },
    ],
    [
      'an AK in base64 with padding',
      (evidence) => {
        evidence.ak = `${evidence.ak}=`;
      },
    ],
    [
      'an AK in another alphabet',
      (evidence) => {
        evidence.ak = '++//';
      },
    ],
    [
      'an AK with stray bits',
      (evidence) => {
        evidence.ak = 'AB';
      },
    ],
    [
      'a long AK',
      (evidence) => {
        evidence.ak = long(1025);
      },
    ],
    [
      'a long statement',
      (evidence) => {
        instanceOf(evidence).attest = long(1025);
      },
    ],
    [
      'a long signature',
      (evidence) => {
        instanceOf(evidence).signature = long(1025);
      },
    ],
    [
      'a long certificate',
      (evidence) => {
        statement('ek')(evidence).certificate = long(8193);
      },
    ],
    ['a chain that is no list', (evidence) => void Object.assign(evidence.ek as object, { chain: {} })],
    ['a chain of many', (evidence) => void Object.assign(evidence.ek as object, { chain: Array(9).fill('AA') })],
    ['a chain of numbers', (evidence) => void Object.assign(evidence.ek as object, { chain: [1] })],
    [
      'a quote of an unknown bank',
      (evidence) => {
        evidence.quote = { attest: 'AA', signature: 'AA', pcrs: { md5: {} } };
      },
    ],
    [
      'a quote of PCR 32',
      (evidence) => {
        evidence.quote = { attest: 'AA', signature: 'AA', pcrs: { sha256: { 32: 'AA' } } };
      },
    ],
    [
      'a quote of PCR 1e0',
      (evidence) => {
        evidence.quote = { attest: 'AA', signature: 'AA', pcrs: { sha256: { '1e0': 'AA' } } };
      },
    ],
    [
      'a quote of long values',
      (evidence) => {
        evidence.quote = { attest: 'AA', signature: 'AA', pcrs: { sha256: { 1: long(65) } } };
      },
    ],
    [
      'a quote whose values are no object',
      (evidence) => {
        evidence.quote = { attest: 'AA', signature: 'AA', pcrs: { sha256: 'AA' } };
      },
    ],
  ];
  test.each(rows)('with %s is malformed: 400, check 1', async (_what, change) => {
    const { attester, events } = tpmAttester();
    const answer = await enrolTpm(attester, newTpm(), { change });
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_request' } });
    expect(refusals(events)).toMatchObject([{ rule: 'TPM attestation 1' }]);
    expect(await attester.instances()).toEqual([]);
  });

  test('a storage claim has no place in it', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const { input } = await firstStep(attester, tpm);
    const challenge = await challengeOf(attester);
    const evidence = await proveTpm({ ...input, challenge });
    const { enrolment_proof } = await proveKeys({ ...input, challenge }, 'hardware');
    const body = { client_id: CLIENT, challenge, evidence: { ...evidence, enrolment_proof } };
    expect(await post(attester, '/attestation', body)).toMatchObject({ status: 400 });
  });

  test.each(['attest', 'signature', 'public'])(
    'whatever bytes stand as %s, cut, longer or changed: a refusal with a number, never a fault',
    async (part) => {
      const { attester, events } = tpmAttester();
      const tpm = newTpm();
      const { input } = await firstStep(attester, tpm);
      await fc.assert(
        fc.asyncProperty(
          fc.nat(),
          fc.integer({ min: 1, max: 255 }),
          fc.constantFrom('flip', 'cut', 'add'),
          async (at, by, how) => {
            const challenge = await challengeOf(attester);
            const evidence = await proveTpm({ ...input, challenge });
            const bytes = bytesOf(instanceOf(evidence)[part]);
            const changed = bytes.slice(0, how === 'cut' ? (at % (bytes.length - 1)) + 1 : bytes.length);
            if (how === 'flip') changed[at % bytes.length]! ^= by;
            instanceOf(evidence)[part] = textOf(how === 'add' ? Uint8Array.of(...changed, by) : changed);
            if (how === 'cut' && changed.length === bytes.length) return;
            events.length = 0;
            const answer = await post(attester, '/attestation', { client_id: CLIENT, challenge, evidence });
            expect(answer.status).toBe(400);
            expect(refusals(events)[0]!.rule).toMatch(/^(TPM attestation [1-9]|VER-.)$/);
          },
        ),
        { numRuns: 60 },
      );
    },
  );

  test('a store that fails is a fault of ours: no attestation, and the next try succeeds', async () => {
    const store = memoryStore();
    let broken = '';
    const failing: AttesterStore = new Proxy(store, {
      get: (target, name) =>
        name === broken ? async () => Promise.reject(new Error('disk full')) : Reflect.get(target, name),
    });
    const { attester } = tpmAttester({ store: failing });
    const tpm = newTpm();
    for (broken of ['device', 'issue', 'takeChallenge']) {
      const answering = firstOrSecond(attester, tpm);
      expect(await answering).toMatchObject({ status: 503, body: { error: 'temporarily_unavailable' } });
      const was = broken;
      broken = '';
      expect(await attester.instances(), was).toEqual([]);
    }
    expect((await enrolTpm(attester, tpm)).status).toBe(200);

    async function firstOrSecond(one: Attester, device: SoftwareTpm): Promise<Answer> {
      const failure = broken;
      broken = '';
      const token = await one.createEnrolmentToken({ clientId: CLIENT });
      broken = failure;
      return attestTpm(one, device, { token });
    }
  });

  test('a log that fails changes no refusal', async () => {
    const log = () => {
      throw new Error('disk full');
    };
    const { attester } = tpmAttester({ log });
    const tpm = newTpm();
    tpm.forge.instance = { magic: 1 };
    expect((await enrolTpm(attester, tpm)).status).toBe(400);
    expect(await attester.instances()).toEqual([]);
  });

  test('no refusal shows what was sent', async () => {
    const { attester, events } = tpmAttester();
    const tpm = newTpm();
    tpm.forge.instance = { extraData: new Uint8Array(32) };
    const { body } = await enrolTpm(attester, tpm);
    const told = JSON.stringify([body, events]);
    for (const secret of [tpm.ak.publicArea, tpm.ek.publicArea, tpm.certificate!]) {
      expect(told).not.toContain(textOf(secret).slice(0, 40));
    }
  });
});
