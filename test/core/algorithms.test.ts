import { createPrivateKey, type KeyObject, randomBytes } from 'node:crypto';
import { CompactSign, compactVerify, importJWK } from 'jose';
import { describe, expect, it } from 'vitest';
import {
  algorithmRow,
  algorithms,
  keyFits,
  macAlgorithms,
  type SignatureAlgorithm,
  signatureAlgorithms,
} from '../../src/core/algorithms.ts';
import { decodeBase64url, encodeBase64url, utf8 } from '../../src/core/bytes.ts';
import { readPublicJwk } from '../../src/core/jwk.ts';
import {
  generatePrivateKey,
  generatePrivateKeyDer,
  importMacKey,
  importPublicKey,
  macSignerOf,
  signerOf,
  verifySignature,
} from '../../src/platform/crypto.ts';
import { expectRefusal } from '../support/errors.ts';
import { base64urlOf, P256, power } from '../support/keys.ts';

const keys = new Map<SignatureAlgorithm, KeyObject>(signatureAlgorithms.map((alg) => [alg, generatePrivateKey(alg)]));
const keyOf = (alg: SignatureAlgorithm) => keys.get(alg) as KeyObject;
const publicOf = (alg: SignatureAlgorithm) => importPublicKey(readPublicJwk(signerOf(keyOf(alg), alg).publicJwk));

describe('the table', () => {
  it('VER-2: holds every algorithm of the lists and no other', () => {
    expect(Object.keys(algorithms).sort()).toEqual([...signatureAlgorithms, ...macAlgorithms].sort());
    for (const alg of ['none', 'ES256K', 'toString', '__proto__', 'constructor', '', undefined, null, 5, ['ES256']]) {
      expect(algorithmRow(alg)).toBeUndefined();
    }
  });

  it('VER-2: a key fits the algorithms of its type, curve and name only', () => {
    for (const alg of signatureAlgorithms) {
      const jwk = signerOf(keyOf(alg), alg).publicJwk;
      for (const other of [...signatureAlgorithms, ...macAlgorithms]) {
        const same = algorithms[alg].kty === algorithms[other].kty && algorithms[alg].crv === algorithms[other].crv;
        expect(keyFits(other, jwk), `${alg} key for ${other}`).toBe(same);
        const sameName = other === alg || (same && algorithms[alg].kty === 'OKP');
        expect(keyFits(other, { ...jwk, alg }), `key named ${alg} for ${other}`).toBe(sameName);
      }
    }
    expect(keyFits('none', { kty: 'EC', crv: 'P-256' })).toBe(false);
    expect(keyFits('ES256', {})).toBe(false);
  });
});

