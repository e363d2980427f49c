/** The fields of a TPMT_PUBLIC as types (TPM 2.0 Part 2 §12.2). */
import type { PublicJwk } from '../core/jwk.ts';
import type { CipherName, CurveName, HashName, KdfName, ModeName, SchemeName } from './algorithms.ts';
import type { TpmAttributes } from './attributes.ts';

/** A signing, decryption or key exchange scheme. `hash` is absent for RSAES only; `count` is ECDAA's, `kdf` XOR's. */
export interface TpmScheme {
  name: SchemeName;
  hash?: HashName;
  count?: number;
  kdf?: KdfName;
}

/** TPMT_SYM_DEF_OBJECT. */
export interface TpmSymmetric {
  name: CipherName;
  keyBits: number;
  mode: ModeName;
}

/** TPMT_KDF_SCHEME. */
export interface TpmKdf {
  name: KdfName;
  hash: HashName;
}

interface Common<Attributes> {
  nameAlg: HashName;
  attributes: Attributes;
  /** Digest of `nameAlg`, or empty. */
  authPolicy: Uint8Array;
}

export interface RsaArea {
  type: 'rsa';
  /** What a storage key encrypts its children with; null for every other key. */
  symmetric: TpmSymmetric | null;
  /** Null: chosen by each command. */
  scheme: TpmScheme | null;
  /** `exponent` is the one in force; `wireExponent` is the field as it stands, where 0 means 65537. */
  parameters: { keyBits: number; exponent: number; wireExponent?: number };
  /** The modulus; in a template empty or filling. */
  unique: Uint8Array;
}
export interface EccArea {
  type: 'ecc';
  symmetric: TpmSymmetric | null;
  scheme: TpmScheme | null;
  parameters: { curve: CurveName; kdf: TpmKdf | null };
  /** The point, as the TPM wrote it (leading zeros may be absent); in a template empty or filling. */
  unique: { x: Uint8Array; y: Uint8Array };
}
export interface KeyedHashArea {
  type: 'keyedhash';
  symmetric: null;
  /** HMAC or XOR; null for sealed data. */
  scheme: TpmScheme | null;
  parameters: Record<never, never>;
  unique: Uint8Array;
}
export interface SymCipherArea {
  type: 'symcipher';
  symmetric: TpmSymmetric;
  scheme: null;
  parameters: Record<never, never>;
  unique: Uint8Array;
}

/** The part of a public area that its type decides on. */
export type Area = RsaArea | EccArea | KeyedHashArea | SymCipherArea;

/** What {@link encodePublic} takes: the fields alone. */
export type PublicArea = Common<number | TpmAttributes> & Area;

/** What {@link parsePublic} gives. */
export type TpmPublic = Common<TpmAttributes> &
  Area & {
    /** The public key; absent in a template and for symmetric objects. Left-padded, but not yet checked to be a good key. */
    publicJwk?: PublicJwk;
    /** nameAlg ‖ H(TPMT_PUBLIC): what the TPM calls the key. */
    name: Uint8Array;
    /** The TPMT_PUBLIC itself. */
    bytes: Uint8Array;
  };
