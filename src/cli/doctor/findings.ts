/** What may be wrong, as one table. The number is the exit code; the worst finding, which is the first one here, decides. */

const table = {
  node_unsupported: [10, 'this version of Node is older than the package supports'],
  clock_wrong: [11, 'the clock is behind files that were written here: attestations and proofs will be refused'],
  directory_unusable: [12, 'the directory for keys cannot be used'],
  store_damaged: [13, 'the keys of the directory are damaged, or belong to another machine'],
  identity_unreachable: [14, 'the keys of the directory are in a place that cannot be used now'],
  keychain_locked: [15, 'the keychain that is to be used is locked'],
  no_place: [16, 'there is no place for keys at all'],
  tpm_no_permission: [20, 'there is a TPM, and this user may not use it'],
  tpm_no_library: [21, 'there is a TPM, and tpm2-tss is not installed'],
  tpm_no_answer: [22, 'a TPM is there or was named, and does not answer, or cannot do what is needed'],
  tpm_locked_out: [23, 'the TPM is locked out after wrong auth values'],
  tpm_owner_password: [24, 'the owner hierarchy has a password, and there is no persistent storage key'],
  tpm_full: [25, 'other programs fill all slots of the TPM'],
  ek_certificate_bad: [26, 'an endorsement certificate is expired, or cannot be read'],
  ek_certificate_missing: [27, 'the TPM has no endorsement certificate: attesters cannot tell whose it is'],
  files_only: [30, 'keys are kept in files: neither a TPM nor a keychain can be used'],
  not_hardware: [31, 'keys are kept in the keychain: no TPM can be used'],
} as const;

export type FindingCode = keyof typeof table;

export interface Finding {
  code: FindingCode;
  /** The exit code where this finding is the worst. */
  exit: number;
  message: string;
  /** What to do about it. */
  remedy?: string;
}

export function finding(code: FindingCode, message: string = table[code][1], remedy?: string): Finding {
  return { code, exit: table[code][0], message, ...(remedy !== undefined && { remedy }) };
}

/** From the worst on. */
export function sortFindings(findings: readonly Finding[]): Finding[] {
  return [...findings].sort((a, b) => a.exit - b.exit);
}

export function exitCodeOf(findings: readonly Finding[]): number {
  return sortFindings(findings)[0]?.exit ?? 0;
}

/** Lines of help. */
export function findingRows(): { exit: number; code: string; meaning: string }[] {
  return Object.entries(table).map(([code, [exit, meaning]]) => ({ exit, code, meaning }));
}