describe('round trips with an independent implementation', () => {
  it.each(signatureAlgorithms)('VER-2, POP-6: what we sign with %s, jose verifies', async (alg) => {
    const signer = signerOf(keyOf(alg), alg);
    const input = `${encodeBase64url(utf8(JSON.stringify({ alg })))}.${encodeBase64url(utf8('{"a":1}'))}`;
    for (let i = 0; i < 20; i++) {
      const signature = await signer.sign(utf8(input));
      const bytes = algorithms[alg].signatureBytes;
      if (bytes !== undefined) expect(signature).toHaveLength(bytes);
      const key = await importJWK(signer.publicJwk as never, alg);
      await expect(compactVerify(`${input}.${encodeBase64url(signature)}`, key)).resolves.toBeDefined();
      expect(verifySignature(alg, publicOf(alg), input, signature)).toBe(true);
    }
  });

  it.each(signatureAlgorithms)('VER-2, POP-6: what jose signs with %s, we verify', async (alg) => {
    for (let i = 0; i < 20; i++) {
      const token = await new CompactSign(randomBytes(20)).setProtectedHeader({ alg }).sign(keyOf(alg));
      const input = token.slice(0, token.lastIndexOf('.'));
      const signature = decodeBase64url(token.slice(token.lastIndexOf('.') + 1)) as Uint8Array;
      expect(verifySignature(alg, publicOf(alg), input, signature)).toBe(true);
      expect(verifySignature(alg, publicOf(alg), `${input}A`, signature)).toBe(false);
      const flipped = Uint8Array.from(signature);
      const at = i % flipped.length;
      flipped[at] = (flipped[at] as number) ^ 1;
      expect(verifySignature(alg, publicOf(alg), input, flipped)).toBe(false);
    }
  });

  it.each(macAlgorithms)('ATT-7: %s agrees with jose both ways', async (alg) => {
    const secret = randomBytes(64);
    const token = await new CompactSign(utf8('x')).setProtectedHeader({ alg }).sign(secret);
    const [header, payload, signature] = token.split('.') as [string, string, string];
    const ours = await macSignerOf(secret, alg).sign(utf8(`${header}.${payload}`));
    expect(encodeBase64url(ours)).toBe(signature);
    expect(verifySignature(alg, importMacKey(secret, alg), `${header}.${payload}`, ours)).toBe(true);
    expect(verifySignature(alg, importMacKey(randomBytes(64), alg), `${header}.${payload}`, ours)).toBe(false);
    expect(verifySignature(alg, importMacKey(secret, alg), `${header}.${payload}`, ours.subarray(1))).toBe(false);
    await expectRefusal(() => importMacKey(secret.subarray(0, 31), alg), { code: 'invalid_argument', rule: 'ATT-7' });
  });

  it('VER-2: a signature of one algorithm is none of another', async () => {
    const input = 'e30.e30';
    for (const alg of signatureAlgorithms) {
      const signature = await signerOf(keyOf(alg), alg).sign(utf8(input));
      for (const other of signatureAlgorithms) {
        if (algorithms[other].kty !== algorithms[alg].kty || algorithms[other].crv !== algorithms[alg].crv) continue;
        const same = algorithms[other].hash === algorithms[alg].hash && algorithms[other].pss === algorithms[alg].pss;
        expect(verifySignature(other, publicOf(alg), input, signature), `${alg} as ${other}`).toBe(same);
      }
    }
  });

  it('VER-2: a secret is no public key, a public key is no secret, and an unknown algorithm verifies nothing', async () => {
    const signature = await signerOf(keyOf('ES256'), 'ES256').sign(utf8('e30.e30'));
    expect(verifySignature('HS256', publicOf('ES256'), 'e30.e30', signature.subarray(0, 32))).toBe(false);
    expect(verifySignature('ES256', importMacKey(randomBytes(32), 'HS256'), 'e30.e30', signature)).toBe(false);
    for (const alg of ['none', '', 'ES256K', 'toString']) {
      expect(verifySignature(alg, publicOf('ES256'), 'e30.e30', signature)).toBe(false);
      expect(verifySignature(alg, publicOf('ES256'), 'e30.e30', new Uint8Array())).toBe(false);
    }
  });
});

