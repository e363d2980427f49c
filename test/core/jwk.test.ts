import { calculateJwkThumbprint } from 'jose';
import { describe, expect, it } from 'vitest';
import { signatureAlgorithms } from '../../src/core/algorithms.ts';
import { PRIVATE_MEMBERS, readPublicJwk, sameKey, thumbprintInput } from '../../src/core/jwk.ts';
import { importPublicKey, sha256Base64url, thumbprintOf } from '../../src/platform/crypto.ts';
import { expectRefusal } from '../support/errors.ts';
import {
  add,
  base64urlOf,
  bytesOf,
  ED25519_P,
  ed25519Jwk,
  newRsaJwk,
  P256,
  privateMembers,
  rocaModulus,
  rsaJwk,
  smallOrderPoints,
  smallPoint,
} from '../support/keys.ts';
import { newSigner } from '../support/tokens.ts';
import rfc7638 from '../vectors/rfc7638.json' with { type: 'json' };

const signers = signatureAlgorithms.map((alg) => newSigner(alg));
const [es256] = signers as [(typeof signers)[number]];
const refuse = (jwk: unknown, code = 'invalid_client_attestation' as const) =>
  expectRefusal(() => readPublicJwk(jwk), { code, rule: 'VER-4' });

describe('reading', () => {
  it.each(signers.map(({ alg, publicJwk }) => ({ alg, publicJwk })))(
    'ATT-4: a key for $alg is reduced to what defines it',
    ({ publicJwk }) => {
      const read = readPublicJwk({
        ...publicJwk,
        kid: 'k',
        use: 'sig',
        key_ops: ['verify'],
        alg: 'x',
        x5t: 'y',
        ext: true,
      });
      expect(read).toEqual(publicJwk);
      expect(() => importPublicKey(read)).not.toThrow();
    },
  );

  const members = privateMembers();
  it('VER-4: the list of private and symmetric members is complete', () => {
    expect([...PRIVATE_MEMBERS].sort()).toEqual(['d', 'dp', 'dq', 'k', 'oth', 'p', 'priv', 'q', 'qi']);
    expect(Object.keys(members).sort()).toEqual([...PRIVATE_MEMBERS].sort());
  });
  it.each(Object.keys(members))(
    'VER-4: %s is refused in keys of every type, and stays out of the message',
    async (member) => {
      for (const { publicJwk } of signers) {
        for (const value of [members[member], '', null, false, 0]) {
          const error = await refuse({ ...publicJwk, [member]: value });
          if (typeof value === 'string' && value !== '') expect(`${error.message} ${error.stack}`).not.toContain(value);
          expect(error.cause).toBeUndefined();
        }
      }
    },
  );

  it.each([
    undefined,
    null,
    'jwk',
    1,
    [],
    [es256.publicJwk],
    {},
    { kty: 'oct' },
    { kty: 'EC' },
    { kty: 5 },
    { kty: 'ec' },
  ])('VER-4: %o is not a key', async (value) => {
    await refuse(value);
  });
  it('VER-4: the caller chooses code and rule', async () => {
    await expectRefusal(() => readPublicJwk({}, 'invalid_argument', 'IMPL-5'), {
      code: 'invalid_argument',
      rule: 'IMPL-5',
    });
  });
});

describe('elliptic curves', () => {
  const point = smallPoint();
  const jwk = (x: bigint, y: bigint) => ({ kty: 'EC', crv: 'P-256', x: base64urlOf(x, 32), y: base64urlOf(y, 32) });

  it('VER-2: a point on the curve is imported', () => {
    expect(() => importPublicKey(readPublicJwk(jwk(point.x, point.y)))).not.toThrow();
    expect(() => importPublicKey(readPublicJwk(jwk(point.x, P256.p - point.y)))).not.toThrow();
  });
  it.each([
    { name: 'off the curve', x: point.x, y: point.y + 1n },
    { name: 'the origin', x: 0n, y: 0n },
    { name: 'with x = p', x: P256.p, y: point.y },
    { name: 'with a coordinate over p', x: point.x + P256.p, y: point.y },
    { name: 'with the largest coordinates', x: 2n ** 256n - 1n, y: 2n ** 256n - 1n },
  ])('VER-2: a point $name is refused when it is imported', async ({ x, y }) => {
    await expectRefusal(() => importPublicKey(readPublicJwk(jwk(x, y))), {
      code: 'invalid_client_attestation',
      rule: 'VER-2',
    });
  });
  it('VER-4: coordinates have one length and one text', async () => {
    const { x, y } = es256.publicJwk;
    const zeroPadded = Buffer.concat([Buffer.from([0]), Buffer.from(String(x), 'base64url')]).toString('base64url');
    for (const bad of [
      undefined,
      '',
      5,
      [x],
      zeroPadded,
      String(x).slice(0, -2),
      `${x}=`,
      ` ${x}`,
      String(x).replace(/.$/, '!'),
    ]) {
      await refuse({ kty: 'EC', crv: 'P-256', x: bad, y });
      await refuse({ kty: 'EC', crv: 'P-256', x: y, y: bad });
    }
  });
});

