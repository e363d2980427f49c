import { decodeProtectedHeader, importJWK, jwtVerify } from 'jose';
import { describe, expect, it } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import {
  createAttestation,
  createDpopProof,
  createPop,
  joinAttestation,
  parseAttestation,
  parseDpopProof,
  parsePop,
  splitAttestation,
} from '../../src/index.ts';
import { sha256Base64url } from '../../src/platform/crypto.ts';
import { expectRefusal } from '../support/errors.ts';
import { privateMembers } from '../support/keys.ts';
import { decode, newSigner } from '../support/tokens.ts';

const attester = newSigner('ES256', 'attester-1');
const instance = newSigner();
const NOW = Math.floor(Date.now() / 1000);
const claims = { sub: 'client', exp: NOW + 600, cnf: { jwk: instance.publicJwk } };

describe('createAttestation', () => {
  it('ATT-1, ATT-2, ATT-3, ATT-4, ATT-5: writes what jose verifies and the draft asks', async () => {
    const token = await createAttestation({ ...claims, iat: NOW }, attester);
    const key = await importJWK(attester.publicJwk as never, 'ES256');
    const { payload, protectedHeader } = await jwtVerify(token, key, {
      typ: 'oauth-client-attestation+jwt',
      subject: 'client',
    });
    expect(protectedHeader).toEqual({ typ: 'oauth-client-attestation+jwt', alg: 'ES256', kid: 'attester-1' });
    expect(payload).toEqual({ sub: 'client', iat: NOW, exp: NOW + 600, cnf: { jwk: instance.publicJwk } });
  });

  it('ATT-5: always writes iat, from its clock when the caller gives none', async () => {
    const { payload } = decode(await createAttestation(claims, attester));
    expect(payload.iat).toBeGreaterThanOrEqual(NOW);
    expect(payload.iat).toBeLessThan(NOW + 60);
  });

  it('ATT-6: writes further claims as they are, but none twice', async () => {
    const token = await createAttestation({ ...claims, iat: NOW, env: { a: [1] }, nothing: undefined }, attester);
    expect(parseAttestation(token).payload).toEqual({
      sub: 'client',
      iat: NOW,
      exp: NOW + 600,
      cnf: { jwk: instance.publicJwk },
      env: { a: [1] },
    });
  });

  it('VER-4, ATT-4: writes the defining members of the key only, and refuses a private one', async () => {
    const token = await createAttestation(
      { ...claims, cnf: { jwk: { ...instance.publicJwk, kid: 'k', x: instance.publicJwk.x as string } } },
      attester,
    );
    expect(decode(token).payload.cnf).toEqual({ jwk: instance.publicJwk });
    for (const [member, value] of Object.entries(privateMembers())) {
      const cnf = { jwk: { ...instance.publicJwk, [member]: value } };
      const error = await expectRefusal(() => createAttestation({ ...claims, cnf }, attester), {
        code: 'invalid_argument',
        rule: 'ATT-4',
      });
      if (typeof value === 'string') expect(error.message).not.toContain(value);
    }
  });

  it.each([
    [{ sub: '' }, 'ATT-2'],
    [{ sub: undefined }, 'ATT-2'],
    [{ sub: 5 }, 'ATT-2'],
    [{ exp: undefined }, 'ATT-3'],
    [{ exp: 1.5 }, 'ATT-3'],
    [{ exp: '1' }, 'ATT-3'],
    [{ exp: Number.NaN }, 'ATT-3'],
    [{ iat: 1.5 }, 'ATT-5'],
    [{ iat: Number.POSITIVE_INFINITY }, 'ATT-5'],
    [{ cnf: undefined }, 'ATT-4'],
    [{ cnf: {} }, 'ATT-4'],
    [{ cnf: { jkt: 'x' } }, 'ATT-4'],
    [{ cnf: { jwk: 'x' } }, 'ATT-4'],
  ])('ATT-2, ATT-3, ATT-4, ATT-5: refuses %o', async (changes, rule) => {
    await expectRefusal(() => createAttestation({ ...claims, ...changes } as never, attester), {
      code: 'invalid_argument',
      rule,
    });
  });

  it('IMPL-5: names the key by kid, or by thumbprint, and takes x5c and jku into the header', async () => {
    const nameless = newSigner();
    expect(decodeProtectedHeader(await createAttestation(claims, nameless)).kid).toBe(nameless.thumbprint);
    const header = decodeProtectedHeader(
      await createAttestation(claims, attester, { kid: 'k', x5c: ['AAAA'], jku: 'https://a.example' }),
    );
    expect(header).toMatchObject({ kid: 'k', x5c: ['AAAA'], jku: 'https://a.example' });
  });
});