describe('ECDSA signatures at the edges', () => {
  const { n } = P256;
  const raw = (r: bigint, s: bigint) =>
    Buffer.concat([r, s].map((half) => Buffer.from(base64urlOf(half, 32), 'base64url')));

  it.each([
    { name: 'zeros', signature: raw(0n, 0n) },
    { name: 'r = 0', signature: raw(0n, 1n) },
    { name: 's = 0', signature: raw(1n, 0n) },
    { name: 'r = n', signature: raw(n, 1n) },
    { name: 's = n', signature: raw(1n, n) },
    { name: 'r = n and s = n', signature: raw(n, n) },
    { name: 'r = n + 1', signature: raw(n + 1n, 1n) },
    { name: 'all ones', signature: Buffer.alloc(64, 0xff) },
    { name: 'no bytes', signature: Buffer.alloc(0) },
    { name: '63 bytes', signature: Buffer.alloc(63, 1) },
    { name: '65 bytes', signature: Buffer.alloc(65, 1) },
    { name: '96 bytes', signature: Buffer.alloc(96, 1) },
  ])('VER-3, POP-6: $name is refused', ({ signature }) => {
    expect(verifySignature('ES256', publicOf('ES256'), 'e30.e30', signature)).toBe(false);
  });

  it.each(['ES256', 'ES384', 'ES512', 'EdDSA', 'HS256'] as const)(
    'VER-3, POP-6: %s: a valid signature has one length: longer halves, a byte more or less are refused',
    async (alg) => {
      const secret = randomBytes(64);
      const signer = alg === 'HS256' ? macSignerOf(secret, alg) : signerOf(keyOf(alg), alg);
      const key = alg === 'HS256' ? importMacKey(secret, alg) : publicOf(alg);
      const signature = Buffer.from(await signer.sign(utf8('e30.e30')));
      expect(verifySignature(alg, key, 'e30.e30', signature)).toBe(true);
      const half = signature.length / 2;
      const zero = Buffer.from([0]);
      for (const other of [
        Buffer.concat([zero, signature.subarray(0, half), zero, signature.subarray(half)]),
        Buffer.concat([zero, signature]),
        Buffer.concat([signature, zero]),
        signature.subarray(1),
        signature.subarray(0, -1),
      ]) {
        expect(verifySignature(alg, key, 'e30.e30', other)).toBe(false);
      }
    },
  );

  it.each(['ES256', 'ES384', 'ES512'] as const)(
    'VER-3, POP-6: %s: r or s plus the group order is refused, where it fits',
    async (alg) => {
      const signature = Buffer.from(await signerOf(keyOf(alg), alg).sign(utf8('e30.e30')));
      expect(verifySignature(alg, publicOf(alg), 'e30.e30', signature)).toBe(true);
      if (alg !== 'ES256') return;
      const r = BigInt(`0x${signature.subarray(0, 32).toString('hex')}`);
      const s = BigInt(`0x${signature.subarray(32).toString('hex')}`);
      for (const [a, b] of [
        [r + n, s],
        [r, s + n],
      ] as const) {
        if (a < 2n ** 256n && b < 2n ** 256n)
          expect(verifySignature(alg, publicOf(alg), 'e30.e30', raw(a, b))).toBe(false);
      }
      // the other square root: valid ECDSA, so the jti and not the text of a token has to stop its second use
      expect(verifySignature(alg, publicOf(alg), 'e30.e30', raw(r, n - s))).toBe(true);
      expect(verifySignature(alg, publicOf(alg), 'e30.e30', raw(s, r))).toBe(false);
    },
  );

  it('POP-6: signatures with short r or s keep their length', async () => {
    // about one in 128 has a leading zero byte in one half: tried until three were met
    const signer = signerOf(keyOf('ES256'), 'ES256');
    for (let i = 0, short = 0; short < 3; i++) {
      const signature = await signer.sign(utf8(`e30.${i}`));
      expect(signature).toHaveLength(64);
      if (signature[0] === 0 || signature[32] === 0) short++;
      expect(verifySignature('ES256', publicOf('ES256'), `e30.${i}`, signature)).toBe(true);
    }
  });

  it('POP-6: Ed25519 signatures with s plus the group order are refused', async () => {
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const signature = Buffer.from(await signerOf(keyOf('Ed25519'), 'Ed25519').sign(utf8('e30.e30')));
    const s = BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString('hex')}`) + order;
    const changed = Buffer.concat([
      signature.subarray(0, 32),
      Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse(),
    ]);
    expect(verifySignature('Ed25519', publicOf('Ed25519'), 'e30.e30', signature)).toBe(true);
    expect(verifySignature('Ed25519', publicOf('Ed25519'), 'e30.e30', changed)).toBe(false);
  });

  it('the arithmetic of these tests is right', () => expect(power(3n, P256.p - 1n, P256.p)).toBe(1n));
});

describe('signers', () => {
  it('VER-2: a key that does not fit is refused', async () => {
    await expectRefusal(() => signerOf(keyOf('ES256'), 'ES384'), { code: 'invalid_argument' });
    await expectRefusal(() => signerOf(keyOf('RS256'), 'ES256'), { code: 'invalid_argument' });
    expect(signerOf(keyOf('RS256'), 'PS512').alg).toBe('PS512');
  });
  it('VER-4: show the public key only', () => {
    for (const alg of signatureAlgorithms) {
      const signer = signerOf(keyOf(alg), alg, 'name');
      expect(JSON.stringify(signer)).not.toMatch(/"(d|p|q|dp|dq|qi)":/);
      expect(signer.publicJwk.kid).toBe('name');
    }
    const secret = randomBytes(32);
    const mac = macSignerOf(secret, 'HS256');
    expect(JSON.stringify(mac)).not.toContain(secret.toString('base64url'));
    expect(mac.thumbprint).not.toBe(macSignerOf(randomBytes(32), 'HS256').thumbprint);
  });
  it.each(signatureAlgorithms)('a generated %s key survives being kept as PKCS #8', (alg) => {
    const key = createPrivateKey({ key: Buffer.from(generatePrivateKeyDer(alg)), format: 'der', type: 'pkcs8' });
    expect(signerOf(key, alg).alg).toBe(alg);
  });
});
