/** `attested/tpm2`: TPM 2.0 structures and the checks on them, as pure functions. */
export type { EndorsementKey, PcrBankName, PcrSelection, PcrValues, SignedAttest, TpmDevice } from './device.ts';
