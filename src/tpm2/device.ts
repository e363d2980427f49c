/** What a TPM can say about itself and the keys in it: the raw material of `tpm` evidence. All structures are wire bytes. */

/** A PCR bank by name, as JSON and policies have it. */
export type PcrBankName = 'sha1' | 'sha256' | 'sha384' | 'sha512';

/** Bank → PCR number → value. */
export type PcrValues = Partial<Record<PcrBankName, Record<number, Uint8Array>>>;

/** Bank → PCR numbers. */
export type PcrSelection = Partial<Record<PcrBankName, readonly number[]>>;

export interface EndorsementKey {
  /** TPMT_PUBLIC, as the TPM makes it from the EK template. */
  publicArea: Uint8Array;
  /** DER from NV, where the TPM has one that fits this key; without the padding. */
  certificate: Uint8Array | undefined;
  /** DER, from NV 0x01C00100 on: what the maker put beside it. */
  chain: readonly Uint8Array[];
}

/** TPMS_ATTEST and the TPMT_SIGNATURE over it. */
export interface SignedAttest {
  attest: Uint8Array;
  signature: Uint8Array;
}

/**
 * The TPM behind a key provider. Its attestation key (AK) is restricted, made once for the provider's directory and kept as
 * a wrapped blob; it signs only structures that the TPM itself makes.
 *
 * @throws AttestedError `key_store_unavailable` from every method while the TPM gives no answer, `key_not_found`
 */
export interface TpmDevice {
  /** The EK to be activated with: one that has a certificate, where there is one. */
  endorsementKey(): Promise<EndorsementKey>;
  /** The AK's TPMT_PUBLIC. */
  attestationKey(): Promise<Uint8Array>;
  /** TPM2_Certify of the key of this label by the AK. `publicArea` is that key's TPMT_PUBLIC. */
  certify(label: string, extraData: Uint8Array): Promise<SignedAttest & { publicArea: Uint8Array }>;
  /** TPM2_Quote by the AK, with the values that it was made over. */
  quote(selection: PcrSelection, extraData: Uint8Array): Promise<SignedAttest & { pcrs: PcrValues }>;
  /** The firmware's TCG event log; undefined where the operating system shows none. */
  eventLog(): Promise<Uint8Array | undefined>;
  /** TPM2_ActivateCredential: the secret, if it was made for this EK and AK. Arguments are the TPM2Bs' contents. */
  activate(credentialBlob: Uint8Array, encryptedSecret: Uint8Array): Promise<Uint8Array>;
}
