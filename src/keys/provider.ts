/** What every key backend is. One contract suite (`test/contract/key-provider.ts`) runs against all of them. */
import type { SignatureAlgorithm } from '../core/algorithms.ts';
import type { Signer } from '../core/signer.ts';
import type { KeyStorage } from '../core/storage.ts';
import type { TpmDevice } from '../tpm2/device.ts';

export interface KeyInfo {
  label: string;
  alg: SignatureAlgorithm;
  /** RFC 7638 SHA-256 thumbprint, base64url. */
  thumbprint: string;
}

/**
 * Small secrets that must not lie in a plain file, such as refresh tokens: as well protected as the provider's software-side
 * state can be. They are read back as they were written, by any process that opens the same place.
 */
export interface SecretStore {
  /** Undefined when there is none. @throws AttestedError `key_store_*` when it cannot be read */
  get(name: string): Promise<Uint8Array | undefined>;
  /** Keeps a secret of at most 65536 bytes under a name of 1 to 256 printable ASCII characters, in place of an older one. */
  set(name: string, secret: Uint8Array): Promise<void>;
  /** False when there was none. */
  delete(name: string): Promise<boolean>;
}

export interface KeyProvider {
  readonly kind: 'software' | 'keychain' | 'tpm';
  /** What may honestly be said of where the keys live. */
  readonly assurance: KeyStorage;
  /** One sentence for people: why this backend was chosen and what it protects against. */
  readonly why: string;
  /** Where the provider keeps its state. Absent: keys live in memory and end with the process. */
  readonly directory?: string;
  /** The TPM, where the keys are in one: what proves that they are. */
  readonly tpm?: TpmDevice;
  readonly secrets: SecretStore;

  /**
   * The key of this label, made now if there is none: however many callers and processes ask at once, they get one key.
   * Default algorithm ES256.
   *
   * @throws AttestedError `invalid_argument` for a label that is not 1 to 256 printable ASCII characters, for an algorithm
   *   the backend lacks, or when the label already names a key of another algorithm
   */
  createKey(request: { label: string; alg?: SignatureAlgorithm }): Promise<Signer>;

  /** The key of this label; undefined when there is none. @throws AttestedError `key_store_*` when it cannot be read */
  getKey(label: string): Promise<Signer | undefined>;

  /** All keys, by label. */
  listKeys(): Promise<KeyInfo[]>;

  /**
   * Destroys a key; false when there was none. This provider's signers of it fail from then on with `key_not_found`; those
   * that another process holds do so when that process next asks for the label, or closes.
   */
  deleteKey(label: string): Promise<boolean>;

  /** Releases what the provider holds. Its signers and methods fail from then on with `key_store_unavailable`. */
  close(): Promise<void>;
}
