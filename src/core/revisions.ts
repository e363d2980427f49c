/** What differs between the revisions of draft-ietf-oauth-attestation-based-client-auth. The next revision is a row. */
import { AttestedError } from '../errors.ts';

export type RevisionNumber = 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12;

export interface Revision {
  /** Claim `iss` in the Client Attestation. */
  attestationIss: boolean;
  /** Claim `iat` in the Client Attestation. */
  attestationIat: boolean;
  /** Claim `iss` (= client_id) in the PoP. */
  popIss: boolean;
  /** Claim `exp` in the PoP. */
  popExp: boolean;
  /** Claim `iat` in the PoP. */
  popIat: boolean;
  /** The PoP's claim for the server's challenge. */
  challengeClaim: 'nonce' | 'challenge';
  /** DPoP combined mode: absent, fresh by the attestation challenge in `nonce`, or by DPoP's own nonces (DPOP-4). */
  combined: 'absent' | 'challenge-in-nonce' | 'dpop-nonce';
  /** `<attestation>~<pop>` (CAT). */
  concatenated: boolean;
  /** Metadata `client_attestation_pop_methods_supported` (META-3). */
  popMethodsMetadata: boolean;
}

// each row lists what changed against the row before it
const r04: Revision = {
  attestationIss: true,
  attestationIat: false,
  popIss: true,
  popExp: true,
  popIat: false,
  challengeClaim: 'nonce',
  combined: 'absent',
  concatenated: true,
  popMethodsMetadata: false,
};
const r06: Revision = { ...r04, popExp: false, challengeClaim: 'challenge' };
const r07: Revision = { ...r06, popIat: true };
const r08: Revision = { ...r07, attestationIss: false, popIss: false, concatenated: false };
const r09: Revision = { ...r08, combined: 'challenge-in-nonce' };
const r10: Revision = { ...r09, popMethodsMetadata: true };
const r11: Revision = { ...r10, combined: 'dpop-nonce' };
const r12: Revision = { ...r11, attestationIat: true };

export const revisions: Readonly<Record<RevisionNumber, Revision>> = {
  4: r04,
  5: r04,
  6: r06,
  7: r07,
  8: r08,
  9: r09,
  10: r10,
  11: r11,
  12: r12,
};

/** The newest known revision, and the default everywhere. */
export const NEWEST_REVISION: RevisionNumber = 12;

/** @throws AttestedError `invalid_argument` for a revision that is not in the table */
export function revisionOf(number: RevisionNumber = NEWEST_REVISION): Revision {
  const revision = Object.hasOwn(revisions, number) ? revisions[number] : undefined;
  if (revision === undefined) {
    throw new AttestedError('invalid_argument', 'unknown draft revision: use a number from 4 to 12');
  }
  return revision;
}
