/** The cryptography that the neutral core leaves open, by `node:crypto`. Synchronous: one ES256 check costs about 60 µs. */
import {
  constants,
  createHash,
  createHmac,
  createPublicKey,
  createSecretKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  randomUUID,
  sign,
  timingSafeEqual,
  verify,
} from 'node:crypto';
import { type Algorithm, algorithmRow, algorithms, type SignatureAlgorithm } from '../core/algorithms.ts';
import { utf8 } from '../core/bytes.ts';
import { type PublicJwk, readPublicJwk, thumbprintInput } from '../core/jwk.ts';
import type { Signer } from '../core/signer.ts';
import { AttestedError, type ErrorCode } from '../errors.ts';

export function sha256Base64url(data: string | Uint8Array): string {
  return hash('sha256', data, 'base64url');
}

/** SHA-256 as bytes. */
export function sha256(data: string | Uint8Array): Uint8Array {
  return createHash('sha256').update(data).digest();
}

/** RFC 7638 SHA-256 thumbprint, base64url. */
export function thumbprintOf(jwk: PublicJwk): string {
  return sha256Base64url(thumbprintInput(jwk));
}

/** A random identifier (UUID version 4, 122 random bits). Unique, not secret. */
export function randomId(): string {
  return randomUUID();
}

export function equalInConstantTime(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

export function hmacSha256(key: Uint8Array, data: Uint8Array): Uint8Array {
  return createHmac('sha256', key).update(data).digest();
}

/**
 * Imports a public key. OpenSSL refuses an EC point that is not on its curve here.
 * @throws AttestedError with `code`
 */
export function importPublicKey(jwk: PublicJwk, code: ErrorCode = 'invalid_client_attestation'): KeyObject {
  try {
    return createPublicKey({ key: { ...jwk }, format: 'jwk' });
  } catch {
    // the cause is left out: it may quote the key
    throw new AttestedError(code, 'the key is not a valid public key', { rule: 'VER-2' });
  }
}

/** Imports a MAC secret. @throws AttestedError `invalid_argument` when it is shorter than the hash (RFC 7518 §3.2) */
export function importMacKey(secret: Uint8Array, alg: Algorithm): KeyObject {
  if (secret.length < (algorithms[alg].signatureBytes ?? 0)) {
    throw new AttestedError('invalid_argument', `a secret for ${alg} must be at least as long as its hash`, {
      rule: 'ATT-7',
    });
  }
  return createSecretKey(secret);
}

/**
 * Verifies a JWS signature or MAC over ASCII text. The key must already fit the algorithm (`keyFits`).
 * @param signature as it stands in the token (ECDSA: r‖s)
 */
export function verifySignature(alg: string, key: KeyObject, signingInput: string, signature: Uint8Array): boolean {
  const row = algorithmRow(alg);
  if (row === undefined || (row.kty === 'oct') !== (key.type === 'secret')) return false;
  if (row.signatureBytes !== undefined && signature.length !== row.signatureBytes) return false;
  const data = Buffer.from(signingInput, 'latin1');
  try {
    switch (row.kty) {
      case 'oct':
        return timingSafeEqual(
          createHmac(row.hash as string, key)
            .update(data)
            .digest(),
          signature,
        );
      case 'EC': {
        const der = ecdsaToDer(signature);
        return der !== undefined && verify(row.hash, data, key, der);
      }
      case 'OKP':
        return verify(null, data, key, signature);
      case 'RSA':
        return verify(row.hash, data, row.pss ? { key, ...PSS } : key, signature);
    }
  } catch {
    return false;
  }
}

const PSS = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };

/** A {@link Signer} over a private key in this process's memory. @throws AttestedError `invalid_argument` */
export function signerOf(privateKey: KeyObject, alg: SignatureAlgorithm, kid?: string): Signer {
  const row = algorithms[alg];
  const jwk = readPublicJwk(createPublicKey(privateKey).export({ format: 'jwk' }), 'invalid_argument');
  if (jwk.kty !== row.kty || (row.crv !== undefined && (jwk as { crv?: string }).crv !== row.crv)) {
    throw new AttestedError('invalid_argument', `the key does not fit ${alg}`);
  }
  return {
    alg,
    publicJwk: kid === undefined ? { ...jwk } : { ...jwk, kid },
    thumbprint: thumbprintOf(jwk),
    sign: async (data) => signBytes(alg, privateKey, data),
  };
}

