/** TPMT_SIGNATURE, and its way to what JWS and `node:crypto` take (TPM 2.0 Part 2 §11.3). */
import { constants, type KeyObject, verify } from 'node:crypto';
import { algorithms, type SignatureAlgorithm } from '../core/algorithms.ts';
import { AttestedError } from '../errors.ts';
import {
  byId,
  type CurveName,
  curves,
  type HashName,
  hashesById,
  type SignatureScheme,
  signatureSchemes,
} from './algorithms.ts';
import { leftPadded } from './public.ts';
import { concat, malformed, Reader, withoutSize } from './wire.ts';

/** ECDSA numbers as the TPM wrote them, without leading zeros on some TPMs. */
export interface EcdsaSignature {
  alg: 'ecdsa';
  hash: HashName;
  r: Uint8Array;
  s: Uint8Array;
}
export interface RsaSignature {
  alg: 'rsassa' | 'rsapss';
  hash: HashName;
  signature: Uint8Array;
}
export type TpmSignature = EcdsaSignature | RsaSignature;

const STRUCTURE = 'TPMT_SIGNATURE';
const MAX_RSA_BYTES = 512;
const MAX_ECC_BYTES = 66;

const schemesById = byId(signatureSchemes);

/**
 * Reads a TPMT_SIGNATURE of ECDSA, RSASSA or RSAPSS (also behind a matching size prefix). Others are refused: an HMAC proves
 * nothing to an outsider, TPM_ALG_NULL nothing to anybody.
 *
 * @throws AttestedError `tpm_malformed`
 */
export function parseSignature(bytes: Uint8Array): TpmSignature {
  const reader = new Reader(withoutSize(bytes, STRUCTURE, schemesById), STRUCTURE);
  const alg = reader.id(schemesById, 'the algorithm');
  const hash = reader.id(hashesById, 'the hash').name;
  const signature: TpmSignature =
    alg === 'ecdsa'
      ? { alg, hash, r: reader.sized(MAX_ECC_BYTES), s: reader.sized(MAX_ECC_BYTES) }
      : { alg, hash, signature: reader.sized(MAX_RSA_BYTES) };
  reader.end();
  return signature;
}

/** r‖s, each left-padded to the curve's size. @throws AttestedError `tpm_malformed` when one is longer than that */
function ecdsaBytes({ r, s }: Pick<EcdsaSignature, 'r' | 's'>, curve: CurveName): Uint8Array {
  const { bytes } = curves[curve];
  if (r.length > bytes || s.length > bytes) throw malformed(STRUCTURE, 'longer than its curve allows');
  return concat(leftPadded(r, bytes), leftPadded(s, bytes));
}

/** The scheme and hash of a TPM for each JWS algorithm that it has. */
export const jwsSchemes: Readonly<Partial<Record<SignatureAlgorithm, { scheme: SignatureScheme; hash: HashName }>>> = {
  ES256: { scheme: 'ecdsa', hash: 'sha256' },
  ES384: { scheme: 'ecdsa', hash: 'sha384' },
  ES512: { scheme: 'ecdsa', hash: 'sha512' },
  RS256: { scheme: 'rsassa', hash: 'sha256' },
  RS384: { scheme: 'rsassa', hash: 'sha384' },
  RS512: { scheme: 'rsassa', hash: 'sha512' },
  PS256: { scheme: 'rsapss', hash: 'sha256' },
  PS384: { scheme: 'rsapss', hash: 'sha384' },
  PS512: { scheme: 'rsapss', hash: 'sha512' },
};

/**
 * The signature as a JWS of this algorithm carries it (RFC 7518 §3): ECDSA r‖s of exact length, RSA as it is.
 *
 * @throws AttestedError `tpm_malformed` when the signature is of another algorithm or hash
 */
export function jwsSignature(signature: TpmSignature, alg: SignatureAlgorithm): Uint8Array {
  const row = jwsSchemes[alg];
  if (row === undefined) throw new AttestedError('invalid_argument', 'a TPM has no such algorithm');
  if (signature.alg !== row.scheme || signature.hash !== row.hash)
    throw malformed(STRUCTURE, `not a signature of ${alg}`);
  return signature.alg === 'ecdsa' ? ecdsaBytes(signature, algorithms[alg].crv as CurveName) : signature.signature;
}

const OPENSSL_CURVES: ReadonlyMap<string | undefined, CurveName> = new Map(
  Object.values(curves).map((row) => [row.openssl, row.name]),
);

/** Is this the key's signature over the data? False also where key and signature are of different kinds; never throws. */
export function verifyTpmSignature(signature: TpmSignature, key: KeyObject, data: Uint8Array): boolean {
  try {
    switch (signature.alg) {
      case 'ecdsa': {
        const curve = OPENSSL_CURVES.get(key.asymmetricKeyDetails?.namedCurve);
        if (curve === undefined) return false;
        return verify(signature.hash, data, { key, dsaEncoding: 'ieee-p1363' }, ecdsaBytes(signature, curve));
      }
      case 'rsassa':
        return key.asymmetricKeyType === 'rsa' && verify(signature.hash, data, key, signature.signature);
      case 'rsapss':
        return key.asymmetricKeyType === 'rsa' && verify(signature.hash, data, { key, ...PSS }, signature.signature);
    }
  } catch {
    return false;
  }
}

/** TPMs differ in the salt's length: as long as the hash, or as long as there is room (TPM 2.0 Part 1 §B.7). */
const PSS = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO };
