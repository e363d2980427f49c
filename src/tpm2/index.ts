/** `attested/tpm2`: TPM 2.0 structures and the checks on them, as pure functions. */

export { isRocaModulus } from '../core/roca.ts';
export type { CurveName, HashName, KdfName, ModeName, SchemeName } from './algorithms.ts';
export { type AttributeName, attributeBits, attributesOf, type TpmAttributes } from './attributes.ts';
export type { EndorsementKey, PcrBankName, PcrSelection, PcrValues, SignedAttest, TpmDevice } from './device.ts';
export { encodePublic } from './encode-public.ts';
export { parsePublic } from './public.ts';
export type {
  EccArea,
  KeyedHashArea,
  PublicArea,
  RsaArea,
  SymCipherArea,
  TpmKdf,
  TpmPublic,
  TpmScheme,
  TpmSymmetric,
} from './public-area.ts';
