/** What `openKeys` can be told. */
import { AttestedError } from '../errors.ts';
import { isLabel } from './labels.ts';
import { assertTpmOptions, type TpmOptions } from './tpm/options.ts';

export interface OpenKeysOptions {
  /**
   * Where the keys are kept. `software` without it keeps keys in memory; `auto` without it takes `$ATTESTED_HOME`, else
   * `$XDG_STATE_HOME/attested`, else `~/.local/state/attested` (macOS: `~/Library/Application Support/attested`, Windows:
   * `%LOCALAPPDATA%\attested`).
   */
  directory?: string;
  /** Encrypts the key files under a passphrase. It protects a stolen disk too, as far as it cannot be guessed. */
  passphrase?: string;
  /**
   * Encrypts the key files under this secret, at least 16 bytes, in place of the machine's own: from a secret manager or a
   * mounted container secret. Not together with `passphrase`.
   */
  machineSecret?: Uint8Array;
  /**
   * Base-2 logarithm of scrypt's cost for a new passphrase store, 14 to 18. Default 17: 128 MiB of memory and about half a
   * second, once per `openKeys`. Lower it only where that memory is not to be had.
   */
  scryptLog2N?: number;
  /** Private keys kept ready in memory; the others are read again when they are used. Default 1024. */
  maxLoadedKeys?: number;
  /**
   * Service under which the keychain keeps the entries. Default `attested`. Entries belong to the user, not to the directory:
   * agents of one user that must not share keys of the same label need services of their own.
   */
  keychainService?: string;
  /**
   * Milliseconds that one call to the keychain may take: a person may be asked for a password meanwhile. Default 60000, at
   * least 100.
   */
  keychainTimeout?: number;
  /**
   * A directory remembers whether its keys are in the TPM, the keychain or files. `refuse` (the default) keeps to that: when
   * it cannot be used, or a weaker one is named, the keys are not opened. `allow` gives that identity up and makes new keys in
   * a weaker place.
   */
  downgrade?: 'refuse' | 'allow';
  /** The TPM, and how its keys are to be protected beyond it. */
  tpm?: TpmOptions;
}

export const SCRYPT_LOG2N = { least: 14, usual: 17, most: 18 } as const;
export const MAX_LOADED_KEYS = 1024;

const NAMES: readonly string[] = [
  'directory',
  'passphrase',
  'machineSecret',
  'scryptLog2N',
  'maxLoadedKeys',
  'keychainService',
  'keychainTimeout',
  'downgrade',
  'tpm',
] satisfies (keyof OpenKeysOptions)[];

/** @throws AttestedError `invalid_argument` for options that are unusable, or that contradict each other */
export function assertOptions(options: OpenKeysOptions): void {
  const refuse = (why: string): never => {
    throw new AttestedError('invalid_argument', why);
  };
  if (typeof options !== 'object' || options === null) refuse('the options of openKeys are an object');
  warnOfUnknown(options);
  const { directory, passphrase, machineSecret, scryptLog2N, maxLoadedKeys, keychainService, keychainTimeout } =
    options;
  if (directory !== undefined && (typeof directory !== 'string' || directory === '' || directory.includes('\0'))) {
    refuse('the directory must be a path');
  }
  if (passphrase !== undefined && (typeof passphrase !== 'string' || passphrase === '')) {
    refuse('the passphrase must not be empty');
  }
  if (machineSecret !== undefined && !(machineSecret instanceof Uint8Array && machineSecret.length >= 16)) {
    refuse('machineSecret must be at least 16 bytes');
  }
  if (passphrase !== undefined && machineSecret !== undefined) refuse('give a passphrase or a machineSecret, not both');
  if (scryptLog2N !== undefined && !isScryptLog2N(scryptLog2N)) refuse('scryptLog2N must be a whole number, 14 to 18');
  if (maxLoadedKeys !== undefined && !(Number.isInteger(maxLoadedKeys) && maxLoadedKeys >= 1)) {
    refuse('maxLoadedKeys must be a whole number, at least 1');
  }
  if (keychainService !== undefined && !isLabel(keychainService)) {
    refuse('keychainService must be 1 to 256 printable ASCII characters');
  }
  if (keychainTimeout !== undefined && !(Number.isInteger(keychainTimeout) && keychainTimeout >= 100)) {
    refuse('keychainTimeout must be a whole number of milliseconds, at least 100');
  }
  if (options.downgrade !== undefined && !['refuse', 'allow'].includes(options.downgrade)) {
    refuse("downgrade must be 'refuse' or 'allow'");
  }
  if (options.tpm !== undefined) assertTpmOptions(options.tpm);
}

/** With a misspelt directory the keys are in memory, and gone with the process: no reason to fail, but one to say so. */
function warnOfUnknown(options: OpenKeysOptions): void {
  if (Object.keys(options).every((name) => NAMES.includes(name))) return;
  process.emitWarning(`openKeys knows the options ${NAMES.join(', ')}, and ignores the others that it was given`, {
    type: 'AttestedWarning',
    code: 'unknown_option',
  });
}

/** Bounded above, because the value is also read from disk: a hostile file must not cost gigabytes. */
export function isScryptLog2N(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= SCRYPT_LOG2N.least && (value as number) <= SCRYPT_LOG2N.most;
}
