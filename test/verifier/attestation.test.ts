import { describe, expect, it } from 'vitest';
import { createVerifier, jwks, type Policy } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { expectRowRefused, type Row } from '../support/rows.ts';
import { newSigner } from '../support/tokens.ts';
import { AUDIENCE, CLIENT_ID, createWorld, expectRefused, type World } from '../support/world.ts';

const DAY = 24 * 3600;
const claims =
  (changes: (w: World) => object): Row['attestation'] =>
  (w) => ({ payload: changes(w) as never });
const withCnf = (cnf: (w: World) => unknown): Row['attestation'] => claims((w) => ({ cnf: cnf(w) }));

describe('an honest request', () => {
  it('ATT-1, ATT-2, ATT-3, ATT-4, ATT-5: is accepted, and the result says who called and on what evidence', async () => {
    const world = createWorld();
    const client = await world.verify(await world.sent());
    const { kid: _, ...instanceKey } = world.instance.publicJwk;
    expect(client).toMatchObject({
      clientId: CLIENT_ID,
      thumbprint: world.instance.thumbprint,
      publicJwk: instanceKey,
      attester: world.attester.thumbprint,
      method: 'attestation_pop_jwt',
      keyStorage: 'unknown',
      keyEvidence: 'unknown',
      status: 'none',
      expiresAt: world.seconds() + 3600,
    });
    expect(client.claims.sub).toBe(CLIENT_ID);
  });

  it('ATT-6, POP-7: is accepted with claims and header parameters that nobody knows, in both tokens', async () => {
    const world = createWorld();
    const unknown = { iss: 'anybody', 'https://x.example/claim': { a: [1, null] }, nonce: 7, aud: ['somebody'] };
    const attestation = await world.attestation({ payload: unknown, header: { 'x-unknown': 1 } });
    const { aud: _, ...others } = unknown;
    const pop = await world.pop({ payload: others, header: { 'x-unknown': 1 } });
    await expect(world.verify(await world.sent({ attestation, pop }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it('IMPL-1: the same attestation serves again and again, each time with a fresh PoP', async () => {
    const world = createWorld();
    const attestation = await world.attestation();
    for (let i = 0; i < 5; i++) {
      await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ clientId: CLIENT_ID });
    }
  });

  it('ATT-6, VER-4: what one caller does to the claims or the key does not reach the next', async () => {
    const world = createWorld();
    const attestation = await world.attestation({ payload: { nested: { list: [1] } } });
    const first = await world.verify(await world.sent({ attestation }));
    const claims = first.claims as { sub: string; nested: { list: number[] } };
    expect(() => (claims.sub = 'admin')).toThrow(TypeError);
    expect(() => claims.nested.list.push(2)).toThrow(TypeError);
    expect(() => Object.assign(first.publicJwk, { x: 'other' })).toThrow(TypeError);
    const second = await world.verify(await world.sent({ attestation }));
    expect(second.claims).toEqual(first.claims);
    expect(second.claims).toMatchObject({ sub: CLIENT_ID, nested: { list: [1] } });
  });

  it.each(['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519', 'PS256', 'PS512', 'RS256', 'RS384'] as const)(
    'VER-2: is accepted with %s for attestation and PoP by default',
    async (alg) => {
      const world = createWorld({ attester: newSigner(alg), instance: newSigner(alg) });
      await expect(world.verify(await world.sent())).resolves.toMatchObject({ thumbprint: world.instance.thumbprint });
    },
  );
});

describe('form', () => {
  const typs = [
    undefined,
    '',
    'JWT',
    'oauth-client-attestation-pop+jwt',
    'OAuth-Client-Attestation+JWT',
    'application/oauth-client-attestation+jwt',
    ['oauth-client-attestation+jwt'],
  ].map((typ) => ({ typ }));
  it.each(typs)('ATT-1: typ $typ is refused', ({ typ }) =>
    expectRowRefused({ name: '', rule: 'ATT-1', attestation: () => ({ header: { typ } as never }) }),
  );

  it.each([{ sub: undefined }, { sub: '' }, { sub: 5 }, { sub: [CLIENT_ID] }, { sub: null }, { sub: { v: 1 } }])(
    'ATT-2: sub $sub is refused',
    ({ sub }) => expectRowRefused({ name: '', rule: 'ATT-2', attestation: claims(() => ({ sub })) }),
  );

  it('ATT-3: a missing exp is refused', () =>
    expectRowRefused({ name: '', rule: 'ATT-3', attestation: claims(() => ({ exp: undefined })) }));
  it('ATT-5: a missing iat is refused by default', () =>
    expectRowRefused({ name: '', rule: 'ATT-5', attestation: claims(() => ({ iat: undefined })) }));

  const dates = [1.5, -1, '1790000000', null, true, [], 1e18, 253402300800].flatMap((value) =>
    ['exp', 'iat', 'nbf'].map((claim) => ({ claim, value })),
  );
  it.each(dates)('ATT-8: $claim = $value is refused', ({ claim, value }) =>
    expectRowRefused({ name: '', rule: 'ATT-8', attestation: claims(() => ({ [claim]: value })) }),
  );
  it('ATT-8: an exp too large for any number is refused', () =>
    expectRowRefused({
      name: '',
      rule: 'ATT-8',
      attestation: (w) => ({ rawPayload: `{"sub":"c","iat":${w.seconds()},"exp":1e999,"cnf":{}}` }),
    }));

  const cnfs: { name: string; cnf: (w: World) => unknown }[] = [
    { name: 'no cnf', cnf: () => undefined },
    { name: 'a cnf that is null', cnf: () => null },
    { name: 'a cnf that is a list', cnf: (w) => [{ jwk: w.instance.publicJwk }] },
    { name: 'a cnf that is a string', cnf: (w) => w.instance.thumbprint },
    { name: 'a cnf that is empty', cnf: () => ({}) },
    { name: 'only jkt', cnf: (w) => ({ jkt: w.instance.thumbprint }) },
    { name: 'only kid', cnf: (w) => ({ kid: w.instance.thumbprint }) },
    { name: 'only jku', cnf: () => ({ jku: 'https://attacker.example/jwks.json' }) },
    { name: 'only jwe', cnf: () => ({ jwe: 'eyJh.a.b.c.d' }) },
    { name: 'only x5t#S256', cnf: (w) => ({ 'x5t#S256': w.instance.thumbprint }) },
  ];
  it.each(cnfs)('ATT-4: with $name it is refused', ({ cnf }) =>
    expectRowRefused({ name: '', rule: 'ATT-4', attestation: withCnf(cnf) }),
  );
});

describe('time', () => {
  const tooOld: Row[] = [
    { name: 'expired', rule: 'ATT-3', attestation: claims((w) => ({ exp: w.seconds() - 31 })) },
    {
      name: 'expired exactly by the tolerance',
      rule: 'ATT-3',
      attestation: claims((w) => ({ exp: w.seconds() - 30 })),
    },
    {
      name: 'issued longer ago than the maximum age',
      rule: 'VER-5',
      attestation: claims((w) => ({ iat: w.seconds() - DAY - 31 })),
    },
    {
      name: 'issued longer ago than a maximum age of its own policy',
      rule: 'VER-5',
      world: () => ({ policy: { maxAge: 60, clockTolerance: 0 } }),
      attestation: claims((w) => ({ iat: w.seconds() - 61 })),
    },
  ];
  it.each(tooOld)('ERR-2, VER-5: $name asks for a fresh attestation', (row) =>
    expectRowRefused({ ...row, code: 'use_fresh_attestation' }),
  );

  const notAcceptable: Row[] = [
    { name: 'not yet valid', rule: 'ATT-8', attestation: claims((w) => ({ nbf: w.seconds() + 31 })) },
    { name: 'issued in the future', rule: 'VER-5', attestation: claims((w) => ({ iat: w.seconds() + 31 })) },
    {
      name: 'ending before it was issued',
      rule: 'ATT-8',
      attestation: claims((w) => ({ iat: w.seconds() + 20, exp: w.seconds() + 10 })),
    },
    {
      name: 'valid for longer than the policy allows',
      rule: 'VER-5',
      attestation: claims((w) => ({ exp: w.seconds() + 7 * DAY })),
    },
  ];
  it.each(notAcceptable)('ATT-8, VER-5: $name is refused', (row) => expectRowRefused(row));

  const tolerated: { name: string; payload: (now: number) => object; policy?: Policy }[] = [
    { name: 'exp 29 seconds ago', payload: (now) => ({ exp: now - 29 }) },
    { name: 'nbf in 30 seconds', payload: (now) => ({ nbf: now + 30 }) },
    { name: 'iat in 30 seconds', payload: (now) => ({ iat: now + 30 }) },
    { name: 'the greatest age', payload: (now) => ({ iat: now - DAY }) },
    { name: 'the greatest lifetime', payload: (now) => ({ iat: now, exp: now + 7 * DAY }) },
    {
      name: 'a clock tolerance of an hour',
      payload: (now) => ({ iat: now - 7200, exp: now - 3599 }),
      policy: { clockTolerance: 3600 },
    },
  ];
  it.each(tolerated)('ATT-3, VER-5: $name is within the tolerance', async ({ payload, policy = {} }) => {
    const world = createWorld({ policy });
    const attestation = await world.attestation({ payload: payload(world.seconds()) as never });
    await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it('ATT-3, VER-5: an attestation that was accepted before is refused once it has expired or is too old', async () => {
    for (const [later, rule] of [
      [3600 + 30, 'ATT-3'],
      [DAY + 31, 'VER-5'],
    ] as const) {
      const world = createWorld();
      const exp = rule === 'VER-5' ? { exp: world.seconds() + 3 * DAY } : {};
      const attestation = await world.attestation({ payload: exp });
      await world.verify(await world.sent({ attestation }));
      world.clock.now += later * 1000;
      await expectRefused(world, await world.sent({ attestation }), { code: 'use_fresh_attestation', rule });
    }
  });
});

describe('trust', () => {
  const stranger = newSigner();
  const rows: Row[] = [
    { name: 'an unknown attester', rule: 'VER-3', attestation: () => ({ header: { kid: 'x' }, signer: stranger }) },
    { name: 'the right kid and a wrong key', rule: 'VER-3', attestation: () => ({ signer: stranger }) },
    { name: 'the instance itself as attester', rule: 'VER-3', attestation: (w) => ({ signer: w.instance }) },
    {
      name: 'the signature of another attestation of the same attester',
      rule: 'VER-3',
      sent: async (honest, w) => {
        const other = await w.attestation({ payload: { sub: 'https://other.example' } });
        const [header, payload] = String(honest.attestation).split('.');
        return { attestation: `${header}.${payload}.${other.split('.')[2]}` };
      },
    },
  ];
  it.each(rows)('VER-3: $name is refused', (row) => expectRowRefused(row));

  it('VER-3: an attester that is not entitled to the client is refused, and accepted for its own', async () => {
    const attester = newSigner();
    const trust = jwks({ keys: [attester.publicJwk], clients: ['https://mine.example'] });
    const world = createWorld({ attester, trust });
    await expectRefused(world, await world.sent(), { code: 'invalid_client_attestation', rule: 'VER-3' });
    const attestation = await world.attestation({ payload: { sub: 'https://mine.example' } });
    const sent = await world.sent({ attestation, clientId: 'https://mine.example' });
    await expect(world.verify(sent)).resolves.toMatchObject({ clientId: 'https://mine.example' });
  });

  it('VER-3: an empty list of clients entitles to nothing', async () => {
    const attester = newSigner();
    const world = createWorld({ attester, trust: jwks({ keys: [attester.publicJwk], clients: [] }) });
    await expectRefused(world, await world.sent(), { code: 'invalid_client_attestation', rule: 'VER-3' });
  });

  it.each([[[]], [undefined]])('VER-3: a verifier that trusts nobody is not made (%o)', async (trust) => {
    await expectRefusal(() => createVerifier({ role: 'as', audience: AUDIENCE, trust: trust as never }), {
      code: 'invalid_argument',
    });
  });
});

describe('what the policy requires of the attestation', () => {
  type Case = { name: string; require: NonNullable<Policy['require']>; good: object; bad: object[] };
  const cases: Case[] = [
    {
      name: 'hardware storage',
      require: { keyStorage: 'hardware' },
      good: { key_storage: ['hardware'] },
      bad: [
        {},
        { key_storage: ['keychain'] },
        { key_storage: ['hardware', 'software'] },
        { key_storage: { hardware: 1 } },
      ],
    },
    {
      name: 'at least the keychain',
      require: { keyStorage: 'keychain' },
      good: { key_storage: ['hardware'] },
      bad: [{ key_storage: ['software'] }, { key_storage: 'software' }, { key_storage: ['HARDWARE'] }],
    },
    {
      name: 'evidence of a TPM',
      require: { keyEvidence: 'tpm-certified' },
      good: { key_evidence: 'tpm-certified' },
      bad: [{}, { key_evidence: 'self-asserted' }, { key_evidence: ['tpm-certified'] }],
    },
    {
      name: 'any statement on evidence',
      require: { keyEvidence: 'self-asserted' },
      good: { key_evidence: 'tpm-certified' },
      bad: [{}, { key_evidence: 'trust me' }],
    },
    {
      name: 'claims of its own',
      require: { claims: { env: 'production', reviewed: true } },
      good: { env: 'production', reviewed: 'yes' },
      bad: [
        { env: 'production' },
        { env: 'staging', reviewed: true },
        { env: ['production'], reviewed: true },
        { env: 'production', reviewed: false },
      ],
    },
    { name: 'a revocable attestation', require: { status: true }, good: {}, bad: [{}] },
  ];
  it.each(cases)('VER-5: $name', async ({ require, good, bad }) => {
    const world = createWorld({ policy: { require } });
    for (const payload of bad) {
      const attestation = await world.attestation({ payload: payload as never });
      await expectRefused(world, await world.sent({ attestation }), {
        code: 'invalid_client_attestation',
        rule: 'VER-5',
      });
    }
    if (require.status) return; // the good case needs a status list: status.test.ts
    const attestation = await world.attestation({ payload: good as never });
    await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it('VER-5: a required claim is not met by what every object inherits', async () => {
    const world = createWorld({ policy: { require: { claims: { toString: true } } } });
    await expectRefused(world, await world.sent(), { code: 'invalid_client_attestation', rule: 'VER-5' });
  });

  it.each([
    { maxAge: -1 },
    { maxPopAge: Number.NaN },
    { clockTolerance: -5 },
    { popMethods: [] },
    { popMethods: ['none' as const] },
    // each of these would be a demand that demands nothing: what is not understood must not count as nothing
    { popMethods: ['attestation_pop_jwt', 'dpop'] },
    { challenge: 'require' },
    { challenge: false },
    { require: { keyStorage: 'tpm' } },
    { require: { keyStorage: 'Hardware' } },
    { require: { keyEvidence: 'tpm' } },
    { require: { keystorage: 'hardware' } },
    { requires: { keyStorage: 'hardware' } },
    { algorithms: ['ES256', 'none'] },
    { algorithms: [] },
    { require: { claims: ['eat_profile'] } },
    { maxPopAge: '300' }, // as it comes from the environment: '300' + 30 is 30030
  ])('META-3, VER-5: a policy that makes no sense is refused when it is made: %o', async (policy) => {
    await expectRefusal(() => createWorld({ policy: policy as Policy }), { code: 'invalid_argument' });
  });
});

describe('revocation claims without a list', () => {
  it.each([
    { status: null },
    { status: 'revoked' },
    { status: {} },
    { status: { status_list: { uri: 'https://a.example/1' } } },
    { status: { status_list: { uri: 5, idx: 1 } } },
    { status: { status_list: { uri: 'https://a.example/1', idx: -1 } } },
    { status: { status_list: { uri: 'https://a.example/1', idx: 1.5 } } },
    { status: { status_list: { uri: 'https://a.example/1', idx: 2 ** 40 } } },
  ])('ATT-8: a malformed status claim is refused: $status', ({ status }) =>
    expectRowRefused({ name: '', rule: 'Token Status List §6.2', attestation: claims(() => ({ status })) }),
  );
});
