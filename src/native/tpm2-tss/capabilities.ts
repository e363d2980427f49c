/** TPM_CAP: what a TPM can be asked about itself (TPM 2.0 Part 2 §6.12). */
export const TPM_CAP = { ALGS: 0, HANDLES: 1, TPM_PROPERTIES: 6, ECC_CURVES: 8 } as const;
