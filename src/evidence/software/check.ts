/** Attester side of `software` evidence. */
import { keyFits } from '../../core/algorithms.ts';
import type { JsonObject } from '../../core/json.ts';
import type { KeyStorage } from '../../core/storage.ts';
import { importPublicKey, thumbprintOf, verifySignature } from '../../platform/crypto.ts';
import type { CheckedEvidence, EvidenceContext } from '../protocol.ts';
import { type KeyProof, type ProofRole, parseKeyProof, proofRefusal, readSoftwareEvidence } from './wire.ts';

const CLOCK_TOLERANCE = 60;
const MAX_AGE = 300;

/** What an agent may say of its storage on its own word. Hardware is missing: that takes evidence. */
const SELF_ASSERTED: ReadonlySet<string> = new Set<KeyStorage>(['software', 'keychain']);

/**
 * Checks `software` evidence: both proofs are for this attester, client and challenge, are fresh, name each other's key,
 * and each is signed by the key it carries. What they show is possession; storage stays the agent's own word.
 *
 * The caller has to take the challenge out of its store first: here it is only compared.
 *
 * @throws AttestedError `invalid_request` for a malformed evidence object, `invalid_client_attestation` for a failed proof
 */
export function checkSoftware(evidence: JsonObject, context: EvidenceContext): CheckedEvidence {
  const { enrolment_proof, key_proof } = readSoftwareEvidence(evidence);
  const enrolment = parseKeyProof(enrolment_proof);
  const instance = parseKeyProof(key_proof);
  checkClaims(enrolment, 'enrolment', context);
  checkClaims(instance, 'instance', context);
  const enrolmentThumbprint = thumbprintOf(enrolment.key);
  const instanceThumbprint = thumbprintOf(instance.key);
  if (enrolmentThumbprint === instanceThumbprint) throw proofRefusal('is by one key where two are needed');
  if (enrolment.otherThumbprint !== instanceThumbprint || instance.otherThumbprint !== enrolmentThumbprint) {
    throw proofRefusal('does not belong to the other proof of this request');
  }
  const { storage = 'software' } = enrolment;
  if (!SELF_ASSERTED.has(storage) || instance.storage !== undefined) {
    throw proofRefusal('claims a key storage that software evidence cannot claim');
  }
  checkSignature(enrolment);
  checkSignature(instance);
  return {
    enrolmentThumbprint,
    instanceKey: instance.key,
    instanceThumbprint,
    storage: storage as KeyStorage,
    evidence: 'self-asserted',
  };
}

function checkClaims(proof: KeyProof, role: ProofRole, context: EvidenceContext): void {
  const { attester, clientId, challenge, now, clockTolerance = CLOCK_TOLERANCE, maxAge = MAX_AGE } = context;
  if (proof.role !== role) throw proofRefusal('is by the key of another role');
  if (proof.audience !== attester) throw proofRefusal('is for another attester (aud)');
  if (proof.clientId !== clientId) throw proofRefusal('is for another client (sub)');
  if (proof.challenge !== challenge) throw proofRefusal('answers another challenge');
  const seconds = now() / 1000;
  if (proof.iat - clockTolerance > seconds) throw proofRefusal('was issued in the future');
  if (seconds - proof.iat > maxAge + clockTolerance) throw proofRefusal('is too old');
}

function checkSignature(proof: KeyProof): void {
  const { header, key, signingInput, signature } = proof;
  if (!keyFits(header.alg, key)) throw proofRefusal('has an alg that does not fit its key');
  if (!verifySignature(header.alg, importPublicKey(key), signingInput, signature)) {
    throw proofRefusal('has a signature that does not verify');
  }
}
