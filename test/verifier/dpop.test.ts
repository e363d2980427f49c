import { describe, expect, it } from 'vitest';
import { sealedChallenges } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { expectRowRefused, type Row } from '../support/rows.ts';
import { newSigner } from '../support/tokens.ts';
import { athOf, CLIENT_ID, createWorld, expectRefused, requestOf, TOKEN_URL } from '../support/world.ts';

const code = 'invalid_dpop_proof';
const claims =
  (payload: object): Row['dpop'] =>
  () => ({ payload: payload as never });
const stranger = newSigner();
const refuse = (row: Row) => expectRowRefused(row, 'combined');

describe('combined mode', () => {
  it('DPOP-1, DPOP-2, DPOP-4: an attestation with a DPoP proof of the same key is accepted', async () => {
    const world = createWorld();
    await expect(world.verify(await world.sentCombined())).resolves.toMatchObject({
      clientId: CLIENT_ID,
      method: 'dpop_combined',
      thumbprint: world.instance.thumbprint,
    });
  });

  const otherKeys: Row[] = [
    {
      name: 'another key',
      rule: 'DPOP-3',
      dpop: () => ({ header: { jwk: stranger.publicJwk as never }, signer: stranger }),
    },
    {
      name: 'another key whose x is the same text',
      rule: 'DPOP-3',
      dpop: (w) => ({ header: { jwk: { ...stranger.publicJwk, x: w.instance.publicJwk.x } as never } }),
    },
    {
      name: 'an attestation of another instance',
      rule: 'DPOP-3',
      attestation: () => ({ payload: { cnf: { jwk: stranger.publicJwk as never } } }),
    },
  ];
  it.each(otherKeys)('DPOP-3: $name is refused', refuse);

  it('DPOP-8: the same key is the same whatever else the JWK says, and in whatever order', async () => {
    const world = createWorld();
    const { kty, crv, x, y } = world.instance.publicJwk;
    const dpop = await world.dpop({ header: { jwk: { y, use: 'sig', x, alg: 'ES256', kid: 'k', crv, kty } as never } });
    await expect(world.verify(await world.sentCombined({ dpop }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  const proofs: Row[] = [
    { name: 'typ JWT', code, rule: 'DPOP-2', dpop: () => ({ header: { typ: 'JWT' } }) },
    {
      name: 'typ of a PoP',
      code,
      rule: 'DPOP-2',
      dpop: () => ({ header: { typ: 'oauth-client-attestation-pop+jwt' } }),
    },
    { name: 'alg none', code, rule: 'DPOP-2', dpop: () => ({ header: { alg: 'none' } }) },
    { name: 'a MAC', code, rule: 'DPOP-2', dpop: () => ({ header: { alg: 'HS256' } }) },
    { name: 'an alg that does not fit the key', rule: 'DPOP-2', dpop: () => ({ header: { alg: 'PS256' } }) },
    { name: 'no jwk', code, rule: 'DPOP-2', dpop: () => ({ header: { jwk: undefined } }) },
    {
      name: 'a private key as jwk',
      code,
      rule: 'DPOP-2',
      dpop: (w) => ({ header: { jwk: { ...w.instance.publicJwk, d: 'AAAAAAAAAAAAAAAAAAAA' } as never } }),
    },
    { name: 'the signature of a stranger', code, rule: 'DPOP-2', dpop: () => ({ signer: stranger }) },
    { name: 'no htm', code, rule: 'DPOP-2', dpop: claims({ htm: undefined }) },
    { name: 'another htm', code, rule: 'DPOP-2', dpop: claims({ htm: 'GET' }) },
    { name: 'htm in lower case', code, rule: 'DPOP-2', dpop: claims({ htm: 'post' }) },
    { name: 'no htu', code, rule: 'DPOP-2', dpop: claims({ htu: undefined }) },
    { name: 'another path', code, rule: 'DPOP-2', dpop: claims({ htu: 'https://as.example/par' }) },
    { name: 'another host', code, rule: 'DPOP-2', dpop: claims({ htu: 'https://as.example.org/token' }) },
    { name: 'another scheme', code, rule: 'DPOP-2', dpop: claims({ htu: 'http://as.example/token' }) },
    { name: 'another port', code, rule: 'DPOP-2', dpop: claims({ htu: 'https://as.example:8443/token' }) },
    { name: 'a relative htu', code, rule: 'DPOP-2', dpop: claims({ htu: '/token' }) },
    { name: 'an htu that is a list', code, rule: 'DPOP-2', dpop: claims({ htu: [TOKEN_URL] }) },
    { name: 'no jti', code, rule: 'DPOP-2', dpop: claims({ jti: undefined }) },
    { name: 'an empty jti', code, rule: 'DPOP-2', dpop: claims({ jti: '' }) },
    { name: 'a jti that would fill the replay memory', code, rule: 'DPOP-2', dpop: claims({ jti: 'j'.repeat(513) }) },
    { name: 'no iat', code, rule: 'DPOP-2', dpop: claims({ iat: undefined }) },
    { name: 'a stale iat', code, rule: 'DPOP-2', dpop: (w) => ({ payload: { iat: w.seconds() - 331 } }) },
    { name: 'an exp that has passed', code, rule: 'DPOP-2', dpop: (w) => ({ payload: { exp: w.seconds() - 31 } }) },
    { name: 'an nbf that has not come', code, rule: 'DPOP-2', dpop: (w) => ({ payload: { nbf: w.seconds() + 31 } }) },
    { name: 'an exp that is no date', code, rule: 'DPOP-2', dpop: () => ({ payload: { exp: 'soon' } }) },
    { name: 'an iat in the future', code, rule: 'DPOP-2', dpop: (w) => ({ payload: { iat: w.seconds() + 31 } }) },
    { name: 'a nonce that is a number', code, rule: 'DPOP-2', dpop: claims({ nonce: 1 }) },
    { name: 'a proof over the limit', rule: 'IMPL-3', dpop: claims({ fill: 'x'.repeat(8192) }) },
    { name: 'two DPoP fields', code, rule: 'DPOP-1', sent: ({ dpop }) => ({ dpop: [`${dpop}`, `${dpop}`] }) },
    { name: 'two comma-joined proofs', code, rule: 'DPOP-1', sent: ({ dpop }) => ({ dpop: `${dpop}, ${dpop}` }) },
    { name: 'an empty DPoP field', code, rule: 'DPOP-1', sent: () => ({ dpop: '' }) },
  ];
  it.each(proofs)('DPOP-2: $name is refused', refuse);

  it.each([
    'https://as.example/token?x=1',
    'https://as.example/token#part',
    'https://AS.example:443/token',
    'https://as.example/./a/../token',
  ])('DPOP-2: htu %s is the same address, after normalisation', async (htu) => {
    const world = createWorld();
    const dpop = await world.dpop({ payload: { htu } });
    await expect(world.verify(await world.sentCombined({ dpop }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  const nonces: Row[] = [
    { name: 'missing', rule: 'DPOP-4', dpop: claims({ nonce: undefined }) },
    { name: 'garbage', rule: 'DPOP-4', dpop: claims({ nonce: 'garbage' }) },
    { name: 'in the challenge claim only', rule: 'DPOP-4', dpop: claims({ nonce: undefined, challenge: 'c' }) },
  ];
  it.each(nonces)('DPOP-4: a nonce that is $name asks for a fresh nonce, never for a challenge', (row) =>
    refuse({ ...row, code: 'use_dpop_nonce' }),
  );
  it('DPOP-4: the refusal carries a DPoP-Nonce that the next proof is accepted with, and no challenge', async () => {
    const world = createWorld();
    const sent = await world.sentCombined({ dpop: await world.dpop({ payload: { nonce: 'wrong' } }) });
    const error = await expectRefused(world, sent, { code: 'use_dpop_nonce', rule: 'DPOP-4' });
    const { headers } = world.verifier.respond(error);
    expect(headers.get('OAuth-Client-Attestation-Challenge')).toBeNull();
    const dpop = await world.dpop({ payload: { nonce: String(headers.get('DPoP-Nonce')) } });
    await expect(world.verify(await world.sentCombined({ dpop }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });
  it('DPOP-4: an attestation challenge is no nonce, and a stale nonce is refused', async () => {
    const world = createWorld({ challenges: sealedChallenges({ ttl: 60 }) });
    const challenge = await world.dpop({ payload: { nonce: await world.challenge() } });
    await expectRefused(world, await world.sentCombined({ dpop: challenge }), {
      code: 'use_dpop_nonce',
      rule: 'DPOP-4',
    });
    const nonce = await world.nonce();
    world.clock.now += 61_000;
    const dpop = await world.dpop({ payload: { nonce } });
    await expectRefused(world, await world.sentCombined({ dpop }), { code: 'use_dpop_nonce', rule: 'DPOP-4' });
  });

  it('VER-8, DPOP-2: the same proof is accepted once', async () => {
    const world = createWorld({ challenges: sealedChallenges() });
    const sent = await world.sentCombined();
    await world.verify(sent);
    await expectRefused(world, sent, { code, rule: 'VER-8' });
  });

  it('VER-8: the same jti of two instances does not collide, nor does it with a PoP', async () => {
    const attester = newSigner();
    const challenges = sealedChallenges();
    const one = createWorld({ attester, challenges });
    const two = createWorld({ attester, challenges });
    for (const world of [one, two]) {
      const dpop = await world.dpop({ payload: { jti: 'the same' } });
      await expect(one.verify(await world.sentCombined({ dpop }))).resolves.toMatchObject({ method: 'dpop_combined' });
      const pop = await world.pop({ payload: { jti: 'the same' } });
      await expect(one.verify(await world.sent({ pop }))).resolves.toMatchObject({ method: 'attestation_pop_jwt' });
    }
  });

  it('VER-8: of 50 concurrent uses of one proof exactly one wins', async () => {
    for (const options of [{ challenges: sealedChallenges() }, {}]) {
      const world = createWorld(options);
      const sent = await world.sentCombined();
      const results = await Promise.allSettled(Array.from({ length: 50 }, () => world.verify(sent)));
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    }
  });

  const rs = () => ({ role: 'rs' as const });
  const accessTokens: Row[] = [
    { name: 'missing', code, rule: 'DPOP-2', world: rs, sent: () => ({ authorization: 'DPoP token-a' }) },
    {
      name: 'of another token',
      code,
      rule: 'DPOP-2',
      world: rs,
      dpop: claims({ ath: athOf('token-b') }),
      sent: () => ({ authorization: 'DPoP token-a' }),
    },
    {
      name: 'of a part of what stands after the scheme',
      code,
      rule: 'DPOP-2',
      world: rs,
      dpop: claims({ ath: athOf('token-b') }),
      sent: () => ({ authorization: 'DPoP token-a token-b' }),
    },
    {
      name: 'missing, with a tab after the scheme',
      code,
      rule: 'DPOP-2',
      world: rs,
      sent: () => ({ authorization: 'dpop\ttoken-a ' }),
    },
  ];
  it.each(accessTokens)('DPOP-2: at an RS, ath $name is refused', refuse);
  it('DPOP-2: at an RS, the right ath is accepted', async () => {
    const world = createWorld({ role: 'rs' });
    const dpop = await world.dpop({ payload: { ath: athOf('token-a') } });
    const sent = await world.sentCombined({ dpop, authorization: 'DPoP token-a' });
    await expect(world.verify(sent)).resolves.toMatchObject({ method: 'dpop_combined' });
  });

  it('DPOP-7: a server that does not offer it refuses a proof in place of the PoP', async () => {
    for (const options of [{ policy: { popMethods: ['attestation_pop_jwt'] as const } }, { revision: 8 as const }]) {
      const world = createWorld(options);
      const dpop = await world.dpop({ payload: { nonce: undefined } });
      await expectRefused(world, await world.sentCombined({ dpop }), {
        code: 'invalid_client_attestation',
        rule: 'DPOP-7',
      });
    }
  });
  it('DPOP-7, META-3: a server that offers nothing else refuses a PoP', async () => {
    const world = createWorld({ policy: { popMethods: ['dpop_combined'] } });
    const sent = await world.sent({ pop: await world.pop({ payload: { challenge: undefined } }) });
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'META-3' });
  });

  it('DPOP-5: a request with dpop_jkt is refused in combined mode, and goes with a PoP', async () => {
    const world = createWorld();
    const dpopJkt = world.instance.thumbprint;
    const combined = await world.sentCombined();
    const error = await expectRefusal(() => world.verifier.verify({ ...requestOf(combined), dpopJkt }), {
      code: 'invalid_request',
      rule: 'DPOP-5',
    });
    expect(world.verifier.respond(error).status).toBe(400);
    await expect(world.verify(combined), 'nothing was spent').resolves.toMatchObject({ method: 'dpop_combined' });
    const withPop = { ...requestOf(await world.sent({ dpop: await world.dpop() })), dpopJkt };
    await expect(world.verifier.verify(withPop)).resolves.toMatchObject({ method: 'attestation_pop_jwt' });
  });

  it('DPOP-2: a server that does not know its own URL says so to its operator, not to the client', async () => {
    const world = createWorld();
    const { headers } = requestOf(await world.sentCombined());
    const error = await expectRefusal(() => world.verifier.verify({ headers }), {
      code: 'invalid_argument',
      rule: 'DPOP-2',
    });
    const response = world.verifier.respond(error);
    expect(response.status).toBe(503);
    expect(await response.json()).toEqual({ error: 'temporarily_unavailable' });
  });
});

describe('a DPoP proof beside a PoP', () => {
  it('DPOP-1: the PoP decides, and the proof may be of another key', async () => {
    const world = createWorld();
    const dpop = await world.dpop({ header: { jwk: stranger.publicJwk as never }, signer: stranger });
    await expect(world.verify(await world.sent({ dpop }))).resolves.toMatchObject({ method: 'attestation_pop_jwt' });
  });

  it('DPOP-1: a good proof does not stand in for a bad PoP', async () => {
    const world = createWorld();
    const sent = await world.sent({ pop: await world.pop({ signer: stranger }), dpop: await world.dpop() });
    await expectRefused(world, sent, { code: 'invalid_client_attestation', rule: 'POP-6' });
  });

  it('DPOP-1: the proof is then judged by itself, with its own key', async () => {
    const world = createWorld();
    const dpop = await world.dpop({ header: { jwk: stranger.publicJwk as never }, signer: stranger });
    const request = { headers: { DPoP: dpop }, method: 'POST', url: TOKEN_URL };
    await expect(world.verifier.verifyDpop(request)).resolves.toBe(stranger.thumbprint);
    await expectRefusal(() => world.verifier.verifyDpop(request), { code: 'use_dpop_nonce', rule: 'DPOP-4' });
  });

  it('DPOP-1, DPOP-4: judged by itself, a nonce is spent only where the policy looks at nonces', async () => {
    const world = createWorld({ policy: { challenge: 'off' } });
    const dpop = await world.dpop({ payload: { nonce: 'of some other server' } });
    const request = { headers: { DPoP: dpop }, method: 'POST', url: TOKEN_URL };
    await expect(world.verifier.verifyDpop(request)).resolves.toBe(world.instance.thumbprint);
    await expectRefusal(() => world.verifier.verifyDpop(request), { code, rule: 'VER-8' });
  });

  it.each([
    { name: 'a wrong signature', changes: { signer: stranger } },
    { name: 'another method', changes: { payload: { htm: 'GET' } } },
    { name: 'a stale iat', changes: { payload: { iat: 1 } } },
    { name: 'an alg that does not fit its key', changes: { header: { alg: 'RS256' } } },
  ])('DPOP-1, DPOP-2: by itself it is refused for $name', async ({ changes }) => {
    const world = createWorld();
    const dpop = await world.dpop(changes);
    await expectRefusal(() => world.verifier.verifyDpop({ headers: { DPoP: dpop }, method: 'POST', url: TOKEN_URL }), {
      code,
      rule: 'DPOP-2',
    });
  });
});
