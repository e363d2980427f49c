/** Attester side of `software` evidence. */
import type { JsonObject } from '../../core/json.ts';
import type { KeyStorage } from '../../core/storage.ts';
import { AttestedError } from '../../errors.ts';
import { checkKeyProofs } from '../key-proof/check.ts';
import { proofRefusal } from '../key-proof/wire.ts';
import type { CheckedEvidence, EvidenceContext } from '../protocol.ts';

/** What an agent may say of its storage on its own word. Hardware is missing: that takes evidence. */
const SELF_ASSERTED: ReadonlySet<string> = new Set<KeyStorage>(['software', 'keychain']);

/**
 * Checks `software` evidence. What the two proofs show is possession; storage stays the agent's own word.
 *
 * @throws AttestedError `invalid_request` for a malformed evidence object, `invalid_client_attestation` for a failed proof
 */
export function checkSoftware(evidence: JsonObject, context: EvidenceContext): CheckedEvidence {
  const { kind, enrolment_proof, key_proof } = evidence;
  if (kind !== 'software' || typeof enrolment_proof !== 'string' || typeof key_proof !== 'string') {
    throw new AttestedError('invalid_request', 'software evidence needs enrolment_proof and key_proof as strings');
  }
  const { enrolment, instance, ...thumbprints } = checkKeyProofs({ enrolment_proof, key_proof }, context);
  const { storage = 'software' } = enrolment;
  if (!SELF_ASSERTED.has(storage)) throw proofRefusal('claims a key storage that software evidence cannot claim');
  return { ...thumbprints, instanceKey: instance.key, storage: storage as KeyStorage, evidence: 'self-asserted' };
}