describe('createPop', () => {
  it('POP-1, POP-2, POP-3, POP-4, POP-5: writes what jose verifies and the draft asks, and nothing else', async () => {
    const token = await createPop(
      { audience: 'https://as.example', challenge: 'c', jti: 'j', issuedAt: NOW },
      instance,
    );
    const key = await importJWK(instance.publicJwk as never, 'ES256');
    const { payload, protectedHeader } = await jwtVerify(token, key, { typ: 'oauth-client-attestation-pop+jwt' });
    expect(protectedHeader).toEqual({ typ: 'oauth-client-attestation-pop+jwt', alg: 'ES256' });
    expect(payload).toEqual({ aud: 'https://as.example', jti: 'j', iat: NOW, challenge: 'c' });
  });

  it('POP-9: every PoP is another one, also for the same server in the same second', async () => {
    const tokens = await Promise.all(
      Array.from({ length: 100 }, () => createPop({ audience: 'a', issuedAt: NOW }, instance)),
    );
    expect(new Set(tokens.map((token) => parsePop(token).jti)).size).toBe(100);
    expect(parsePop(tokens[0] as string).challenge).toBeUndefined();
  });

  it.each<[string, string, Record<string, unknown>]>([
    ['POP-2', 'no audience', { audience: undefined }],
    ['POP-2', 'an empty audience', { audience: '' }],
    ['POP-2', 'two audiences', { audience: ['a', 'b'] }],
    ['POP-3', 'an empty jti', { jti: '' }],
    ['POP-3', 'a jti that is a number', { jti: 5 }],
    ['POP-4', 'a time that is no number', { issuedAt: Number.NaN }],
    ['POP-4', 'a time with a fraction', { issuedAt: NOW + 0.5 }],
    ['POP-5', 'a challenge that is a number', { challenge: 5 }],
  ])('%s: is not made with %s', async (rule, _, wrong) => {
    await expectRefusal(() => createPop({ audience: 'a', ...wrong } as never, instance), {
      code: 'invalid_argument',
      rule,
    });
  });

  it.each(['HS256', 'none', undefined])('POP-1: is not made by a signer of the algorithm %s', async (alg) => {
    await expectRefusal(() => createPop({ audience: 'a' }, { ...instance, alg: alg as string }), {
      code: 'invalid_argument',
      rule: 'POP-1',
    });
  });

  it('what callers without types get wrong is refused as an AttestedError, by a promise', async () => {
    const arrayBuffer = { ...instance, sign: async () => new ArrayBuffer(64) as never };
    for (const call of [
      () => createPop(undefined as never, instance),
      () => createPop({ audience: 'a' }, undefined as never),
      () => createPop({ audience: 'a' }, arrayBuffer),
      () => createDpopProof(undefined as never, instance),
      () => createAttestation(undefined as never, instance),
      () => createAttestation(claims, undefined as never),
      () => createAttestation(claims, arrayBuffer),
    ]) {
      await expectRefusal(() => call(), { code: 'invalid_argument' });
    }
    for (const text of [undefined, null, 5, {}]) {
      expect(() => splitAttestation(text as never)).toThrow(AttestedError);
    }
  });

  it('POP-7: a revision that needs the client_id says so', async () => {
    await expectRefusal(() => createPop({ audience: 'a', revision: 7 }, instance), { code: 'invalid_argument' });
    await expectRefusal(() => createPop({ audience: 'a', revision: 99 as never }, instance), {
      code: 'invalid_argument',
    });
    expect(
      decode(await createPop({ audience: 'a', revision: 4, clientId: 'c', issuedAt: NOW }, instance)).payload,
    ).toMatchObject({
      iss: 'c',
      exp: NOW + 60,
    });
  });
});

