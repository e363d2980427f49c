/** `attested/tpm2`: TPM 2.0 structures and the checks on them, as pure functions. */
export type { CipherName, CurveName, HashName, KdfName, ModeName, SchemeName, SignatureScheme } from './algorithms.ts';
export {
  type Attested,
  type AttestOf,
  type AttestType,
  type ClockInfo,
  parseAttest,
  type TpmAttest,
} from './attest.ts';
export type { AttestationKeyInput, AttestationKeyJwk } from './attestation-key.ts';
export { type AttributeName, attributeBits, attributesOf, type TpmAttributes } from './attributes.ts';
export type { EndorsementKey, PcrBankName, PcrSelection, PcrValues, SignedAttest, TpmDevice } from './device.ts';
export {
  type EkCertificate,
  type EkCertificateOptions,
  readEkCertificate,
  type VerifiedEkCertificate,
  verifyEkCertificate,
} from './ek-certificate.ts';
export { ekHash } from './ek-hash.ts';
export type { EkSubject } from './ek-names.ts';
export { type EkQuirk, ekQuirks } from './ek-quirks.ts';
export { encodePublic } from './encode-public.ts';
export { type EventLog, parseEventLog, type SpecId, type TcgEvent } from './event-log.ts';
export { type EventLogMatch, eventLogMatches, type MeasuredEvent, replayEventLog } from './event-log-replay.ts';
export { type Credential, type CredentialInput, makeCredential } from './make-credential.ts';
export { encodePcrSelection, type PcrSelectionList, type SelectedBank } from './pcr-selection.ts';
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
export { describeTpmCode, type TpmCode, type TpmCodeLayer } from './response-codes.ts';
export {
  type EcdsaSignature,
  jwsSignature,
  parseSignature,
  type RsaSignature,
  type TpmSignature,
} from './signature.ts';
export type { SignedAttestInput, VerifiedAttest } from './signed-attest.ts';
export {
  akTemplate,
  type EkKind,
  ekCertificateIndexes,
  ekTemplate,
  type InstanceKeyAlgorithm,
  instanceKeyTemplate,
  isStandardSrk,
  type SrkKind,
  sealTemplate,
  srkTemplate,
  type TemplateOptions,
} from './templates.ts';
export { type CertifyInput, type VerifiedCertify, verifyCertify } from './verify-certify.ts';
export { type QuoteInput, type VerifiedQuote, verifyQuote } from './verify-quote.ts';
