import { generateKeyPairSync } from 'node:crypto';
import { inspect } from 'node:util';
import { AttestedError, generateSigner, importSigner, type JsonWebKey } from 'attested/keys';
import { calculateJwkThumbprint } from 'jose';
import { describe, expect, test } from 'vitest';
import { signatureAlgorithms } from '../../src/core/algorithms.ts';
import { verifiesInNode } from '../contract/key-provider.ts';

const data = Buffer.from('the bytes to be signed');
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
const jwkOf = (key: typeof p256) => key.export({ format: 'jwk' }) as JsonWebKey;

test.each(signatureAlgorithms)('%s: a generated signer signs, and shows no private key', async (alg) => {
  const signer = generateSigner(alg, 'a name');
  expect(signer.publicJwk.kid).toBe('a name');
  expect(signer.thumbprint).toBe(await calculateJwkThumbprint(signer.publicJwk));
  expect(verifiesInNode(signer, await signer.sign(data), data)).toBe(true);
  const shown = inspect(signer, { depth: Infinity, showHidden: true }) + JSON.stringify(signer);
  expect(shown).not.toMatch(/KeyObject|\bd"?: ?["']/);
});

describe('importSigner', () => {
  test.each([
    ['KeyObject', p256],
    ['private JWK', jwkOf(p256)],
    ['PKCS #8 PEM', p256.export({ type: 'pkcs8', format: 'pem' }) as string],
    ['SEC 1 PEM', p256.export({ type: 'sec1', format: 'pem' }) as string],
  ])('takes a %s', async (_what, key) => {
    const signer = importSigner(key);
    expect(signer.alg).toBe('ES256');
    expect(signer.publicJwk).toEqual({ kty: 'EC', crv: 'P-256', x: jwkOf(p256).x, y: jwkOf(p256).y });
    expect(verifiesInNode(signer, await signer.sign(data), data)).toBe(true);
  });

  test.each([
    ['P-384', generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey, 'ES384'],
    ['P-521', generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey, 'ES512'],
    ['Ed25519', generateKeyPairSync('ed25519').privateKey, 'Ed25519'],
    ['RSA', rsa, 'PS256'],
  ])('chooses the algorithm of a %s key', (_what, key, alg) => {
    expect(importSigner(key).alg).toBe(alg);
  });

  test('keeps the algorithm and name that a JWK gives, unless told otherwise', () => {
    const jwk = { ...jwkOf(rsa), alg: 'RS512', kid: 'its own' };
    expect(importSigner(jwk)).toMatchObject({ alg: 'RS512', publicJwk: { kid: 'its own' } });
    expect(importSigner(jwk, 'PS384', 'ours')).toMatchObject({ alg: 'PS384', publicJwk: { kid: 'ours' } });
  });

  test.each<[string, unknown, string?]>([
    ['a public JWK', { ...jwkOf(p256), d: undefined }],
    ['a public KeyObject', generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey],
    [
      'a JWK of two keys',
      { ...jwkOf(p256), d: jwkOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey).d },
    ],
    ['text that is no PEM', 'secret text'],
    ['a PEM under a passphrase', rsa.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' })],
    ['a symmetric JWK', { kty: 'oct', k: 'c2VjcmV0IHRleHQ' }],
    ['a curve that JWS does not have here', generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey],
    ['an X25519 key', generateKeyPairSync('x25519').privateKey],
    ['an RSA key of 1024 bits', generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey],
    ['an EC key for RS256', p256, 'RS256'],
    ['a P-256 key for ES384', p256, 'ES384'],
    ['an algorithm none', p256, 'none'],
    ['a MAC algorithm', p256, 'HS256'],
    ['nothing', undefined],
    ['null', null],
  ])('refuses %s, without quoting it', (_what, key, alg) => {
    let refused: unknown;
    try {
      importSigner(key as JsonWebKey, alg as 'ES256');
    } catch (error) {
      refused = error;
    }
    expect(refused).toBeInstanceOf(AttestedError);
    expect((refused as AttestedError).code).toBe('invalid_argument');
    const shown = inspect(refused, { depth: Infinity });
    expect(shown).not.toMatch(/secret text|c2VjcmV0/);
    expect(shown).not.toContain(jwkOf(p256).d as string);
  });
});

test.each(['none', 'HS256', '', 'toString'])('generateSigner refuses %j', (alg) => {
  expect(() => generateSigner(alg as 'ES256')).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
});
