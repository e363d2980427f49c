/**
 * The key proof: a signed statement by one of the two keys of an attestation request. Two of them prove that the asker holds
 * both keys now; nothing about where the keys live. Part of every kind of evidence.
 */
import { type PublicJwk, readPublicJwk } from '../../core/jwk.ts';
import { numericDate, type ParsedJwt, parseJwt, refusal, requiredString, type TokenKind } from '../../core/jwt.ts';
import type { AttestedError } from '../../errors.ts';

export const KEY_PROOF_TYP = 'attested-key-proof+jwt';

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
  /** Claim `storage`, only in the enrolment proof of software evidence: the agent's own word on where its keys live. */
  storage: string | undefined;
}

const KEY_PROOF_RULE = 'attested key proof';

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
