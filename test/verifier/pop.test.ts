import { describe, expect, it } from 'vitest';
import { randomId } from '../../src/platform/crypto.ts';
import { sealedChallenges } from '../../src/verifier/index.ts';
import { expectRowRefused, type Row } from '../support/rows.ts';
import { newSigner } from '../support/tokens.ts';
import { AUDIENCE, CLIENT_ID, createWorld, expectRefused, type World } from '../support/world.ts';

const claims =
  (changes: (w: World) => object): Row['pop'] =>
  (w) => ({ payload: changes(w) as never });

describe('form', () => {
  it.each(
    [undefined, '', 'JWT', 'dpop+jwt', 'oauth-client-attestation+jwt', 'OAUTH-CLIENT-ATTESTATION-POP+JWT'].map(
      (typ) => ({ typ }),
    ),
  )('POP-1: typ $typ is refused', ({ typ }) =>
    expectRowRefused({ name: '', rule: 'POP-1', pop: () => ({ header: { typ } as never }) }),
  );

  const audiences: { name: string; aud: unknown }[] = [
    { name: 'missing', aud: undefined },
    { name: 'empty', aud: '' },
    { name: 'a list of the right value', aud: [AUDIENCE] },
    { name: 'a list of two', aud: [AUDIENCE, 'https://other.example'] },
    { name: 'an object', aud: { iss: AUDIENCE } },
    { name: 'a prefix', aud: AUDIENCE.slice(0, -1) },
    { name: 'an extension', aud: `${AUDIENCE}.attacker.example` },
    { name: 'another server', aud: 'https://other.example' },
    { name: 'the twin with a trailing slash', aud: `${AUDIENCE}/` },
    { name: 'an endpoint in place of the issuer', aud: `${AUDIENCE}/token` },
    { name: 'another case', aud: AUDIENCE.toUpperCase() },
    { name: 'with a port', aud: `${AUDIENCE}:443` },
  ];
  it.each(audiences)('POP-2: aud $name is refused', ({ aud }) =>
    expectRowRefused({ name: '', rule: 'POP-2', pop: claims(() => ({ aud })) }),
  );
  it('POP-2: a server whose identifier ends with a slash takes that and not its twin', async () => {
    const world = createWorld({ audience: `${AUDIENCE}/` });
    await expect(world.verify(await world.sent())).resolves.toMatchObject({ clientId: CLIENT_ID });
    const pop = await world.pop({ payload: { aud: AUDIENCE } });
    await expectRefused(world, await world.sent({ pop }), { code: 'invalid_client_attestation', rule: 'POP-2' });
  });

  it.each([{ jti: undefined }, { jti: '' }, { jti: 7 }, { jti: ['a'] }, { jti: null }, { jti: 'j'.repeat(513) }])(
    'POP-3: jti $jti is refused',
    ({ jti }) => expectRowRefused({ name: '', rule: 'POP-3', pop: claims(() => ({ jti })) }),
  );

  it('POP-4: a missing iat is refused', () =>
    expectRowRefused({ name: '', rule: 'POP-4', pop: claims(() => ({ iat: undefined })) }));
  it.each([1.5, -1, '1', null, 1e300].map((iat) => ({ iat })))('POP-4: iat $iat is refused', ({ iat }) =>
    expectRowRefused({ name: '', rule: 'POP-4', pop: claims(() => ({ iat })) }),
  );
  it.each([5, null, ['c'], { c: 1 }].map((challenge) => ({ challenge })))(
    'POP-5: challenge $challenge is refused',
    ({ challenge }) => expectRowRefused({ name: '', rule: 'POP-5', pop: claims(() => ({ challenge })) }),
  );
});

