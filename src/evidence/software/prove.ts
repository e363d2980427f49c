/** Agent side of `software` evidence. */
import { readPublicJwk } from '../../core/jwk.ts';
import { signJwt } from '../../core/jwt.ts';
import type { Signer } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { randomId } from '../../platform/crypto.ts';
import { KEY_PROOF_TYP, type ProofRole, type SoftwareEvidence } from './wire.ts';

export interface ProveSoftwareInput {
  /** The attester's issuer URL, exactly as it is configured there. */
  attester: string;
  clientId: string;
  /** From the attester's challenge endpoint. */
  challenge: string;
  /** The key that names this instance to its attester, and that no server ever sees. */
  enrolmentSigner: Signer;
  /** The key to be attested. */
  instanceSigner: Signer;
  /** Where the instance key lives, on the agent's own word. Default `software`. */
  storage?: 'software' | 'keychain' | undefined;
  /** Milliseconds since the epoch. Default `Date.now`. */
  now?: (() => number) | undefined;
}

/**
 * Proves possession of both keys for one attestation request.
 *
 * @throws AttestedError `invalid_argument` when the two keys are one, or one of them is not asymmetric
 */
export async function proveSoftware(input: ProveSoftwareInput): Promise<SoftwareEvidence> {
  const { enrolmentSigner, instanceSigner, storage = 'software' } = input;
  if (enrolmentSigner.thumbprint === instanceSigner.thumbprint) {
    throw new AttestedError('invalid_argument', 'the enrolment key must not be attested itself: use two keys', {
      rule: 'PRIV-1',
    });
  }
  return {
    kind: 'software',
    enrolment_proof: await keyProof(input, 'enrolment', enrolmentSigner, instanceSigner, { storage }),
    key_proof: await keyProof(input, 'instance', instanceSigner, enrolmentSigner, {}),
  };
}

async function keyProof(
  { attester, clientId, challenge, now = Date.now }: ProveSoftwareInput,
  role: ProofRole,
  signer: Signer,
  other: Signer,
  extra: { storage?: string },
): Promise<string> {
  const jwk = readPublicJwk(signer.publicJwk, 'invalid_argument');
  const iat = Math.floor(now() / 1000);
  return signJwt(
    { typ: KEY_PROOF_TYP, jwk: { ...jwk } },
    { role, aud: attester, sub: clientId, challenge, for: other.thumbprint, iat, jti: randomId(), ...extra },
    signer,
  );
}
