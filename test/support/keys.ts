/** Keys that must be refused, made from first principles. */
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import type { JsonWebKey } from '../../src/core/signer.ts';

export function bytesOf(value: bigint, length: number): Buffer {
  return Buffer.from(value.toString(16).padStart(length * 2, '0'), 'hex');
}

export function base64urlOf(value: bigint, length: number): string {
  return bytesOf(value, length).toString('base64url');
}

export function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  let square = base % modulus;
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % modulus;
    square = (square * square) % modulus;
  }
  return result;
}

export const P256 = {
  p: 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn,
  b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
  n: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
} as const;

/** A point of P-256 whose x is so small that x + p still fits into 32 bytes: the same point has a second, illegal name. */
export function smallPoint(): { x: bigint; y: bigint } {
  const { p, b } = P256;
  for (let x = 1n; ; x++) {
    const square = (x * x * x - 3n * x + b) % p;
    const y = power(square < 0n ? square + p : square, (p + 1n) / 4n, p);
    if ((y * y) % p === (square + p) % p) return { x, y };
  }
}

export const ED25519_P = 2n ** 255n - 19n;

const inverse = (value: bigint) => power(((value % ED25519_P) + ED25519_P) % ED25519_P, ED25519_P - 2n, ED25519_P);
const mod = (value: bigint) => ((value % ED25519_P) + ED25519_P) % ED25519_P;
const D = mod(-121665n * inverse(121666n));
const SQRT_MINUS_1 = power(2n, (ED25519_P - 1n) / 4n, ED25519_P);

export interface Point {
  x: bigint;
  y: bigint;
}

export function add(a: Point, b: Point): Point {
  const product = mod(D * a.x * b.x * a.y * b.y);
  return {
    x: mod((a.x * b.y + b.x * a.y) * inverse(1n + product)),
    y: mod((a.y * b.y + a.x * b.x) * inverse(1n - product)),
  };
}

/** The point with this y and an even x; undefined where there is none. */
function pointAt(y: bigint): Point | undefined {
  const square = mod((y * y - 1n) * inverse(D * y * y + 1n));
  let x = power(square, (ED25519_P + 3n) / 8n, ED25519_P);
  if (mod(x * x) !== square) x = mod(x * SQRT_MINUS_1);
  if (mod(x * x) !== square) return undefined;
  return { x: x & 1n ? ED25519_P - x : x, y };
}

/** All eight points whose order divides eight: multiples of a point of order eight, found by clearing the large factor. */
export function smallOrderPoints(): Point[] {
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  for (let y = 2n; ; y++) {
    const point = pointAt(y);
    if (point === undefined) continue;
    const generator = multiply(point, order);
    const points: Point[] = [];
    for (let i = 0, sum: Point = { x: 0n, y: 1n }; i < 8; i++, sum = add(sum, generator)) points.push(sum);
    if (new Set(points.map(({ x, y }) => `${x} ${y}`)).size === 8) return points;
  }
}

function multiply(point: Point, factor: bigint): Point {
  let result: Point = { x: 0n, y: 1n };
  let doubled = point;
  for (let rest = factor; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = add(result, doubled);
    doubled = add(doubled, doubled);
  }
  return result;
}

/** 32 bytes, little endian, with the sign of x in the top bit: RFC 8032 §5.1.2. */
export function ed25519Jwk(y: bigint, signOfX: 0 | 1): JsonWebKey {
  const bytes = bytesOf(y | (BigInt(signOfX) << 255n), 32).reverse();
  return { kty: 'OKP', crv: 'Ed25519', x: bytes.toString('base64url') };
}

export function rsaJwk(modulus: bigint, exponent = 65537n): JsonWebKey {
  const n = modulus.toString(16);
  const e = exponent.toString(16);
  const text = (hex: string) => Buffer.from(hex.length % 2 ? `0${hex}` : hex, 'hex').toString('base64url');
  return { kty: 'RSA', n: text(n), e: text(e) };
}

export function newRsaJwk(bits: number, exponent = 65537): JsonWebKey {
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: bits, publicExponent: exponent });
  return publicKey.export({ format: 'jwk' }) as JsonWebKey;
}

/**
 * A 2048-bit modulus of the shape that Infineon's library made (CVE-2017-15361): both factors are k·M + 65537^a mod M,
 * where M is the product of the first 126 primes. The factors need not be prime for the detector.
 */
export function rocaModulus(): bigint {
  const primes: bigint[] = [];
  for (let n = 2n; primes.length < 126; n++) if (primes.every((prime) => n % prime !== 0n)) primes.push(n);
  const M = primes.reduce((product, prime) => product * prime, 1n);
  const factor = (k: bigint, a: bigint) => k * M + power(65537n, a, M);
  const top = (2n ** 1024n - 1n) / M; // the largest k that keeps the factor at 1024 bits
  return factor(top - 5n, 123457n) * factor(top - 11n, 7654321n);
}

/** Every member of an RSA or EC private JWK, to be put into a public one. */
export function privateMembers(): Record<string, unknown> {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const rsa = createPrivateKey(privateKey.export({ type: 'pkcs8', format: 'pem' })).export({ format: 'jwk' });
  const { d, p, q, dp, dq, qi } = rsa;
  return { d, p, q, dp, dq, qi, oth: [{ r: 'AQAB', d: 'AQAB', t: 'AQAB' }], k: 'c2VjcmV0LXNlY3JldC1zZWNyZXQ', priv: d };
}
