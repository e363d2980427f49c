/** TPMA_OBJECT: what may be done with a key (TPM 2.0 Part 2 §8.3). */

export type AttributeName =
  | 'fixedTPM'
  | 'stClear'
  | 'fixedParent'
  | 'sensitiveDataOrigin'
  | 'userWithAuth'
  | 'adminWithPolicy'
  | 'firmwareLimited'
  | 'svnLimited'
  | 'noDA'
  | 'encryptedDuplication'
  | 'restricted'
  | 'decrypt'
  | 'sign'
  | 'x509sign';

/** Each flag by its bit. `firmwareLimited` and `svnLimited` came with version 1.83, `x509sign` with 1.59. */
export const attributeBits: Readonly<Record<AttributeName, number>> = {
  fixedTPM: 1 << 1,
  stClear: 1 << 2,
  fixedParent: 1 << 4,
  sensitiveDataOrigin: 1 << 5,
  userWithAuth: 1 << 6,
  adminWithPolicy: 1 << 7,
  firmwareLimited: 1 << 8,
  svnLimited: 1 << 9,
  noDA: 1 << 10,
  encryptedDuplication: 1 << 11,
  restricted: 1 << 16,
  decrypt: 1 << 17,
  sign: 1 << 18,
  x509sign: 1 << 19,
};

/** The flags, and the number that they were read from. */
export type TpmAttributes = Readonly<Record<AttributeName, boolean>> & { readonly raw: number };

const names = Object.keys(attributeBits) as AttributeName[];
const known: number = names.reduce((bits, name) => bits | attributeBits[name], 0);

/**
 * The flags of a TPMA_OBJECT. Undefined when a reserved bit is set: those shall be zero, a TPM refuses them
 * (TPM_RC_RESERVED_BITS), and what they will mean one day cannot be judged today.
 */
export function readAttributes(raw: number): TpmAttributes | undefined {
  if ((raw & ~known) !== 0) return undefined;
  const flags = Object.fromEntries(names.map((name) => [name, (raw & attributeBits[name]) !== 0]));
  return { ...(flags as Record<AttributeName, boolean>), raw };
}

/** The number for a set of flags. */
export function attributesOf(...set: readonly AttributeName[]): number {
  return set.reduce((bits, name) => bits | attributeBits[name], 0);
}
