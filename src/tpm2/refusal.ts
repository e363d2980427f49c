/** Refusals of the TPM checks, by the number that each check has in the order of verification. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { type PublicJwk, readPublicJwk } from '../core/jwk.ts';
import { AttestedError } from '../errors.ts';

/**
 * 1 strict parse, 2 endorsement key, 3 attestation key, 4 attest structure and its signature, 5 extra data, 6 Name, 7 subject
 * key, 8 PCRs, 9 same signer as before.
 */
export type Check = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;

export const ruleOf = (check: Check): string => `TPM attestation ${check}`;

export function refused(check: Check, why: string): AttestedError {
  return new AttestedError('tpm_refused', why, { rule: ruleOf(check) });
}

/** Refuses unless every row is true; the first that is not gives the reason. */
export function requireAll(check: Check, rows: readonly (readonly [holds: boolean, why: string])[]): void {
  for (const [holds, why] of rows) if (!holds) throw refused(check, why);
}

/**
 * A public key that is good enough to be believed: on its curve, RSA of 2048 to 8192 bits and not of the ROCA structure.
 * @throws AttestedError `tpm_refused`
 */
export function soundKey(value: unknown, check: Check): { jwk: PublicJwk; key: KeyObject } {
  if (value === undefined) throw refused(check, 'there is no public key');
  const jwk = readPublicJwk(value, 'tpm_refused', ruleOf(check));
  try {
    return { jwk, key: createPublicKey({ key: { ...jwk }, format: 'jwk' }) };
  } catch {
    throw refused(check, 'the key is not a valid public key'); // without the cause: it may quote the key
  }
}
