/**
 * A named profile of the draft (PROF-1, section 13). It may replace exactly these things and nothing else; every rule
 * that is not named here holds in every profile.
 */
export interface Profile {
  name: string;
  /** `typ` of the Client Attestation. */
  attestationTyp: string;
  /** `typ` of the Client Attestation PoP. */
  popTyp: string;
  /** The client_id that a `sub` stands for. */
  clientIdOf(sub: string): string;
  /** What a refresh token is bound to. */
  refreshTokenBinding: 'instance-key' | 'client';
}

/** The draft itself, without a profile. */
export const baseProfile: Profile = {
  name: 'base',
  attestationTyp: 'oauth-client-attestation+jwt',
  popTyp: 'oauth-client-attestation-pop+jwt',
  clientIdOf: (sub) => sub,
  refreshTokenBinding: 'instance-key',
};

/** Makes a profile out of what it changes. */
export function defineProfile(changes: Partial<Profile> & { name: string }): Profile {
  return { ...baseProfile, ...changes };
}
