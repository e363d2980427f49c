import { decodeJwt } from 'jose';
import { describe, expect, test } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { proveActivation, proveTpm } from '../../src/evidence/tpm/prove.ts';
import { attest, CLIENT, challengeOf, enrol, post } from '../attester/helpers.ts';
import { copyOf, replace, type SoftwareTpm } from './software-tpm.ts';

import {
  attestTpm,
  enrolTpm,
  firstStep,
  maker,
  newTpm,
  refusals,
  type Setting,
  stranger,
  tpmAttester,
} from './tpm-world.ts';

describe('an instance keeps its device', () => {
  async function enrolled(setting: Setting = {}) {
    const world = tpmAttester(setting);
    const tpm = newTpm();
    await enrolTpm(world.attester, tpm);
    const record = await world.attester.instances();
    world.events.length = 0;
    return { ...world, tpm, record };
  }
  const conflict = { status: 409, body: { error: 'device_conflict' } };

  test.each<[string, (tpm: SoftwareTpm) => void]>([
    ['EK', (tpm) => Object.assign(tpm, { ek: stranger.ek, certificate: stranger.certificate })],
    ['AK', (tpm) => replace(tpm, 'ak')],
    [
      'place of its AK',
      (tpm) => {
        const qualifiedSigner = Uint8Array.of(0, 11, ...new Uint8Array(32));
        tpm.forge = { enrolment: { qualifiedSigner }, instance: { qualifiedSigner } };
      },
    ],
  ])(
    'the enrolment key with another %s: 409, with or without a token, and the record is unchanged',
    async (_what, change) => {
      const { attester, events, tpm, record } = await enrolled();
      const thief = copyOf(tpm);
      change(thief);
      expect(await attestTpm(attester, thief)).toMatchObject(conflict);
      expect(await enrolTpm(attester, thief)).toMatchObject(conflict);
      expect(refusals(events).map(({ rule }) => rule)).toEqual(['TPM attestation 9', 'TPM attestation 9']);
      expect(await attester.instances()).toEqual(record);
      expect((await attestTpm(attester, tpm)).status).toBe(200);
    },
  );

  test('two devices that enrol one key at once: one is pinned, the other is told', async () => {
    const { attester: racing } = tpmAttester();
    const tpm = newTpm();
    const twin = copyOf(tpm);
    Object.assign(twin, { ek: stranger.ek, certificate: stranger.certificate });
    const token = await racing.createEnrolmentToken({ clientId: CLIENT });
    const steps = await Promise.all([tpm, twin].map((one) => firstStep(racing, one, { token })));
    const answers = await Promise.all(
      steps.map(async ({ input, answer }) => {
        const challenge = answer.body.challenge!;
        const evidence = await proveActivation({ ...input, challenge }, answer.body.next as JsonObject);
        return post(racing, '/attestation', { client_id: CLIENT, challenge, evidence, enrolment_token: token });
      }),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409]);
    expect(await racing.instances()).toHaveLength(1);
  });

  test.each<[string, (tpm: SoftwareTpm) => void]>([
    ['a clock', (tpm) => (tpm.clock.clock -= 1000n)],
    ['a reset count', (tpm) => Object.assign(tpm.clock, { resetCount: 4, clock: 2_000_000n })],
    ['a restart count', (tpm) => Object.assign(tpm.clock, { restartCount: 1, clock: 2_000_000n })],
  ])('%s that went back is refused, and the record stays', async (_what, change) => {
    const { attester, clock, events, tpm, record } = await enrolled();
    const back = copyOf(tpm);
    change(back);
    clock.seconds += 121; // no request of before is still under way
    const seconds = clock.seconds;
    const answer = await attestTpm(attester, back, { seconds });
    expect(answer).toMatchObject({
      status: 403,
      body: { error: 'access_denied', error_description: expect.stringMatching(/enrol anew/) },
    });
    expect(refusals(events)).toMatchObject([{ rule: 'TPM attestation 9' }]);
    expect(await attester.instances()).toEqual(record);
    expect((await attestTpm(attester, tpm, { seconds })).status).toBe(200);
  });

  test('requests of one agent may overtake each other', async () => {
    const { attester, tpm } = await enrolled();
    const slow = { ...(await firstStep(attester, tpm)).input, challenge: await challengeOf(attester) };
    const evidence = await proveTpm(slow);
    tpm.clock.clock += 20_000n;
    expect((await attestTpm(attester, tpm)).status).toBe(200);
    const body = { client_id: CLIENT, challenge: slow.challenge, evidence };
    expect((await post(attester, '/attestation', body)).status).toBe(200);
  });

  test('a restart of the TPM is no rollback, nor is a power cut', async () => {
    const { attester, clock, tpm } = await enrolled();
    clock.seconds += 121;
    const seconds = clock.seconds;
    Object.assign(tpm.clock, { resetCount: 6, restartCount: 0, clock: tpm.clock.clock - 500_000n, safe: false });
    expect((await attestTpm(attester, tpm, { seconds })).status).toBe(200);
    Object.assign(tpm.clock, { resetCount: 7, clock: tpm.clock.clock + 1n, safe: true });
    expect((await attestTpm(attester, tpm, { seconds })).status).toBe(200);
  });

  test("a virtual TPM that forgets its clock when it loses power goes on where clockAfterReset is 'any'", async () => {
    const { attester, clock, tpm } = await enrolled({ tpm: { clockAfterReset: 'any' } });
    clock.seconds += 121;
    const seconds = clock.seconds;
    const snapshot = copyOf(tpm);
    Object.assign(tpm.clock, { resetCount: 6, restartCount: 0, clock: 300n, safe: true });
    expect((await attestTpm(attester, tpm, { seconds })).status).toBe(200);
    expect((await attestTpm(attester, snapshot, { seconds })).status).toBe(403);
  });

  test('never downgraded: an instance with a device is refused with software evidence', async () => {
    const { attester, events, tpm, record } = await enrolled();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const answer = await attest(attester, tpm.signers(), { token });
    expect(answer).toMatchObject({ status: 403, body: { error: 'access_denied' } });
    expect(refusals(events)).toMatchObject([{ rule: 'TPM attestation 9' }]);
    expect(await attester.instances()).toEqual(record);
  });

  test('an instance that enrolled with software evidence becomes one with a device by activation, not before', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const { body } = await enrol(attester, tpm.signers());
    expect(decodeJwt(body.attestation!)).toMatchObject({ key_storage: ['software'], key_evidence: 'self-asserted' });
    const { answer } = await firstStep(attester, tpm);
    expect(answer.body.next).toBeDefined();
    expect((await attester.instances())[0]!.device).toBeUndefined();
    const upgraded = await attestTpm(attester, tpm);
    expect(upgraded.body.instance_id).toBe(body.instance_id);
    expect(decodeJwt(upgraded.body.attestation!)).toMatchObject({ key_storage: ['hardware'] });
    expect((await attest(attester, tpm.signers())).status).toBe(403);
  });

  test("a policy of ['tpm'] refuses software evidence, whatever it says of itself", async () => {
    const { attester } = tpmAttester({ client: { evidence: ['tpm'], enrolment: { tokens: true } } });
    expect(await enrol(attester)).toMatchObject({ status: 403, body: { error: 'access_denied' } });
    expect((await enrolTpm(attester, newTpm())).status).toBe(200);
  });

  test('software evidence is never hardware, whatever the key says', async () => {
    const { attester } = tpmAttester();
    const { body } = await enrol(attester, undefined, { storage: 'hardware' as 'software' });
    expect(body).toMatchObject({ error: 'invalid_client_attestation' });
  });

  test('a revoked instance stays revoked, with its TPM', async () => {
    const { attester, tpm } = await enrolled();
    await attester.revoke({ thumbprint: tpm.signers().enrolmentSigner.thumbprint });
    expect(await enrolTpm(attester, tpm)).toMatchObject({ status: 403, body: { error: 'access_denied' } });
  });

  test('a revocation is of the instance: its TPM enrols anew with new keys and a new token, unless the inventory leaves it out', async () => {
    const banned = new Set<string>();
    const { attester, tpm } = await enrolled({ tpm: { roots: [maker.der], inventory: (ek) => !banned.has(ek) } });
    const [first] = await attester.instances();
    await attester.revoke({ instanceId: first!.instanceId });
    replace(tpm, 'enrolment');
    replace(tpm, 'instance');
    expect((await enrolTpm(attester, tpm)).status).toBe(200);
    const [, second] = await attester.instances();
    expect(second!.device!.ek).toBe(first!.device!.ek);
    banned.add(first!.device!.ek);
    expect(await attestTpm(attester, tpm)).toMatchObject({ status: 403, body: { error: 'access_denied' } });
  });
});
