import { NO_RESPONSE, TpmError } from './error.ts';

/** Rounds that an answer in parts may take; a TPM that wants more is not well. */
export const MOST_ROUNDS = 128;

export function endless(what: string): TpmError {
  return new TpmError(NO_RESPONSE, `the TPM does not come to an end with ${what}`);
}
