/** Attester side of the key proofs. */
import { keyFits } from '../../core/algorithms.ts';
import { importPublicKey, thumbprintOf, verifySignature } from '../../platform/crypto.ts';
import type { EvidenceContext } from '../protocol.ts';
import { type KeyProof, type ProofRole, parseKeyProof, proofRefusal } from './wire.ts';

const CLOCK_TOLERANCE = 60;
const MAX_AGE = 300;

/** What is checked of a proof before its signature: that it is by this role, for this request, and fresh. */
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

export interface CheckedProofs {
  enrolment: KeyProof;
  instance: KeyProof;
  enrolmentThumbprint: string;
  instanceThumbprint: string;
}

/**
 * Checks the two proofs of a request: both are for this attester, client and challenge, are fresh, name each other's key,
 * and each is signed by the key it carries.
 *
 * The caller has to take the challenge out of its store first: here it is only compared.
 *
 * @throws AttestedError `invalid_client_attestation`
 */
export function checkKeyProofs(
  proofs: { enrolment_proof: string; key_proof: string },
  context: EvidenceContext,
): CheckedProofs {
  const enrolment = parseKeyProof(proofs.enrolment_proof);
  const instance = parseKeyProof(proofs.key_proof);
  checkClaims(enrolment, 'enrolment', context);
  checkClaims(instance, 'instance', context);
  const enrolmentThumbprint = thumbprintOf(enrolment.key);
  const instanceThumbprint = thumbprintOf(instance.key);
  if (enrolmentThumbprint === instanceThumbprint) throw proofRefusal('is by one key where two are needed');
  if (enrolment.otherThumbprint !== instanceThumbprint || instance.otherThumbprint !== enrolmentThumbprint) {
    throw proofRefusal('does not belong to the other proof of this request');
  }
  if (instance.storage !== undefined) throw proofRefusal('claims a key storage in the wrong place');
  checkSignature(enrolment);
  checkSignature(instance);
  return { enrolment, instance, enrolmentThumbprint, instanceThumbprint };
}

/**
 * Checks the proof of a further step, which is by the enrolment key alone and names the keys of the first step.
 *
 * @throws AttestedError `invalid_client_attestation`
 */
export function checkEnrolmentProof(
  text: string,
  keys: { enrolmentThumbprint: string; instanceThumbprint: string },
  context: EvidenceContext,
): void {
  const proof = parseKeyProof(text);
  checkClaims(proof, 'enrolment', context);
  if (thumbprintOf(proof.key) !== keys.enrolmentThumbprint || proof.otherThumbprint !== keys.instanceThumbprint) {
    throw proofRefusal('is by or for another key than in the step before');
  }
  if (proof.storage !== undefined) throw proofRefusal('claims a key storage in the wrong place');
  checkSignature(proof);
}
