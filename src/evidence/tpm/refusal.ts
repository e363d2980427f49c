/** Refusals of `tpm` evidence: with a code for the wire, and the number of the check for the operator. */
import { AttestedError, type ErrorCode } from '../../errors.ts';
import { type Check, ruleOf } from '../../tpm2/refusal.ts';

export function refuse(code: ErrorCode, check: Check, why: string): AttestedError {
  return new AttestedError(code, `tpm evidence: ${why}`, { rule: ruleOf(check) });
}

/**
 * Runs a check of `src/tpm2` on what an agent sent. Whatever it throws, the evidence is refused: there is no input on which a
 * check may end early and the evidence stand.
 *
 * @param check that is being made, for an error that does not name one
 */
export function judged<T>(check: Check, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    const { rule, message } =
      cause instanceof AttestedError ? cause : { rule: undefined, message: 'it cannot be checked' };
    throw new AttestedError('invalid_client_attestation', `tpm evidence: ${message}`, {
      rule: rule ?? ruleOf(check),
      cause,
    });
  }
}
