/** A command that the TPM or the TSS refused. Internal: the key provider turns it into an AttestedError. */
export class TpmError extends Error {
  /** TPM_RC or TSS2_RC as the library gave it; {@link NO_RESPONSE} where no library was reached. */
  readonly code: number;

  constructor(code: number, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'TpmError';
    this.code = code;
  }
}

/** No response code: the library is missing, or an argument was refused before it got there. */
export const NO_RESPONSE = 0xffffffff;
