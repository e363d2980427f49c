/**
 * Evidence of kind `software`: two signed statements, one by the enrolment key and one by the instance key. They prove
 * that the asker holds both keys now, and nothing about where the keys live.
 */
import type { JsonObject } from '../../core/json.ts';
import { type PublicJwk, readPublicJwk } from '../../core/jwk.ts';
import { numericDate, type ParsedJwt, parseJwt, refusal, requiredString, type TokenKind } from '../../core/jwt.ts';
import { AttestedError } from '../../errors.ts';

export const KEY_PROOF_TYP = 'attested-key-proof+jwt';

/** Type alias and not an interface, so that it is a JsonObject. */
export type SoftwareEvidence = {
  kind: 'software';
  /** Key proof by the enrolment key, `role` `enrolment`. */
  enrolment_proof: string;
  /** Key proof by the instance key, `role` `instance`. */
  key_proof: string;
};

/** Which of the two keys signed; without it the two proofs of one request could be exchanged. */
export type ProofRole = 'enrolment' | 'instance';

/** A key proof. Its header carries the key that signed it as `jwk`. */
export interface KeyProof extends ParsedJwt {
  key: PublicJwk;
  /** Claim `role`. */
  role: string;
  /** Claim `aud`: the attester's issuer. */
  audience: string;
  /** Claim `sub`: the client_id. */
  clientId: string;
  /** Claim `challenge`: the attester's. */
  challenge: string;
  /** Claim `for`: thumbprint of the other key, so that neither proof can be combined with another. */
  otherThumbprint: string;
  /** Seconds since the epoch. */
  iat: number;
  /** Claim `storage`, only in the enrolment proof: the agent's own word on where the instance key lives. */
  storage: string | undefined;
}

export const KEY_PROOF_RULE = 'attested key proof';

const kind: TokenKind = {
  name: 'key proof',
  typ: KEY_PROOF_TYP,
  code: 'invalid_client_attestation',
  headerRule: KEY_PROOF_RULE,
  jwtRule: KEY_PROOF_RULE,
};

/** Refusal of a key proof, for a reason that names the rule and nothing of the input. */
export function proofRefusal(why: string): AttestedError {
  return refusal(kind, KEY_PROOF_RULE, why);
}

/** Reads the evidence object. @throws AttestedError `invalid_request` when a proof is not there */
export function readSoftwareEvidence(evidence: JsonObject): SoftwareEvidence {
  const { enrolment_proof, key_proof } = evidence;
  if (evidence.kind !== 'software' || typeof enrolment_proof !== 'string' || typeof key_proof !== 'string') {
    throw new AttestedError('invalid_request', 'software evidence needs enrolment_proof and key_proof as strings');
  }
  return { kind: 'software', enrolment_proof, key_proof };
}

/**
 * Reads a key proof and checks all that needs neither a clock, a key nor the request.
 *
 * @throws AttestedError `invalid_client_attestation`
 */
export function parseKeyProof(text: string): KeyProof {
  const jwt = parseJwt(text, kind);
  const key = readPublicJwk(jwt.header.jwk);
  const iat = numericDate(jwt, 'iat', kind);
  if (iat === undefined) throw proofRefusal('needs an iat');
  const claim = (name: string): string => requiredString(jwt, name, kind, KEY_PROOF_RULE);
  claim('jti');
  return {
    ...jwt,
    key,
    role: claim('role'),
    audience: claim('aud'),
    clientId: claim('sub'),
    challenge: claim('challenge'),
    otherThumbprint: claim('for'),
    iat,
    storage: jwt.payload.storage === undefined ? undefined : claim('storage'),
  };
}
