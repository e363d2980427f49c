/** The second step of TPM evidence, and the challenges of both. */
import { type Attester, memoryStore } from 'attested/attester';
import { describe, expect, test } from 'vitest';
import { createHandler } from '../../src/attester/handler.ts';
import type { AttesterParts } from '../../src/attester/issue.ts';
import { readPolicy } from '../../src/attester/policy.ts';
import { signerSet } from '../../src/attester/signers.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { evidenceCheck } from '../../src/evidence/index.ts';
import { proveActivation, proveTpm } from '../../src/evidence/tpm/prove.ts';
import { readTpmTrust } from '../../src/evidence/tpm/trust.ts';
import { sha256 } from '../../src/platform/crypto.ts';
import { CLIENT, challengeOf, ISSUER, newSigner, post, START } from '../attester/helpers.ts';
import { softwareAk } from '../tpm2/forge.ts';
import { copyOf, replace } from './software-tpm.ts';

import { attestTpm, bytesOf, enrolTpm, firstStep, maker, newTpm, refusals, textOf, tpmAttester } from './tpm-world.ts';

describe('activation', () => {
  const rejected = { status: 400, body: { error: 'invalid_client_attestation' } };

  test.each<[string, (evidence: JsonObject) => JsonObject]>([
    ['a wrong answer', (evidence) => ({ ...evidence, activation: textOf(new Uint8Array(32)) })],
    ['a short answer', (evidence) => ({ ...evidence, activation: 'AA' })],
    [
      'the hash that the store keeps',
      (evidence) => ({ ...evidence, activation: textOf(sha256(bytesOf(evidence.activation as string))) }),
    ],
  ])('%s ends the enrolment: the challenge is spent, nothing is enrolled, the token is not', async (_what, second) => {
    const { attester, events } = tpmAttester();
    const tpm = newTpm();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const { input, answer } = await firstStep(attester, tpm, { token });
    const challenge = answer.body.challenge!;
    const right = await proveActivation({ ...input, challenge }, answer.body.next as JsonObject);
    const ask = (evidence: JsonObject) =>
      post(attester, '/attestation', { client_id: CLIENT, challenge, evidence, enrolment_token: token });
    expect(await ask(second(right))).toMatchObject(rejected);
    expect(refusals(events)).toMatchObject([{ rule: 'TPM activation' }]);
    // now with the right answer: too late
    expect(await ask(right)).toMatchObject({ status: 400, body: { error: 'use_attestation_challenge' } });
    expect(await attester.instances()).toEqual([]);
    expect((await attestTpm(attester, tpm, { token })).status).toBe(200);
  });

  test('the secret itself is no answer: what the TPM opens stays with the agent', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const { input, answer } = await firstStep(attester, tpm);
    const { credential_blob, encrypted_secret } = answer.body.next as Record<string, string>;
    const secret = await tpm.device.activate(bytesOf(credential_blob), bytesOf(encrypted_secret));
    const challenge = answer.body.challenge!;
    const evidence = await proveActivation({ ...input, challenge }, answer.body.next as JsonObject);
    expect(evidence.activation).not.toBe(textOf(secret));
    const body = { client_id: CLIENT, challenge, evidence: { ...evidence, activation: textOf(secret) } };
    expect(await post(attester, '/attestation', body)).toMatchObject(rejected);
  });

  test("another attester's credential, passed on as one's own, is opened to an answer that is of no use there", async () => {
    const victim = tpmAttester().attester;
    const tpm = newTpm();
    const { input, answer } = await firstStep(victim, tpm);
    const challenge = answer.body.challenge!;
    // what an agent would answer to an attester in the middle
    const evidence = await proveActivation(
      { ...input, attester: 'https://middle.example', challenge },
      answer.body.next as JsonObject,
    );
    const { enrolment_proof } = await proveActivation({ ...input, challenge }, answer.body.next as JsonObject);
    const relayed = { client_id: CLIENT, challenge, evidence: { ...evidence, enrolment_proof } };
    expect(await post(victim, '/attestation', relayed)).toMatchObject(rejected);
  });

  test('a TPM that lacks the EK or the AK cannot open the credential', async () => {
    for (const part of ['ek', 'ak'] as const) {
      const { attester } = tpmAttester();
      const tpm = newTpm();
      const enrolling = enrolTpm(attester, tpm, { between: () => replace(tpm, part) });
      await expect(enrolling).rejects.toThrow();
      expect(await attester.instances()).toEqual([]);
    }
  });

  test('an AK cannot be swapped between the steps: the second step has no room for one', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const other = textOf(softwareAk().publicArea);
    for (const member of ['ak', 'ek', 'enrolment', 'instance', 'key_proof', 'next']) {
      const answer = await enrolTpm(attester, tpm, { second: (evidence) => ({ ...evidence, [member]: other }) });
      expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_request' } });
    }
    const pinned = await enrolTpm(attester, tpm, { between: () => (tpm.forge = {}) });
    expect(pinned.status).toBe(200);
    expect((await attester.instances())[0]!.device!.ak).toBe(textOf(tpm.ak.parsed.name));
  });

  test('an AK that is no key of that TPM: what it certifies is right in every way, but the credential stays shut', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const outside = newTpm();
    // the attacker has EK and certificate of a real TPM, and plays the rest in software
    const fake = copyOf(outside);
    Object.assign(fake, { ek: tpm.ek, certificate: tpm.certificate });
    const { answer } = await firstStep(attester, fake);
    expect(answer.body.next).toBeDefined();
    // the real TPM, asked to open it, has no key of that Name
    const { credential_blob, encrypted_secret } = answer.body.next as Record<string, string>;
    await expect(tpm.device.activate(bytesOf(credential_blob), bytesOf(encrypted_secret))).rejects.toThrow();
  });

  test.each<
    [string, (honest: { input: Parameters<typeof proveActivation>[0]; next: JsonObject }) => Promise<JsonObject>]
  >([
    ['another enrolment key', ({ input, next }) => proveActivation({ ...input, enrolmentSigner: newSigner() }, next)],
    ['another instance key', ({ input, next }) => proveActivation({ ...input, instanceSigner: newSigner() }, next)],
    ['another attester', ({ input, next }) => proveActivation({ ...input, attester: 'https://other.example' }, next)],
    ['another client', ({ input, next }) => proveActivation({ ...input, clientId: 'other' }, next)],
    ["the first step's challenge", ({ input, next }) => proveActivation({ ...input, challenge: 'x'.repeat(43) }, next)],
    ['an hour ago', ({ input, next }) => proveActivation({ ...input, now: () => (START - 3600) * 1000 }, next)],
  ])('a proof of the second step by or for %s is refused', async (_what, prove) => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const { input, answer } = await firstStep(attester, tpm);
    const challenge = answer.body.challenge!;
    const next = answer.body.next as JsonObject;
    const evidence = await prove({ input: { ...input, challenge }, next });
    const honest = await proveActivation({ ...input, challenge }, next);
    // the right answer does not help
    const body = { client_id: CLIENT, challenge, evidence: { ...evidence, activation: honest.activation } };
    expect(await post(attester, '/attestation', body)).toMatchObject(rejected);
    expect(await attester.instances()).toEqual([]);
  });

  test('a late answer is refused, and so is one to another client or of another kind', async () => {
    const { attester, clock } = tpmAttester();
    const tpm = newTpm();
    const late = await enrolTpm(attester, tpm, {
      between: () => {
        clock.seconds += 60;
      },
    });
    expect(late).toMatchObject({ status: 400, body: { error: 'use_attestation_challenge' } });
    clock.seconds = START;
    for (const change of [
      { client_id: 'other' },
      { evidence: { kind: 'software', enrolment_proof: 'a', key_proof: 'b' } },
    ]) {
      const { input, answer } = await firstStep(attester, tpm);
      const challenge = answer.body.challenge!;
      const evidence = await proveActivation({ ...input, challenge }, answer.body.next as JsonObject);
      const body = { client_id: CLIENT, challenge, evidence, ...change };
      expect(await post(attester, '/attestation', body)).toMatchObject(rejected);
    }
  });

  test('an answer without a first step, and a first step in place of the answer, are malformed', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const { input, answer } = await firstStep(attester, tpm);
    const evidence = await proveActivation({ ...input }, answer.body.next as JsonObject);
    const malformed = { status: 400, body: { error: 'invalid_request' } };
    const challenge = await challengeOf(attester);
    expect(await post(attester, '/attestation', { client_id: CLIENT, challenge, evidence })).toMatchObject(malformed);
    const again = await firstStep(attester, tpm, { challenge: answer.body.challenge! });
    expect(again.answer).toMatchObject(malformed);
  });
});