describe('time', () => {
  const outside: Row[] = [
    { name: 'stale', rule: 'POP-4', pop: claims((w) => ({ iat: w.seconds() - 331 })) },
    { name: 'in the future', rule: 'POP-4', pop: claims((w) => ({ iat: w.seconds() + 31 })) },
    { name: 'zero', rule: 'POP-4', pop: claims(() => ({ iat: 0 })) },
    { name: 'fresh, but its own exp has passed', rule: 'POP-4', pop: claims((w) => ({ exp: w.seconds() - 30 })) },
    { name: 'fresh, but not valid yet by its nbf', rule: 'POP-4', pop: claims((w) => ({ nbf: w.seconds() + 31 })) },
  ];
  it.each(outside)('POP-4: iat $name is refused', (row) => expectRowRefused(row));

  it.each([-330, -300, 0, 30])('POP-4: iat %i seconds from now is accepted', async (offset) => {
    const world = createWorld();
    const pop = await world.pop({ payload: { iat: world.seconds() + offset } });
    await expect(world.verify(await world.sent({ pop }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it('POP-4, VER-7: a stale iat is reported before a wrong challenge', () =>
    expectRowRefused({
      name: '',
      rule: 'POP-4',
      pop: claims((w) => ({ iat: w.seconds() - 1000, challenge: 'wrong' })),
    }));
});

describe('possession', () => {
  const stranger = newSigner();
  const rows: Row[] = [
    { name: 'a PoP of another key', rule: 'POP-6', pop: () => ({ signer: stranger }) },
    { name: 'a PoP of the attester', rule: 'POP-6', pop: (w) => ({ signer: w.attester }) },
    {
      name: 'a captured attestation with the PoP of an attacker who brings its key along',
      rule: 'POP-6',
      pop: () => ({ header: { jwk: stranger.publicJwk as never }, signer: stranger }),
    },
    {
      name: 'a captured PoP with the attestation of another instance',
      rule: 'POP-6',
      attestation: () => ({ payload: { cnf: { jwk: stranger.publicJwk as never } } }),
    },
    {
      name: 'the attestation in place of the PoP',
      rule: 'POP-1',
      sent: (honest) => ({ pop: honest.attestation }),
    },
  ];
  it.each(rows)('POP-6: $name is refused', (row) => expectRowRefused(row));
});

describe('challenge', () => {
  const code = 'use_attestation_challenge';
  const rows: Row[] = [
    { name: 'missing', code, rule: 'POP-5', pop: claims(() => ({ challenge: undefined })) },
    { name: 'empty', code, rule: 'POP-5', pop: claims(() => ({ challenge: '' })) },
    { name: 'garbage', code, rule: 'POP-5', pop: claims(() => ({ challenge: 'garbage' })) },
    { name: 'very long', code, rule: 'POP-5', pop: claims(() => ({ challenge: 'c'.repeat(4000) })) },
    { name: 'of another purpose', code, rule: 'POP-5', pop: claims(() => ({ challenge: undefined })) },
  ];
  const worlds = { sealed: () => ({ challenges: sealedChallenges() }), stored: () => ({}) };
  for (const [kind, world] of Object.entries(worlds)) {
    it.each(rows)(`ERR-1, POP-5, CHA-5: $name is refused with a fresh one (${kind})`, (row) =>
      expectRowRefused({ ...row, world }),
    );
  }

  it('ERR-1, POP-5: the refusal carries a challenge that the next PoP is accepted with', async () => {
    const world = createWorld();
    const pop = await world.pop({ payload: { challenge: 'wrong' } });
    const error = await expectRefused(world, await world.sent({ pop }), { code, rule: 'POP-5' });
    const challenge = world.verifier.respond(error).headers.get('OAuth-Client-Attestation-Challenge');
    const next = await world.sent({ pop: await world.pop({ payload: { challenge: String(challenge) } }) });
    await expect(world.verify(next)).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it.each(['another server', 'the attester'])(
    'POP-5: a challenge of %s is refused, also under the same key',
    async (who) => {
      const challenges = sealedChallenges({ keys: ['one key that both servers were given, 32+'] });
      const other = createWorld({ challenges, audience: who });
      const world = createWorld({ challenges });
      const pop = await world.pop({ payload: { challenge: await other.challenge() } });
      await expectRefused(world, await world.sent({ pop }), { code, rule: 'POP-5' });
    },
  );

  it('POP-5: a DPoP nonce is no challenge', async () => {
    const world = createWorld();
    const pop = await world.pop({ payload: { challenge: await world.nonce() } });
    await expectRefused(world, await world.sent({ pop }), { code, rule: 'POP-5' });
  });

  it('POP-5: a policy of `optional` accepts none, and still refuses a wrong one', async () => {
    const world = createWorld({ policy: { challenge: 'optional' } });
    const without = await world.pop({ payload: { challenge: undefined } });
    await expect(world.verify(await world.sent({ pop: without }))).resolves.toMatchObject({ clientId: CLIENT_ID });
    const wrong = await world.pop({ payload: { challenge: 'wrong' } });
    await expectRefused(world, await world.sent({ pop: wrong }), { code, rule: 'POP-5' });
  });

  it('CHA-5: a session may expect one value and no other', async () => {
    const world = createWorld();
    const request = async (challenge: string | undefined) => {
      const sent = await world.sent({ pop: await world.pop({ payload: { challenge } }) });
      const headers = [
        ['OAuth-Client-Attestation', String(sent.attestation)],
        ['OAuth-Client-Attestation-PoP', String(sent.pop)],
      ] as const;
      return world.verifier.verify({ headers, challenge: 'of this session' });
    };
    await expect(request('of this session')).resolves.toMatchObject({ clientId: CLIENT_ID });
    for (const wrong of [undefined, '', 'of that session', await world.challenge()]) {
      await expect(request(wrong)).rejects.toMatchObject({ code, challenge: 'of this session' });
    }
  });
});

describe('replay', () => {
  it('VER-8, POP-3, IMPL-4: the same PoP is accepted once', async () => {
    const world = createWorld({ challenges: sealedChallenges() });
    const sent = await world.sent();
    await world.verify(sent);
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'VER-8' });
  });

  it('VER-8: a new PoP with an old jti is refused, also with another iat', async () => {
    const world = createWorld({ challenges: sealedChallenges() });
    await world.verify(await world.sent({ pop: await world.pop({ payload: { jti: 'used' } }) }));
    const again = await world.pop({ payload: { jti: 'used', iat: world.seconds() - 120 } });
    await expectRefused(world, await world.sent({ pop: again }), { code: 'invalid_client_attestation', rule: 'VER-8' });
  });

  it('VER-8: the same jti of two instances does not collide', async () => {
    const attester = newSigner();
    const challenges = sealedChallenges();
    const one = createWorld({ attester, challenges });
    const two = createWorld({ attester, challenges });
    for (const world of [one, two]) {
      const sent = await world.sent({ pop: await world.pop({ payload: { jti: 'the same' } }) });
      await expect(one.verify(sent)).resolves.toMatchObject({ thumbprint: world.instance.thumbprint });
    }
  });

  it('VER-8, VER-7: of 50 concurrent uses of one PoP exactly one wins', async () => {
    for (const challenges of [sealedChallenges(), undefined]) {
      const world = createWorld(challenges ? { challenges } : {});
      const sent = await world.sent();
      const results = await Promise.allSettled(Array.from({ length: 50 }, () => world.verify(sent)));
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    }
  });

  it('VER-8, CHA-5: of 50 concurrent PoPs with one stored challenge exactly one wins', async () => {
    const world = createWorld();
    const challenge = await world.challenge();
    const sent = await Promise.all(
      Array.from({ length: 50 }, async () =>
        world.sent({ pop: await world.pop({ payload: { challenge, jti: randomId() } }) }),
      ),
    );
    const results = await Promise.allSettled(sent.map((one) => world.verify(one)));
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'use_attestation_challenge' });
    }
  });

  it('IMPL-4: an old PoP is refused by its iat without being looked up', async () => {
    const asked: string[] = [];
    const world = createWorld({ replay: { claim: ({ jti }) => asked.push(jti) > 0 } });
    const refusedOnes = [
      { iat: world.seconds() - 1000, jti: 'stale' },
      { aud: 'https://other.example', jti: 'elsewhere' },
      { challenge: 'wrong', jti: 'no challenge' },
    ];
    for (const payload of refusedOnes)
      await world.verify(await world.sent({ pop: await world.pop({ payload }) })).catch(() => undefined);
    await world.verify(await world.sent({ pop: await world.pop({ signer: newSigner() }) })).catch(() => undefined);
    await world.verify(await world.sent({ pop: await world.pop({ payload: { jti: 'good' } }) }));
    expect(asked).toEqual(['good']);
  });

  it('VER-8: when the replay store cannot answer, the request is refused', async () => {
    const { AttestedError } = await import('../../src/errors.ts');
    const replay = {
      claim: () =>
        Promise.reject(new AttestedError('temporarily_unavailable', 'the replay store is down', { rule: 'VER-8' })),
    };
    const world = createWorld({ replay });
    await expectRefused(world, await world.sent(), { code: 'temporarily_unavailable', rule: 'VER-8' });
  });
});