describe('Ed25519', () => {
  const points = smallOrderPoints();
  it('VER-4: every point of small order is refused, in each of its encodings', async () => {
    expect(points).toHaveLength(8);
    for (const point of points) {
      let sum = point;
      for (let i = 1; i < 8; i++) sum = add(sum, point);
      expect(sum, 'eight times it is the identity').toEqual({ x: 0n, y: 1n });
      for (const sign of [0, 1] as const) {
        await refuse(ed25519Jwk(point.y, sign));
        // y and y + p are the same number; both fit into 255 bits when y < 19
        if (point.y < 19n) await refuse(ed25519Jwk(point.y + ED25519_P, sign));
      }
    }
  });
  it('VER-4: encodings that are not canonical are refused', async () => {
    for (let y = ED25519_P; y < 2n ** 255n; y++) for (const sign of [0, 1] as const) await refuse(ed25519Jwk(y, sign));
  });
  it('VER-4: the base point is accepted, the wrong length is not', async () => {
    const base = readPublicJwk(ed25519Jwk(0x6666666666666666666666666666666666666666666666666666666666666658n, 0));
    expect(() => importPublicKey(base)).not.toThrow();
    await refuse({ kty: 'OKP', crv: 'Ed25519', x: bytesOf(9n, 31).toString('base64url') });
    await refuse({ kty: 'OKP', crv: 'Ed448', x: bytesOf(9n, 57).toString('base64url') });
  });
});

describe('RSA', () => {
  const odd = (bits: number) => 2n ** BigInt(bits - 1) + 12345n;
  it.each([
    { name: '2048 bits', jwk: rsaJwk(odd(2048)) },
    { name: '2056 bits', jwk: rsaJwk(odd(2056)) },
    { name: '8192 bits', jwk: rsaJwk(odd(8192)) },
    { name: 'a large exponent', jwk: rsaJwk(odd(2048), 2n ** 32n + 15n) },
  ])('VER-2: $name is accepted', ({ jwk }) => expect(readPublicJwk(jwk)).toEqual(jwk));

  it.each([
    { name: '1024 bits', jwk: newRsaJwk(1024) },
    { name: '2047 bits', jwk: rsaJwk(odd(2047)) },
    { name: '8193 bits', jwk: rsaJwk(odd(8193)) },
    { name: 'a megabyte', jwk: rsaJwk(odd(1_000_000)) },
    {
      name: 'a leading zero',
      jwk: { ...newRsaJwk(2048), n: Buffer.concat([Buffer.from([0]), bytesOf(odd(2048), 256)]).toString('base64url') },
    },
    { name: 'an even modulus', jwk: rsaJwk(odd(2048) + 1n) },
    { name: 'e = 1', jwk: rsaJwk(odd(2048), 1n) },
    { name: 'e = 3', jwk: newRsaJwk(2048, 3) },
    { name: 'e = 65535', jwk: rsaJwk(odd(2048), 65535n) },
    { name: 'an even e', jwk: rsaJwk(odd(2048), 65538n) },
    { name: 'an e as large as the modulus', jwk: rsaJwk(odd(2048), odd(2047)) },
    { name: 'an e with a leading zero', jwk: { ...newRsaJwk(2048), e: 'AAEAAQ' } },
    { name: 'no e', jwk: { ...newRsaJwk(2048), e: undefined } },
    { name: 'no n', jwk: { kty: 'RSA', e: 'AQAB' } },
    { name: 'the ROCA structure', jwk: rsaJwk(rocaModulus()) },
  ])('VER-4: $name is refused', async ({ jwk }) => {
    await refuse(jwk);
  });

  it('VER-4: the ROCA test has no false alarms among honest keys', () => {
    for (let i = 0; i < 5; i++) expect(() => readPublicJwk(newRsaJwk(2048))).not.toThrow();
  });
});

describe('thumbprints and equality', () => {
  it('DPOP-8: are those of RFC 7638 section 3.1 and of jose', async () => {
    expect(thumbprintOf(readPublicJwk(rfc7638.jwk))).toBe(rfc7638.thumbprint);
    for (const { publicJwk, thumbprint } of signers) {
      const read = readPublicJwk(publicJwk);
      expect(thumbprintOf(read)).toBe(await calculateJwkThumbprint(publicJwk as never));
      expect(thumbprint).toBe(sha256Base64url(thumbprintInput(read)));
    }
  });
  it('DPOP-8: keys are compared by what defines them', () => {
    for (const [i, a] of signers.entries()) {
      for (const [j, b] of signers.entries()) {
        expect(
          sameKey(readPublicJwk({ ...a.publicJwk, kid: 'a' }), readPublicJwk({ use: 'sig', ...b.publicJwk })),
        ).toBe(i === j);
      }
    }
  });
});
