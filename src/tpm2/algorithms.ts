/** TPM_ALG_ID and TPM_ECC_CURVE (TPM 2.0 Part 2 §6.3, §6.4) by the names used here, as tables in both directions. */
import { createHash } from 'node:crypto';

/** Hashes by the names of `node:crypto`, of PCR banks and of policies. */
export type HashName = 'sha1' | 'sha256' | 'sha384' | 'sha512';

export interface HashRow {
  name: HashName;
  id: number;
  /** Length of a digest. */
  bytes: number;
}

export const hashes: Readonly<Record<HashName, HashRow>> = {
  sha1: { name: 'sha1', id: 0x0004, bytes: 20 },
  sha256: { name: 'sha256', id: 0x000b, bytes: 32 },
  sha384: { name: 'sha384', id: 0x000c, bytes: 48 },
  sha512: { name: 'sha512', id: 0x000d, bytes: 64 },
};

export type CurveName = 'P-256' | 'P-384' | 'P-521';

export interface CurveRow {
  name: CurveName;
  id: number;
  /** Length of a coordinate, and of r and s. */
  bytes: number;
  /** OpenSSL's name. */
  openssl: string;
}

export const curves: Readonly<Record<CurveName, CurveRow>> = {
  'P-256': { name: 'P-256', id: 0x0003, bytes: 32, openssl: 'prime256v1' },
  'P-384': { name: 'P-384', id: 0x0004, bytes: 48, openssl: 'secp384r1' },
  'P-521': { name: 'P-521', id: 0x0005, bytes: 66, openssl: 'secp521r1' },
};

/** TPM_ALG_NULL: no scheme, no symmetric algorithm. */
export const ALG_NULL = 0x0010;

export type ObjectType = 'rsa' | 'keyedhash' | 'ecc' | 'symcipher';
export const objectTypes: Readonly<Record<ObjectType, number>> = {
  rsa: 0x0001,
  keyedhash: 0x0008,
  ecc: 0x0023,
  symcipher: 0x0025,
};

/** Signature schemes that are verified here. */
export type SignatureScheme = 'rsassa' | 'rsapss' | 'ecdsa';
export const signatureSchemes: Readonly<Record<SignatureScheme, number>> = {
  rsassa: 0x0014,
  rsapss: 0x0016,
  ecdsa: 0x0018,
};

export type SchemeName =
  | SignatureScheme
  | 'hmac'
  | 'xor'
  | 'rsaes'
  | 'oaep'
  | 'ecdh'
  | 'ecdaa'
  | 'sm2'
  | 'ecschnorr'
  | 'ecmqv';
export const schemes: Readonly<Record<SchemeName, number>> = {
  ...signatureSchemes,
  hmac: 0x0005,
  xor: 0x000a,
  rsaes: 0x0015,
  oaep: 0x0017,
  ecdh: 0x0019,
  ecdaa: 0x001a,
  sm2: 0x001b,
  ecschnorr: 0x001c,
  ecmqv: 0x001d,
};

export type KdfName = 'mgf1' | 'kdf1_sp800_56a' | 'kdf2' | 'kdf1_sp800_108';
export const kdfs: Readonly<Record<KdfName, number>> = {
  mgf1: 0x0007,
  kdf1_sp800_56a: 0x0020,
  kdf2: 0x0021,
  kdf1_sp800_108: 0x0022,
};

/** Block ciphers; only AES is used here. */
export type CipherName = 'aes';
export const ciphers: Readonly<Record<CipherName, number>> = { aes: 0x0006 };

/** Modes of a block cipher; `null` is the mode of a cipher key that leaves it open. */
export type ModeName = 'null' | 'ctr' | 'ofb' | 'cbc' | 'cfb' | 'ecb';
export const modes: Readonly<Record<ModeName, number>> = {
  null: ALG_NULL,
  ctr: 0x0040,
  ofb: 0x0041,
  cbc: 0x0042,
  cfb: 0x0043,
  ecb: 0x0044,
};

/** A table from names to ids, read the other way. */
export function byId<Name extends string>(table: Readonly<Record<Name, number>>): ReadonlyMap<number, Name> {
  return new Map((Object.keys(table) as Name[]).map((name) => [table[name], name]));
}

export const hashesById: ReadonlyMap<number, HashRow> = new Map(Object.values(hashes).map((row) => [row.id, row]));
export const curvesById: ReadonlyMap<number, CurveRow> = new Map(Object.values(curves).map((row) => [row.id, row]));

/** The longest digest in the table. */
export const MAX_DIGEST = 64;
/** The longest Name: an algorithm id and a digest. */
export const MAX_NAME: number = 2 + MAX_DIGEST;

/** Digest of parts, one after the other. */
export function digest(hash: HashName, ...parts: readonly Uint8Array[]): Uint8Array {
  const state = createHash(hash);
  for (const part of parts) state.update(part);
  return new Uint8Array(state.digest());
}