describe('challenges', () => {
  /** Are recorded statements of a TPM of no use later? */
  async function replayIsRefused(attester: Attester, token?: string): Promise<boolean> {
    const tpm = newTpm();
    expect((await attestTpm(attester, tpm, { token })).status).toBe(200);
    let recorded: JsonObject = {};
    const first = await firstStep(attester, tpm, {
      change: (evidence) => {
        recorded = structuredClone(evidence);
      },
    });
    expect(first.answer.status).toBe(200);
    const challenge = await challengeOf(attester);
    const replayed = await post(attester, '/attestation', { client_id: CLIENT, challenge, evidence: recorded });
    return replayed.body.attestation === undefined;
  }

  async function challengesDiffer(attester: Attester): Promise<boolean> {
    const seen = new Set<string>();
    for (let i = 0; i < 10_000; i++) seen.add(await challengeOf(attester));
    return seen.size === 10_000 && [...seen].every((challenge) => bytesOf(challenge).length === 32);
  }

  test('10,000 challenges differ, and what was recorded for one is refused for another', {
    timeout: 60_000,
  }, async () => {
    const { attester } = tpmAttester();
    expect(await challengesDiffer(attester)).toBe(true);
    expect(await replayIsRefused(attester, await attester.createEnrolmentToken({ clientId: CLIENT }))).toBe(true);
  });

  test('the test above finds an attester whose challenge is fixed', { timeout: 60_000 }, async () => {
    let kept: JsonObject | undefined;
    const tpm = readTpmTrust({ roots: [maker.der] });
    const parts: AttesterParts = {
      issuer: ISSUER,
      store: memoryStore(),
      signers: signerSet(newSigner()),
      challenges: {
        ttl: 60,
        create: async (state) => {
          kept = state;
          return { challenge: 'A'.repeat(43), expires_in: 60 };
        },
        take: async () => kept,
      },
      policyOf: readPolicy({ clients: { [CLIENT]: { enrolment: { allow: 'any' } } } }, tpm),
      checkOf: evidenceCheck,
      tpm,
      statusLists: undefined,
      log: () => undefined,
      now: () => START * 1000,
    };
    const attester = { issuer: ISSUER, handler: createHandler(parts) } as Attester;
    expect(await challengesDiffer(attester)).toBe(false);
    expect(await replayIsRefused(attester)).toBe(false);
  });

  test('a challenge is good once, for a minute, and for nobody else; of two replicas one serves it', async () => {
    const store = memoryStore();
    const { attester, clock } = tpmAttester({ store });
    const replica = tpmAttester({ store }).attester;
    const tpm = newTpm();
    await enrolTpm(attester, tpm);
    const stale = { status: 400, body: { error: 'use_attestation_challenge' } };

    const challenge = await challengeOf(attester);
    expect((await attestTpm(attester, tpm, { challenge })).status).toBe(200);
    expect(await attestTpm(attester, tpm, { challenge })).toMatchObject(stale);

    const late = await challengeOf(attester);
    clock.seconds += 60;
    expect(await attestTpm(attester, tpm, { challenge: late, seconds: clock.seconds })).toMatchObject(stale);
    clock.seconds = START;

    const { input, answer } = await firstStep(attester, tpm);
    expect(answer.status).toBe(200);
    const evidence = await proveTpm({ ...input, challenge: await challengeOf(attester) });
    const elsewhere = { client_id: 'other', challenge: await challengeOf(attester), evidence };
    expect(await post(attester, '/attestation', elsewhere)).toMatchObject({ status: 400 });

    for (let i = 0; i < 10; i++) {
      const contested = await challengeOf(attester);
      const answers = await Promise.all(
        [attester, replica].map((one) => attestTpm(one, tpm, { challenge: contested })),
      );
      expect(answers.map(({ status }) => status).sort()).toEqual([200, 400]);
    }
  });

  test('an activation is good once, also where two replicas race for it', async () => {
    const store = memoryStore();
    const { attester } = tpmAttester({ store });
    const replica = tpmAttester({ store }).attester;
    const tpm = newTpm();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const { input, answer } = await firstStep(attester, tpm, { token });
    const challenge = answer.body.challenge!;
    const evidence = await proveActivation({ ...input, challenge }, answer.body.next as JsonObject);
    const body = { client_id: CLIENT, challenge, evidence, enrolment_token: token };
    const answers = await Promise.all([attester, replica].map((one) => post(one, '/attestation', body)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400]);
    expect(await attester.instances()).toHaveLength(1);
  });

  test('statements for one attester are refused by another with the same policy', async () => {
    const tpm = newTpm();
    const [one, two] = [tpmAttester().attester, tpmAttester({ issuer: 'https://other.example' }).attester];
    const { input } = await firstStep(one, tpm);
    const challenge = await challengeOf(two);
    const forOne = await proveTpm({ ...input, challenge });
    const proofs = await proveTpm({ ...input, attester: two.issuer, challenge });
    const { enrolment_proof, key_proof } = proofs;
    const body = { client_id: CLIENT, challenge, evidence: { ...forOne, enrolment_proof, key_proof } };
    expect(await post(two, '/attestation', body)).toMatchObject({ status: 400 });
  });
});
