/** Every option that gives up some security, by name. Nothing is relaxed in another way. */

export interface Relaxation {
  /** Where it is given. */
  where: string;
  option: string;
  meaning: string;
}

export const relaxations: readonly Relaxation[] = [
  {
    where: 'openKeys',
    option: "downgrade: 'allow'",
    meaning: 'goes on with new, weaker keys where the stronger ones cannot be reached',
  },
  {
    where: 'createAgent',
    option: "tracking: 'warn'",
    meaning: 'one identity for all servers, so that they can tell that it is the same agent',
  },
  {
    where: 'createAgent',
    option: "evidence: 'software'",
    meaning: 'keys in a TPM are not proved to be there, and the attestation says self-asserted',
  },
  {
    where: 'agent.rotate',
    option: 'keepOld: true',
    meaning: 'the default: tokens bound to the old key work until they end',
  },
  { where: 'trust', option: 'clients', meaning: 'left out: the attester may speak for every client_id' },
  { where: 'policy', option: "popMethods: ['none']", meaning: 'requests without an attestation pass' },
  { where: 'policy', option: "challenge: 'optional'", meaning: 'proofs made in advance pass, within maxPopAge' },
  { where: 'policy', option: "challenge: 'off'", meaning: 'no challenge is given or looked at' },
  { where: 'policy', option: 'maxAge', meaning: 'older attestations pass (default a day)' },
  { where: 'policy', option: 'maxLifetime', meaning: 'attestations that live longer pass (default a week)' },
  { where: 'policy', option: 'maxPopAge', meaning: 'a longer replay window (default 300 s)' },
  { where: 'policy', option: 'clockTolerance', meaning: 'clocks may differ by more (default 30 s)' },
  { where: 'policy', option: 'alongside', meaning: 'another client authentication may stand in the same request' },
  { where: 'policy', option: 'concatenated', meaning: 'accepts a serialization that the draft has dropped' },
  { where: 'createVerifier', option: 'revision', meaning: 'speaks an older draft revision' },
  {
    where: 'require.status',
    option: 'status: false',
    meaning: 'the default: attestations whose revocation cannot be checked pass',
  },
  {
    where: 'requireAttestedAgent',
    option: "binding: 'client'",
    meaning: "a token's DPoP key need not be the attested one",
  },
  {
    where: 'createAttester',
    option: 'statusList: false',
    meaning: 'attestations cannot be revoked before they expire',
  },
  {
    where: 'createAttester tpm',
    option: 'allowEk',
    meaning: 'TPMs that no maker vouches for are believed, by the hash of their endorsement key',
  },
  {
    where: 'createAttester tpm',
    option: "clockAfterReset: 'any'",
    meaning: "a TPM's state that was put back and reset often enough passes",
  },
  {
    where: "a client's enrolment policy",
    option: "allow: 'any'",
    meaning: 'every device with the evidence may enrol, without a token',
  },
  { where: 'verifyCertify, verifyQuote', option: 'allowSha1', meaning: 'TPM structures that rely on SHA-1 pass' },
];
