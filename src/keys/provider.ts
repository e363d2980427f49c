/** What every key backend is. One contract suite (`test/contract/key-provider.ts`) runs against all of them. */
import type { SignatureAlgorithm } from '../core/algorithms.ts';
import type { Signer } from '../core/signer.ts';
import type { KeyStorage } from '../core/storage.ts';

export interface KeyInfo {
  label: string;
  alg: SignatureAlgorithm;
  /** RFC 7638 SHA-256 thumbprint, base64url. */
  thumbprint: string;
}

export interface KeyProvider {
  readonly kind: 'software' | 'keychain' | 'tpm';
  /** What may honestly be said of where the keys live. */
  readonly assurance: KeyStorage;
  /** One sentence for people: why this backend was chosen and what it protects against. */
  readonly why: string;
  /** Where the provider keeps its state. Absent: keys live in memory and end with the process. */
  readonly directory?: string;

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
