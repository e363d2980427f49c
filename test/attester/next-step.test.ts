import { memoryStore } from 'attested/attester';
import { describe, expect, test } from 'vitest';
import { createChallenges } from '../../src/attester/challenges.ts';
import { type AttesterParts, answerAttestationRequest } from '../../src/attester/issue.ts';
import { readPolicy } from '../../src/attester/policy.ts';
import { signerSet } from '../../src/attester/signers.ts';
import type { AttestationAnswer, EvidenceCheck, NextStepAnswer } from '../../src/evidence/protocol.ts';
import { newSigner, START } from './helpers.ts';

const instance = newSigner();
const now = () => START * 1000;

/** Evidence that, like a TPM's, needs two rounds: the second must bring what the first one's answer asks for. */
const twoSteps: EvidenceCheck = (evidence, { state }) => {
  if (state === undefined) return { next: { riddle: 'sealed' }, state: { solution: 'opened' } };
  if (evidence.solution !== state.solution) throw new Error('wrong solution');
  const { thumbprint, publicJwk } = instance;
  return {
    enrolmentThumbprint: 'enrolment',
    instanceKey: publicJwk as never,
    instanceThumbprint: thumbprint,
    storage: 'hardware',
    evidence: 'tpm-certified',
  };
};

function setUp() {
  const store = memoryStore();
  const challenges = createChallenges({ store, now, ttl: 60, max: 100 });
  const client = { enrolment: { allow: 'any' as const } };
  const parts: AttesterParts = {
    issuer: 'https://attester.example',
    store,
    challenges,
    signers: signerSet(newSigner()),
    policyOf: readPolicy({ clients: { a: client, b: client } }),
    checkOf: () => twoSteps,
    tpm: undefined,
    statusLists: undefined,
    log: () => undefined,
    now,
  };
  const ask = (client_id: string, challenge: string, evidence: object = {}) =>
    answerAttestationRequest(parts, { client_id, challenge, evidence: { kind: 'software', ...evidence } });
  const firstStep = async () => (await ask('a', (await challenges.create()).challenge)) as NextStepAnswer;
  return { store, challenges, ask, firstStep };
}

describe('evidence of more than one step', () => {
  test('the answer of the first step asks for the next one, with a challenge of its own', async () => {
    const { store, ask, firstStep } = setUp();
    const step = await firstStep();
    expect(step).toEqual({ next: { riddle: 'sealed' }, challenge: expect.any(String), expires_in: 60 });
    expect(JSON.stringify(step)).not.toContain('opened');
    expect(await store.instances()).toEqual([]);
    const answer = (await ask('a', step.challenge, { solution: 'opened' })) as AttestationAnswer;
    expect(answer.attestation).toMatch(/^ey/);
  });

  test('the second step is for the client that took the first, once', async () => {
    const { ask, firstStep } = setUp();
    const step = await firstStep();
    const solution = { solution: 'opened' };
    await expect(ask('b', step.challenge, solution)).rejects.toMatchObject({ code: 'invalid_client_attestation' });
    await expect(ask('a', step.challenge, solution)).rejects.toMatchObject({ code: 'use_attestation_challenge' });
  });

  test('a solution without a first step starts at the first step', async () => {
    const { challenges, ask } = setUp();
    const { challenge } = await challenges.create();
    expect(await ask('a', challenge, { solution: 'opened' })).toMatchObject({ next: { riddle: 'sealed' } });
  });
});
