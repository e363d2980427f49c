/** Agent side of the key proofs. */
import { readPublicJwk } from '../../core/jwk.ts';
import { signJwt } from '../../core/jwt.ts';
import type { Signer } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { randomId } from '../../platform/crypto.ts';
import { KEY_PROOF_TYP, type ProofRole } from './wire.ts';

export interface KeyProofInput {
  /** The attester's issuer URL, exactly as it is configured there. */
  attester: string;
  clientId: string;
  /** From the attester's challenge endpoint. */
  challenge: string;
  /** The key that names this instance to its attester, and that no server ever sees. */
  enrolmentSigner: Signer;
  /** The key to be attested. */
  instanceSigner: Signer;
  /** Milliseconds since the epoch. Default `Date.now`. */
  now?: (() => number) | undefined;
}

/**
 * Makes the two proofs of one attestation request.
 *
 * @param storage where the keys live on the agent's own word, for evidence that proves no more
 * @throws AttestedError `invalid_argument` when the two keys are one, or one of them is not asymmetric
 */
export async function proveKeys(
  input: KeyProofInput,
  storage?: string,
): Promise<{ enrolment_proof: string; key_proof: string }> {
  const { enrolmentSigner, instanceSigner } = input;
  if (enrolmentSigner.thumbprint === instanceSigner.thumbprint) {
    throw new AttestedError('invalid_argument', 'the enrolment key must not be attested itself: use two keys', {
      rule: 'PRIV-1',
    });
  }
  return {
    enrolment_proof: await proveEnrolment(input, storage),
    key_proof: await keyProof(input, 'instance', instanceSigner, enrolmentSigner, undefined),
  };
}

/** The enrolment key's proof alone. */
export function proveEnrolment(input: KeyProofInput, storage?: string): Promise<string> {
  return keyProof(input, 'enrolment', input.enrolmentSigner, input.instanceSigner, storage);
}

async function keyProof(
  { attester, clientId, challenge, now = Date.now }: KeyProofInput,
  role: ProofRole,
  signer: Signer,
  other: Signer,
  storage: string | undefined,
): Promise<string> {
  const jwk = readPublicJwk(signer.publicJwk, 'invalid_argument');
  const iat = Math.floor(now() / 1000);
  return signJwt(
    { typ: KEY_PROOF_TYP, jwk: { ...jwk } },
    { role, aud: attester, sub: clientId, challenge, for: other.thumbprint, iat, jti: randomId(), storage },
    signer,
  );
}
