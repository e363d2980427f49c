import { describe, expect, it } from 'vitest';
import { createAttestation, createPop, defineProfile } from '../../src/index.ts';
import { createWorld, expectRefused } from '../support/world.ts';

const profile = defineProfile({
  name: 'wallets',
  attestationTyp: 'wallet-attestation+jwt',
  popTyp: 'wallet-attestation-pop+jwt',
  clientIdOf: (sub) => `wallet:${sub}`,
});

/** A world that speaks the profile, and tokens of it. */
async function setUp() {
  const world = createWorld({ profile });
  const attestation = await createAttestation(
    { sub: 'one', exp: world.seconds() + 600, iat: world.seconds(), cnf: { jwk: world.instance.publicJwk } },
    world.attester,
    { profile },
  );
  const popOf = async () =>
    createPop(
      { audience: world.verifier.audience, challenge: await world.challenge(), issuedAt: world.seconds(), profile },
      world.instance,
    );
  return { world, attestation, popOf };
}

describe('a profile', () => {
  it('PROF-1: replaces the types and the meaning of sub', async () => {
    const { world, attestation, popOf } = await setUp();
    const sent = await world.sent({ attestation, pop: await popOf(), clientId: 'wallet:one' });
    await expect(world.verify(sent)).resolves.toMatchObject({ clientId: 'wallet:one' });
    const byRawSub = await world.sent({ attestation, pop: await popOf(), clientId: 'one' });
    await expectRefused(world, byRawSub, { code: 'invalid_client_attestation', rule: 'VER-6' });
  });

  it('PROF-1: takes no tokens without it, and without it its tokens are refused', async () => {
    const { world, attestation, popOf } = await setUp();
    await expectRefused(world, await world.sent({ pop: await popOf() }), {
      code: 'invalid_client_attestation',
      rule: 'ATT-1',
    });
    await expectRefused(world, await world.sent({ attestation }), {
      code: 'invalid_client_attestation',
      rule: 'VER-6',
    });
    const unnamed = await world.sent({ attestation, clientId: undefined });
    await expectRefused(world, unnamed, { code: 'invalid_client_attestation', rule: 'POP-1' });
    const base = createWorld({ attester: world.attester, instance: world.instance });
    await expectRefused(base, await base.sent({ attestation }), { code: 'invalid_client_attestation', rule: 'ATT-1' });
    await expectRefused(base, await base.sent({ pop: await popOf() }), {
      code: 'invalid_client_attestation',
      rule: 'POP-1',
    });
  });

  it('PROF-1: changes nothing else: every other rule still holds', async () => {
    const { world, attestation, popOf } = await setUp();
    const header = { typ: profile.attestationTyp };
    const refused = [
      [await world.attestation({ header, payload: { exp: undefined } }), 'ATT-3'],
      [await world.attestation({ header, payload: { cnf: { kid: 'k' } } }), 'ATT-4'],
      [await world.attestation({ header, signer: world.instance }), 'VER-3'],
    ] as const;
    for (const [token, rule] of refused) {
      const sent = await world.sent({ attestation: token, pop: await popOf(), clientId: undefined });
      await expectRefused(world, sent, { code: 'invalid_client_attestation', rule });
    }
    const pop = await world.pop({ header: { typ: profile.popTyp }, payload: { challenge: 'wrong' } });
    const sent = await world.sent({ attestation, pop, clientId: undefined });
    await expectRefused(world, sent, { code: 'use_attestation_challenge', rule: 'POP-5' });
  });

  it('PROF-1: says nothing that the base has not: absent changes are the draft itself', () => {
    expect(defineProfile({ name: 'same' })).toMatchObject({
      attestationTyp: 'oauth-client-attestation+jwt',
      popTyp: 'oauth-client-attestation-pop+jwt',
      refreshTokenBinding: 'instance-key',
    });
  });
});
