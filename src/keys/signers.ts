/** Signers over private keys that the caller holds: an attester's own key, a test's. */
import { createPrivateKey, createPublicKey, KeyObject } from 'node:crypto';
import { keyFits, type SignatureAlgorithm, signatureAlgorithms } from '../core/algorithms.ts';
import type { JsonWebKey, Signer } from '../core/signer.ts';
import { AttestedError } from '../errors.ts';
import { generatePrivateKey, signBytes, signerOf, verifySignature } from '../platform/crypto.ts';
import { assertSignatureAlgorithm } from './labels.ts';

/**
 * A signer over an existing private key.
 *
 * @param privateKey private JWK, unencrypted PEM (PKCS #8, SEC 1 or PKCS #1), or KeyObject
 * @param alg default: the JWK's own `alg`, else the first of `signatureAlgorithms` that fits the key (RSA: PS256)
 * @param kid default: the JWK's own `kid`
 * @throws AttestedError `invalid_argument` when it is no usable private key, its private and public members do not belong
 *   together, or it does not fit the algorithm
 */
export function importSigner(
  privateKey: JsonWebKey | string | KeyObject,
  alg?: SignatureAlgorithm,
  kid?: string,
): Signer {
  const key = privateKeyOf(privateKey);
  const named: JsonWebKey = typeof privateKey === 'string' || privateKey instanceof KeyObject ? {} : privateKey;
  const chosen = alg ?? named.alg ?? fittingAlgorithm(key);
  assertSignatureAlgorithm(chosen);
  const signer = signerOf(key, chosen, kid ?? named.kid);
  // OpenSSL takes a JWK whose public half belongs to another key; every signature would then be refused elsewhere
  const sample = 'attested';
  if (!verifySignature(chosen, createPublicKey(key), sample, signBytes(chosen, key, Buffer.from(sample)))) {
    throw new AttestedError('invalid_argument', 'the private and the public part of the key do not belong together');
  }
  return signer;
}

/** A signer over a new private key that lives in this process's memory only. @throws AttestedError `invalid_argument` */
export function generateSigner(alg: SignatureAlgorithm = 'ES256', kid?: string): Signer {
  assertSignatureAlgorithm(alg);
  return signerOf(generatePrivateKey(alg), alg, kid);
}

function privateKeyOf(input: JsonWebKey | string | KeyObject): KeyObject {
  try {
    if (input instanceof KeyObject) {
      if (input.type === 'private') return input;
    } else {
      return createPrivateKey(typeof input === 'string' ? input : { key: input, format: 'jwk' });
    }
  } catch {
    // the cause is left out: it may quote the key
  }
  throw new AttestedError('invalid_argument', 'not a private key: a private JWK, an unencrypted PEM or a KeyObject');
}

function fittingAlgorithm(key: KeyObject): SignatureAlgorithm | undefined {
  let jwk: { kty?: string; crv?: string };
  try {
    jwk = createPublicKey(key).export({ format: 'jwk' });
  } catch {
    return undefined; // a key type that has no JWK, such as DSA
  }
  return signatureAlgorithms.find((alg) => keyFits(alg, { kty: jwk.kty, crv: jwk.crv }));
}
