/**
 * What the binding of tpm2-tss offers: one ESAPI context, and the commands that Attested needs. Structures cross this border
 * as TPM wire bytes (TPM 2.0 Part 2), without a TPM2B size prefix unless the name says so; handles of the TPM's objects are
 * ESYS_TR numbers and mean nothing outside their context.
 *
 * A context is not thread safe: its methods queue, one command at a time, in the order of the calls.
 */

/** An ESYS_TR: an object of the context. */
export type EsysHandle = number;

/** How an object's authorization is given: an auth value, or a session that a policy was run in. Default: an empty auth value. */
export interface ObjectAuth {
  authValue?: Uint8Array;
  session?: EsysHandle;
}

export interface CreatedObject {
  /** TPM2B_PRIVATE, with its size prefix: the key, wrapped by its parent. */
  private: Uint8Array;
  /** TPM2B_PUBLIC, with its size prefix. */
  public: Uint8Array;
}

export interface Attestation {
  /** TPMS_ATTEST, as it was signed. */
  attest: Uint8Array;
  /** TPMT_SIGNATURE. */
  signature: Uint8Array;
}

/** A PCR bank by its TPM_ALG_ID, and the PCRs of it. */
export interface PcrBank {
  hash: number;
  pcrs: readonly number[];
}

export type Hierarchy = 'owner' | 'endorsement' | 'null';

export interface SessionOptions {
  type: 'hmac' | 'policy' | 'trial';
  /** TPM_ALG_ID of the session's hash. Default SHA-256. */
  hash?: number;
  /** A key to which the session's salt is encrypted, against bus sniffing. */
  saltKey?: EsysHandle;
  /** Encrypts the first parameter in both directions (AES-128-CFB). Needs `saltKey` to hide anything from the bus. */
  encrypt?: boolean;
  /** Keep the session after a command. Default true. */
  continueSession?: boolean;
}

/**
 * @throws TpmError from every method: `code` is the TPM's or the TSS's response code, 0xffffffff where the command did not
 *   get as far as the library
 */
export interface Esys {
  /** TPM2_CreatePrimary with a TPMT_PUBLIC template. */
  createPrimary(hierarchy: Hierarchy, template: Uint8Array): Promise<{ handle: EsysHandle; public: Uint8Array }>;
  /** TPM2_Create: a child of `parent`, from a TPMT_PUBLIC template; `data` for a sealed object. */
  create(
    parent: EsysHandle,
    template: Uint8Array,
    options?: { authValue?: Uint8Array; data?: Uint8Array; parentAuth?: ObjectAuth; encryptWith?: EsysHandle },
  ): Promise<CreatedObject>;
  load(parent: EsysHandle, object: CreatedObject, options?: { parentAuth?: ObjectAuth }): Promise<EsysHandle>;
  /** TPMT_PUBLIC and the object's Name, as the TPM reads them now. */
  readPublic(object: EsysHandle): Promise<{ public: Uint8Array; name: Uint8Array }>;
  /** An ESYS_TR for a persistent handle, an NV index or another TPM_HANDLE. */
  fromTpmHandle(tpmHandle: number): Promise<EsysHandle>;
  /** Frees the ESYS_TR of a persistent object; the object stays. */
  closeHandle(object: EsysHandle): Promise<void>;
  flush(object: EsysHandle): Promise<void>;
  /** TPM2_Sign of an outside digest with the key's own scheme, or with the TPMT_SIG_SCHEME given; gives a TPMT_SIGNATURE. */
  sign(
    key: EsysHandle,
    digest: Uint8Array,
    options?: { scheme?: Uint8Array; auth?: ObjectAuth; encryptWith?: EsysHandle },
  ): Promise<Uint8Array>;
  unseal(object: EsysHandle, options?: { auth?: ObjectAuth; encryptWith?: EsysHandle }): Promise<Uint8Array>;
  certify(
    object: EsysHandle,
    ak: EsysHandle,
    qualifyingData: Uint8Array,
    options?: { objectAuth?: ObjectAuth; akAuth?: ObjectAuth },
  ): Promise<Attestation>;
  quote(
    ak: EsysHandle,
    qualifyingData: Uint8Array,
    selection: readonly PcrBank[],
    options?: { akAuth?: ObjectAuth },
  ): Promise<Attestation>;
  /** TPM2_ActivateCredential; `credentialBlob` is the TPM2B_ID_OBJECT's and `secret` the TPM2B_ENCRYPTED_SECRET's content. */
  activateCredential(
    object: EsysHandle,
    key: EsysHandle,
    credentialBlob: Uint8Array,
    secret: Uint8Array,
    options?: { objectAuth?: ObjectAuth; keyAuth?: ObjectAuth },
  ): Promise<Uint8Array>;
  /** TPM2_MakeCredential, which a TPM also does without a secret of its own; ours is in `src/tpm2`. For tests. */
  makeCredential(
    key: EsysHandle,
    credential: Uint8Array,
    objectName: Uint8Array,
  ): Promise<{ credentialBlob: Uint8Array; secret: Uint8Array }>;
  startSession(options: SessionOptions): Promise<EsysHandle>;
  /** TPM2_PolicySecret with the endorsement or owner hierarchy's (empty) auth. */
  policySecret(session: EsysHandle, hierarchy: Exclude<Hierarchy, 'null'>): Promise<void>;
  policyPcr(session: EsysHandle, selection: readonly PcrBank[]): Promise<void>;
  /** TPM2_PolicyAuthValue: the object's auth value is needed besides; give it with the session. */
  policyAuthValue(session: EsysHandle): Promise<void>;
  policyOr(session: EsysHandle, digests: readonly Uint8Array[]): Promise<void>;
  policyGetDigest(session: EsysHandle): Promise<Uint8Array>;
  /**
   * PCR values by bank and number, all of one moment; asks as often as the TPM needs to give them all. A bank that the TPM
   * does not have is empty.
   */
  pcrRead(selection: readonly PcrBank[]): Promise<{ hash: number; values: Map<number, Uint8Array> }[]>;
  /**
   * The whole content of an NV index that the owner's empty auth or its own may read; undefined where there is no such index
   * or nothing was written to it. Never tries an auth value that the lock-out counts.
   */
  nvRead(index: number): Promise<Uint8Array | undefined>;
  /**
   * One TPM capability (TPM_CAP), up to `count` of its elements from `property` on, however many pages that takes.
   * `property` is what the list is ordered by: an algorithm, handle, command code, bank, property or curve. `value` is what
   * it has: TPMA_ALGORITHM, TPMA_CC, a property's value, a bank's PCRs as a bit mask; where there is nothing, the same number.
   */
  getCapability(capability: number, property: number, count: number): Promise<{ property: number; value: number }[]>;
  getRandom(bytes: number): Promise<Uint8Array>;
  /** TPM2_Shutdown(STATE or CLEAR). Not through a resource manager. */
  shutdown(type: 'state' | 'clear'): Promise<void>;
  /**
   * Ends the context, after the commands that were called before; a dead TPM fails those at once, but one that hangs keeps
   * them, this and the end of the process waiting, so that a TPM one does not trust to answer belongs in a process of its
   * own. Everything transient that the context loaded and that was not flushed stays in the TPM.
   */
  close(): Promise<void>;
}

/** @throws TpmError also where tpm2-tss or its TCTI is not there; `message` then says what to install */
export type OpenEsys = (tcti: string) => Promise<Esys>;
