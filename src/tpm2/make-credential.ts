/** TPM2_MakeCredential in software: a secret that only one TPM can open, and only for one key (TPM 2.0 Part 1 §24). */
import {
  constants,
  createCipheriv,
  createHmac,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import { decodeBase64url } from '../core/bytes.ts';
import type { EcJwk, PublicJwk } from '../core/jwk.ts';
import { type CurveName, curves, type HashName, hashes, hashesById } from './algorithms.ts';
import { kdfa, kdfe } from './kdf.ts';
import { parsePublic } from './public.ts';
import type { TpmPublic, TpmSymmetric } from './public-area.ts';
import { refused, requireAll, soundKey } from './refusal.ts';
import { concat, malformed, Reader, sized } from './wire.ts';

export interface CredentialInput {
  /** TPMT_PUBLIC of the endorsement key. */
  ek: Uint8Array;
  /** Name of the key that the secret is for, as the caller computed it from that key's public area (`parsePublic`). */
  name: Uint8Array;
  /** 1 byte up to a digest of the EK's name algorithm (32 or 48 bytes). */
  secret: Uint8Array;
}

/** Both without their own size prefix, as TPM2_ActivateCredential of our binding takes them. */
export interface Credential {
  /** Content of TPM2B_ID_OBJECT. */
  credentialBlob: Uint8Array;
  /** Content of TPM2B_ENCRYPTED_SECRET. */
  encryptedSecret: Uint8Array;
}

/**
 * Encrypts a secret so that only the TPM with this endorsement key gives it back, and only while a key of this Name is
 * loaded in the same TPM: whoever answers with the secret has both. RSA-2048 and larger, P-256 and P-384, with AES-CFB.
 *
 * Left to the caller: that the EK is certified by a maker it trusts and its key is the certificate's; that the Name is of a
 * key it has judged, not one it was told; that the secret is random and good for one answer.
 *
 * @throws AttestedError `tpm_malformed`; `tpm_refused` (`TPM attestation 2` for a key that is no endorsement key)
 */
export function makeCredential({ ek, name, secret }: CredentialInput): Credential {
  const area = parsePublic(ek);
  const { nameAlg } = area;
  const { key, jwk, symmetric } = endorsementKey(area);
  readName(name);
  if (!(secret instanceof Uint8Array) || secret.length === 0 || secret.length > hashes[nameAlg].bytes) {
    throw malformed('a credential', "longer than a digest of the EK's name algorithm, or empty");
  }
  const { seed, encryptedSecret } = shareSeed(nameAlg, key, jwk);
  const { keyBits } = symmetric;
  const cipherKey = kdfa(nameAlg, seed, 'STORAGE', name, keyBits);
  const cipher = createCipheriv(`aes-${keyBits}-cfb`, cipherKey, new Uint8Array(16));
  const identity = concat(cipher.update(sized(secret)), cipher.final());
  const macKey = kdfa(nameAlg, seed, 'INTEGRITY', new Uint8Array(0), hashes[nameAlg].bytes * 8);
  const integrity = createHmac(nameAlg, macKey).update(identity).update(name).digest();
  return { credentialBlob: concat(sized(integrity), identity), encryptedSecret };
}

/** The parts of check 2 that the public area itself shows. */
function endorsementKey(area: TpmPublic): { key: KeyObject; jwk: PublicJwk; symmetric: TpmSymmetric } {
  const { attributes, symmetric, publicJwk, nameAlg } = area;
  requireAll(2, [
    [attributes.restricted && attributes.decrypt && !attributes.sign, 'no storage key, as an endorsement key is one'],
    [attributes.fixedTPM && attributes.fixedParent, 'the endorsement key may leave its TPM'],
    [attributes.sensitiveDataOrigin, 'the endorsement key was not made in the TPM'],
    [nameAlg !== 'sha1', 'the endorsement key is named by SHA-1'],
    [
      publicJwk?.kty === 'RSA' || (publicJwk as EcJwk | undefined)?.crv !== 'P-521',
      'none of the curves P-256 and P-384',
    ],
  ]);
  if (symmetric === null || symmetric.mode !== 'cfb')
    throw refused(2, 'the endorsement key has no cipher for what it protects');
  return { ...soundKey(publicJwk, 2), symmetric };
}

/** A Name, not a handle and not cut: algorithm, then a digest of its length. */
function readName(name: Uint8Array): void {
  const reader = new Reader(name, 'a Name');
  reader.take(reader.id(hashesById, 'the algorithm').bytes);
  reader.end();
}

/** A seed that the EK's holder can recover from `encryptedSecret` (Part 1 §B.10.4 and §C.6.4; the label is IDENTITY). */
function shareSeed(
  nameAlg: HashName,
  key: KeyObject,
  jwk: PublicJwk,
): { seed: Uint8Array; encryptedSecret: Uint8Array } {
  const { bytes } = hashes[nameAlg];
  if (jwk.kty === 'EC') return shareByEcdh(nameAlg, key, jwk, bytes * 8);
  const seed = new Uint8Array(randomBytes(bytes));
  const padding = constants.RSA_PKCS1_OAEP_PADDING;
  const encrypted = publicEncrypt({ key, padding, oaepHash: nameAlg, oaepLabel: Buffer.from('IDENTITY\0') }, seed);
  return { seed, encryptedSecret: new Uint8Array(encrypted) };
}

function shareByEcdh(nameAlg: HashName, publicKey: KeyObject, jwk: EcJwk, bits: number): ReturnType<typeof shareSeed> {
  const ephemeral = generateKeyPairSync('ec', { namedCurve: curves[jwk.crv as CurveName].openssl });
  const own = coordinatesOf(ephemeral.publicKey.export({ format: 'jwk' }) as EcJwk);
  const z = diffieHellman({ privateKey: ephemeral.privateKey, publicKey });
  const seed = kdfe(nameAlg, z, 'IDENTITY', own.x, coordinatesOf(jwk).x, bits);
  return { seed, encryptedSecret: concat(sized(own.x), sized(own.y)) };
}

function coordinatesOf({ x, y }: EcJwk): { x: Uint8Array; y: Uint8Array } {
  return { x: decodeBase64url(x) as Uint8Array, y: decodeBase64url(y) as Uint8Array };
}
