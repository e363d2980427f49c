/** Agent side of `software` evidence. */
import { type KeyProofInput, proveKeys } from '../key-proof/prove.ts';

/** Type alias and not an interface, so that it is a JsonObject. */
export type SoftwareEvidence = {
  kind: 'software';
  /** Key proof by the enrolment key, `role` `enrolment`. */
  enrolment_proof: string;
  /** Key proof by the instance key, `role` `instance`. */
  key_proof: string;
};

export interface ProveSoftwareInput extends KeyProofInput {
  /** Where the keys live, on the agent's own word. Default `software`. */
  storage?: 'software' | 'keychain' | undefined;
}

/**
 * Proves possession of both keys for one attestation request.
 *
 * @throws AttestedError `invalid_argument` when the two keys are one, or one of them is not asymmetric
 */
export async function proveSoftware({ storage = 'software', ...input }: ProveSoftwareInput): Promise<SoftwareEvidence> {
  return { kind: 'software', ...(await proveKeys(input, storage)) };
}
