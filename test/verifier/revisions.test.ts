import { describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { createPop, NEWEST_REVISION, type RevisionNumber, revisions } from '../../src/index.ts';
import { sealedChallenges } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { CLIENT_ID, createWorld, expectRefused, type Sent, type World } from '../support/world.ts';

const numbers = Object.keys(revisions).map(Number) as RevisionNumber[];
const all = numbers.map((revision) => ({ revision }));

/** Exactly what each revision asks for, written down here a second time and by hand. */
const asked: Record<RevisionNumber, { attestation: string[]; pop: string[]; challenge: 'nonce' | 'challenge' }> = {
  4: { attestation: ['iss', 'exp'], pop: ['iss', 'exp'], challenge: 'nonce' },
  5: { attestation: ['iss', 'exp'], pop: ['iss', 'exp'], challenge: 'nonce' },
  6: { attestation: ['iss', 'exp'], pop: ['iss'], challenge: 'challenge' },
  7: { attestation: ['iss', 'exp'], pop: ['iss', 'iat'], challenge: 'challenge' },
  8: { attestation: ['exp'], pop: ['iat'], challenge: 'challenge' },
  9: { attestation: ['exp'], pop: ['iat'], challenge: 'challenge' },
  10: { attestation: ['exp'], pop: ['iat'], challenge: 'challenge' },
  11: { attestation: ['exp'], pop: ['iat'], challenge: 'challenge' },
  12: { attestation: ['exp', 'iat'], pop: ['iat'], challenge: 'challenge' },
};

/** The smallest valid pair of a revision. Without one of the `left` claims it has to be refused. */
async function pair(
  world: World,
  revision: RevisionNumber,
  left: { attestation?: string; pop?: string } = {},
): Promise<Sent> {
  const now = world.seconds();
  const values: JsonObject = { iss: CLIENT_ID, exp: now + 60, iat: now };
  const some = (names: string[], without: string | undefined): JsonObject =>
    Object.fromEntries(
      ['iss', 'exp', 'iat'].map((n) => [n, names.includes(n) && n !== without ? values[n] : undefined]),
    );
  const { attestation, pop, challenge } = asked[revision];
  // -06 asks for neither iat nor exp in the PoP: then one of them has to say how old it is
  const popNames = revision === 6 ? [...pop, 'iat'] : pop;
  return world.sent({
    attestation: await world.attestation({ payload: some(attestation, left.attestation) }),
    pop: await world.pop({
      payload: { ...some(popNames, left.pop), challenge: undefined, [challenge]: await world.challenge() },
    }),
  });
}

describe('each revision', () => {
  it('VER-1: is known, and the newest is the default', () => {
    expect(numbers).toEqual([4, 5, 6, 7, 8, 9, 10, 11, 12]);
    expect(NEWEST_REVISION).toBe(12);
  });

  it.each(all)('ATT-5, POP-4, POP-5: -$revision accepts the smallest valid pair of its own', async ({ revision }) => {
    const world = createWorld({ revision });
    await expect(world.verify(await pair(world, revision))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it.each(all)(
    'ATT-3, ATT-5, POP-4: -$revision refuses the pair without any one of the claims it asks for',
    async ({ revision }) => {
      const world = createWorld({ revision });
      for (const claim of asked[revision].attestation) {
        const sent = await pair(world, revision, { attestation: claim });
        await expect(world.verify(sent), `attestation without ${claim}`).rejects.toMatchObject({
          code: 'invalid_client_attestation',
        });
      }
      for (const claim of asked[revision].pop) {
        const sent = await pair(world, revision, { pop: claim });
        await expect(world.verify(sent), `PoP without ${claim}`).rejects.toMatchObject({
          code: 'invalid_client_attestation',
        });
      }
      await expect(world.verify(await pair(world, revision))).resolves.toBeDefined();
    },
  );

  it.each(all.filter(({ revision }) => revision < 12))(
    'ATT-5, POP-4, POP-5: the default refuses what only -$revision allows',
    async ({ revision }) => {
      const world = createWorld();
      await expect(world.verify(await pair(world, revision))).rejects.toMatchObject({ name: 'AttestedError' });
      await expect(world.verify(await pair(world, 12))).resolves.toBeDefined();
    },
  );

  it.each(all)('POP-5: -$revision looks for the challenge in its own claim only', async ({ revision }) => {
    const world = createWorld({ revision });
    const { challenge } = asked[revision];
    const other = challenge === 'nonce' ? 'challenge' : 'nonce';
    const payload = {
      iss: CLIENT_ID,
      exp: world.seconds() + 60,
      [challenge]: undefined,
      [other]: await world.challenge(),
    };
    const attestation = await world.attestation({ payload: { iss: 'https://attester.example' } });
    const sent = await world.sent({
      attestation,
      pop: await world.pop({ payload: { challenge: undefined, ...payload } }),
    });
    await expectRefused(world, sent, { code: 'use_attestation_challenge', rule: 'POP-5' });
  });

  it.each(all.filter(({ revision }) => revision <= 7))(
    'POP-7: -$revision refuses a PoP of another client (iss)',
    async ({ revision }) => {
      const world = createWorld({ revision });
      const attestation = await world.attestation({ payload: { iss: 'https://attester.example' } });
      const { challenge } = asked[revision];
      const payload = {
        iss: 'https://other.example',
        exp: world.seconds() + 60,
        challenge: undefined,
        [challenge]: await world.challenge(),
      };
      const sent = await world.sent({ attestation, pop: await world.pop({ payload }) });
      await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'POP-7' });
    },
  );

  it.each(all)('POP-9, POP-5: createPop for -$revision is what its verifier accepts', async ({ revision }) => {
    const world = createWorld({ revision });
    const pop = await createPop(
      {
        audience: world.verifier.audience,
        challenge: await world.challenge(),
        clientId: CLIENT_ID,
        issuedAt: world.seconds(),
        revision,
      },
      world.instance,
    );
    const attestation = await world.attestation({ payload: { iss: 'https://attester.example' } });
    await expect(world.verify(await world.sent({ attestation, pop }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it.each([0, 3, 13, 7.5, Number.NaN, '4.0', 'toString'])('VER-1: there is no revision %s', async (revision) => {
    await expectRefusal(() => createWorld({ revision: revision as never }), { code: 'invalid_argument' });
  });
});

describe('proofs without iat, in the revisions that allow it', () => {
  it.each(all)('POP-4: -$revision takes an exp in its place to -06 and no longer', async ({ revision }) => {
    const world = createWorld({ revision });
    const { challenge } = asked[revision];
    const payload = {
      iss: CLIENT_ID,
      exp: world.seconds() + 60,
      iat: undefined,
      challenge: undefined,
      [challenge]: await world.challenge(),
    };
    const attestation = await world.attestation({ payload: { iss: 'a' } });
    const sent = await world.sent({ attestation, pop: await world.pop({ payload }) });
    if (revision <= 6) await expect(world.verify(sent)).resolves.toMatchObject({ clientId: CLIENT_ID });
    else await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'POP-4' });
  });

  it('POP-4: are judged by their exp, and one far ahead is no way around the window', async () => {
    const world = createWorld({ revision: 5 });
    const send = async (exp: number) => {
      const payload = { iss: CLIENT_ID, exp, iat: undefined, challenge: undefined, nonce: await world.challenge() };
      const attestation = await world.attestation({ payload: { iss: 'a' } });
      return world.sent({ attestation, pop: await world.pop({ payload }) });
    };
    const now = world.seconds();
    for (const exp of [now + 60, now + 300, now + 330]) await world.verify(await send(exp));
    for (const exp of [now - 30, now + 331, now + 1e6]) {
      await expectRefused(world, await send(exp), { code: 'invalid_client_attestation', rule: 'POP-4' });
    }
  });

  it('VER-8: are remembered for as long as they would be accepted', async () => {
    const world = createWorld({ revision: 5, challenges: sealedChallenges({ ttl: 10_000 }) });
    const payload = {
      iss: CLIENT_ID,
      exp: world.seconds() + 300,
      iat: undefined,
      challenge: undefined,
      nonce: await world.challenge(),
    };
    const sent = await world.sent({
      attestation: await world.attestation({ payload: { iss: 'a' } }),
      pop: await world.pop({ payload }),
    });
    await world.verify(sent);
    for (let later = 0; later <= 330; later += 30) {
      await expect(world.verify(sent)).rejects.toMatchObject({ code: 'invalid_client_attestation' });
      world.clock.now += 30_000;
    }
  });
});

describe('combined mode by revision', () => {
  it.each(all.filter(({ revision }) => revision <= 8))('DPOP-7: -$revision does not have it', async ({ revision }) => {
    const world = createWorld({ revision });
    const dpop = await world.dpop({ payload: { nonce: await world.challenge() } });
    await expectRefused(world, await world.sentCombined({ dpop }), {
      code: 'invalid_client_attestation',
      rule: 'DPOP-7',
    });
  });

  it.each(all.filter(({ revision }) => revision === 9 || revision === 10))(
    'DPOP-4: -$revision wants the challenge as nonce, and asks for it with its own error',
    async ({ revision }) => {
      const world = createWorld({ revision });
      const good = await world.dpop({ payload: { nonce: await world.challenge() } });
      await expect(world.verify(await world.sentCombined({ dpop: good }))).resolves.toMatchObject({
        method: 'dpop_combined',
      });
      const bad = await world.dpop({ payload: { nonce: 'wrong' } });
      await expectRefused(world, await world.sentCombined({ dpop: bad }), {
        code: 'use_attestation_challenge',
        rule: 'POP-5',
      });
    },
  );

  it.each(all.filter(({ revision }) => revision >= 11))(
    'DPOP-4: -$revision wants a DPoP nonce',
    async ({ revision }) => {
      const world = createWorld({ revision });
      await expect(world.verify(await world.sentCombined())).resolves.toMatchObject({ method: 'dpop_combined' });
      const old = await world.dpop({ payload: { nonce: await world.challenge() } });
      await expectRefused(world, await world.sentCombined({ dpop: old }), { code: 'use_dpop_nonce', rule: 'DPOP-4' });
    },
  );

  it('DPOP-7: a policy that leaves the revision no method at all is refused when it is made', async () => {
    await expectRefusal(() => createWorld({ revision: 8, policy: { popMethods: ['dpop_combined'] } }), {
      code: 'invalid_argument',
    });
  });
});

describe('concatenated form by revision', () => {
  it.each(all)('CAT-1: -$revision has it to -07 and no longer', async ({ revision }) => {
    const world = createWorld({ revision });
    const { attestation, pop } = await pair(world, revision);
    const verified = world.verifier.verifyConcatenated(`${attestation}~${pop}`);
    if (revision <= 7) await expect(verified).resolves.toMatchObject({ clientId: CLIENT_ID });
    else await expect(verified).rejects.toMatchObject({ rule: 'CAT-1' });
  });
});