/** Signs bytes and gives the JWS form of the signature. */
export function signBytes(alg: SignatureAlgorithm, privateKey: KeyObject, data: Uint8Array): Uint8Array {
  const row = algorithms[alg];
  switch (row.kty) {
    case 'EC':
      return ecdsaFromDer(sign(row.hash, data, privateKey), (row.signatureBytes as number) / 2);
    case 'RSA':
      return sign(row.hash, data, row.pss ? { key: privateKey, ...PSS } : privateKey);
    default:
      return sign(null, data, privateKey);
  }
}

/** A new private key for an algorithm, as PKCS #8 DER (what a store keeps). */
export function generatePrivateKeyDer(alg: SignatureAlgorithm): Uint8Array {
  return generatePrivateKey(alg).export({ type: 'pkcs8', format: 'der' });
}

export function generatePrivateKey(alg: SignatureAlgorithm): KeyObject {
  const row = algorithms[alg];
  switch (row.kty) {
    case 'EC':
      return generateKeyPairSync('ec', { namedCurve: row.crv as string }).privateKey;
    case 'OKP':
      return generateKeyPairSync('ed25519').privateKey;
    default:
      return generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  }
}

/**
 * A signer of MAC-protected attestations (ATT-7), for `createAttestation` where attester and server are one party.
 * @throws AttestedError `invalid_argument` for a secret shorter than the hash
 */
export function macSignerOf(secret: Uint8Array, alg: 'HS256' | 'HS384' | 'HS512', kid?: string): Signer {
  const key = importMacKey(secret, alg);
  return {
    alg,
    publicJwk: kid === undefined ? {} : { kid },
    thumbprint: sha256Base64url(Buffer.concat([utf8(`attested mac ${alg} `), hmacSha256(secret, utf8('thumbprint'))])),
    sign: async (data) =>
      createHmac(algorithms[alg].hash as string, key)
        .update(data)
        .digest(),
  };
}

/** r‖s to DER. Undefined when r or s is zero; a value over the group order is left to OpenSSL, which refuses it. */
function ecdsaToDer(signature: Uint8Array): Uint8Array | undefined {
  const half = signature.length / 2;
  const r = trimInteger(signature, 0, half);
  const s = trimInteger(signature, half, signature.length);
  if (r === undefined || s === undefined) return undefined;
  const length = r.length + s.length + 4;
  const long = length > 127;
  const der = new Uint8Array(length + (long ? 3 : 2));
  der[0] = 0x30;
  if (long) der[1] = 0x81;
  let offset = long ? 2 : 1;
  der[offset++] = length;
  for (const integer of [r, s]) {
    der[offset++] = 0x02;
    der[offset++] = integer.length;
    der.set(integer, offset);
    offset += integer.length;
  }
  return der;
}

/** A big-endian unsigned integer as DER content octets: no needless zeros, one where the sign bit would be set. */
function trimInteger(bytes: Uint8Array, from: number, to: number): Uint8Array | undefined {
  let start = from;
  while (start < to && bytes[start] === 0) start++;
  if (start === to) return undefined;
  if ((bytes[start] as number) < 0x80) return bytes.subarray(start, to);
  const padded = new Uint8Array(to - start + 1);
  padded.set(bytes.subarray(start, to), 1);
  return padded;
}

/** DER from our own OpenSSL to r‖s, each left-padded to `half` bytes. Copied byte by byte: views cost more than bytes. */
function ecdsaFromDer(der: Uint8Array, half: number): Uint8Array {
  const signature = new Uint8Array(half * 2);
  let offset = der[1] === 0x81 ? 3 : 2;
  for (let end = half; end <= signature.length; end += half) {
    const last = offset + 1 + (der[offset + 1] as number);
    const digits = Math.min(half, last - offset - 1); // what is longer begins with the zero of the sign
    for (let i = 0; i < digits; i++) signature[end - 1 - i] = der[last - i] as number;
    offset = last + 1;
  }
  return signature;
}
