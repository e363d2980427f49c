/**
 * What the parent and the helper process say to each other. Structures cross as TPM wire bytes; the helper knows the TPM and
 * nothing of JWKs, labels or files, so that it starts fast and has little to go wrong.
 */
import type { Attestation, CreatedObject, PcrBank } from '../../native/tpm2-tss/types.ts';

/** Which TPM, said once at the start of the helper. */
export interface TpmAddress {
  tcti: string;
  /** A resource manager stands before the TPM: slots are ours alone, and nobody else's objects are to be seen. */
  managed: boolean;
  /** An earlier helper of ours was killed: without a resource manager, what it had loaded still fills the slots. */
  orphans?: boolean;
  /** TPMT_PUBLIC template of the storage parent, for where none is persistent. */
  srkTemplate: Uint8Array;
  /** Beginnings of TPMT_PUBLIC that make a persistent storage parent a standard one: everything before `unique`. */
  srkPrefixes: readonly Uint8Array[];
}

/** A key as its blob has it: all that the helper needs to use it. */
export interface WrappedKey extends CreatedObject {
  /** Name of the parent that wrapped it. */
  parent: Uint8Array;
  authValue?: Uint8Array;
  /** PCRs that its policy was made over. */
  pcrs?: readonly PcrBank[];
  /** Use it in a salted session whose parameters are encrypted. */
  salted?: boolean;
}

/** A wrapped key with a name that stands for all of it; the helper is told the rest the first time only. */
export interface KeyReference extends WrappedKey {
  ref: string;
}

export interface Opened {
  /** The storage parent that new keys get. */
  parent: { name: Uint8Array; persistent: boolean };
  /** TPM_ALG_IDs and TPM_ECC_CURVEs that the TPM has. */
  algorithms: readonly number[];
  curves: readonly number[];
}

export interface CreateRequest {
  template: Uint8Array;
  /** The data of a sealed object. */
  data?: Uint8Array;
  authValue?: Uint8Array;
  salted?: boolean;
}

/** Every request: its arguments, besides the keys that it uses, and what it gives. */
export interface Operations {
  open: { args: []; result: Opened };
  /** Fails with `OTHER_TPM` unless a parent of this Name is in this TPM. */
  findParent: { args: [name: Uint8Array]; result: true };
  create: { args: [CreateRequest]; result: CreatedObject & { parent: Uint8Array } };
  /** The policy digest that binds a key to the values which these PCRs have now, and to its auth value where it has one. */
  pcrPolicy: { args: [pcrs: readonly PcrBank[], withAuthValue: boolean]; result: Uint8Array };
  /** TPMT_SIGNATURE. One key. */
  sign: { args: [digest: Uint8Array]; result: Uint8Array };
  /** One key. */
  unseal: { args: []; result: Uint8Array };
  /** Two keys: the object, the AK. */
  certify: { args: [qualifyingData: Uint8Array]; result: Attestation };
  /** One key, the AK. */
  quote: {
    args: [qualifyingData: Uint8Array, selection: readonly PcrBank[]];
    result: Attestation & { values: { hash: number; pcrs: [number, Uint8Array][] }[] };
  };
  /** TPMT_PUBLIC of an endorsement key. */
  endorsementKey: { args: [template: Uint8Array]; result: Uint8Array };
  /** One key, the AK; `policyOr`: the branches of the EK's policy, where PolicySecret alone is not it. */
  activate: {
    args: [ActivateRequest];
    result: Uint8Array;
  };
  nvRead: { args: [index: number]; result: Uint8Array | undefined };
  /** TPM_CAP, the first property, how many. */
  capability: {
    args: [capability: number, property: number, count: number];
    result: { property: number; value: number }[];
  };
}

export interface ActivateRequest {
  template: Uint8Array;
  /** TPM_ALG_ID of the policy session's hash. */
  hash: number;
  policyOr?: readonly Uint8Array[];
  credentialBlob: Uint8Array;
  secret: Uint8Array;
}

export type Operation = keyof Operations;

/** Milliseconds that the helper may go on trying where the TPM is busy or full; then the arguments; then the keys. */
export type Request = [
  id: number,
  operation: Operation,
  patience: number,
  args: readonly unknown[],
  keys: readonly (string | KeyReference)[],
];
export type Response = [id: number, result: unknown] | [id: number, result: undefined, code: number, message: string];

/** Codes of ours, in the place of a TPM's. */
export const OTHER_TPM = -1;
export const UNKNOWN_KEY = -2;
export const HELPER_FAULT = -3;
export const HELD_BY_ANOTHER = -4;