describe('createDpopProof', () => {
  it('DPOP-2: writes what jose verifies and RFC 9449 asks', async () => {
    const url = 'https://as.example/token?code=secret#part';
    const token = await createDpopProof(
      { method: 'POST', url, nonce: 'n', accessToken: 'token', issuedAt: NOW, jti: 'j' },
      instance,
    );
    const key = await importJWK(instance.publicJwk as never, 'ES256');
    const { payload, protectedHeader } = await jwtVerify(token, key, { typ: 'dpop+jwt' });
    expect(protectedHeader).toEqual({ typ: 'dpop+jwt', alg: 'ES256', jwk: instance.publicJwk });
    expect(payload).toEqual({
      htm: 'POST',
      htu: 'https://as.example/token',
      iat: NOW,
      jti: 'j',
      nonce: 'n',
      ath: sha256Base64url('token'),
    });
  });
  it('DPOP-2: leaves out what the request does not have', async () => {
    const { payload } = decode(await createDpopProof({ method: 'GET', url: 'https://rs.example/x' }, instance));
    expect(Object.keys(payload).sort()).toEqual(['htm', 'htu', 'iat', 'jti']);
  });
  it.each(['token', '', '/token', 'mailto:x@y.example', 'data:,x'])('DPOP-2: refuses the URL %s', async (url) => {
    await expectRefusal(() => createDpopProof({ method: 'POST', url }, instance), { code: 'invalid_argument' });
  });
  it('DPOP-2, DPOP-8: the header shows the public key only, also where the signer has a name for it', async () => {
    const named = newSigner('EdDSA', 'name');
    expect(
      parseDpopProof(await createDpopProof({ method: 'GET', url: 'https://rs.example' }, named)).header.jwk,
    ).not.toHaveProperty('kid');
  });
});

describe('concatenated form', () => {
  it('CAT-1, CAT-3: joins and splits without change', async () => {
    const attestation = await createAttestation(claims, attester);
    const pop = await createPop({ audience: 'a' }, instance);
    const text = joinAttestation(attestation, pop);
    expect(text).toBe(`${attestation}~${pop}`);
    expect(splitAttestation(text)).toEqual({ attestation, pop });
  });

  const jwt = 'a.b.c';
  it.each([
    '',
    '~',
    jwt,
    `${jwt}~`,
    `~${jwt}`,
    `${jwt}~${jwt}~`,
    `~${jwt}~${jwt}`,
    `${jwt}~~${jwt}`,
    `${jwt}~${jwt}~${jwt}`,
    `${jwt} ~${jwt}`,
    `${jwt}~a.b`,
    `a.b.c.d.e~${jwt}`,
    `a..c~${jwt}`,
    `${jwt}~${jwt}\n`,
    `${jwt}=~${jwt}`,
  ])('CAT-1: %j is refused', async (text) => {
    await expectRefusal(() => splitAttestation(text), { code: 'invalid_client_attestation', rule: 'CAT-1' });
  });
  it.each([
    ['', jwt],
    [jwt, ''],
    [`${jwt}~${jwt}`, jwt],
    [jwt, `${jwt}~`],
    ['text', jwt],
  ])('CAT-1: %j and %j are not joined', async (attestation, pop) => {
    await expectRefusal(() => joinAttestation(attestation, pop), { code: 'invalid_argument', rule: 'CAT-1' });
  });
  it('CAT-1: a text of a megabyte is refused at once', async () => {
    const startedAt = performance.now();
    for (const text of [
      '~'.repeat(1e6),
      'a'.repeat(1e6),
      `${'a.'.repeat(5e5)}~`,
      `${'a'.repeat(5e5)}.${'b'.repeat(5e5)}~`,
    ]) {
      await expectRefusal(() => splitAttestation(text), { code: 'invalid_client_attestation' });
    }
    expect(performance.now() - startedAt).toBeLessThan(1000);
  });
});
