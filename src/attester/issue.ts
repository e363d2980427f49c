/** One attestation request, step by step. */
import { createAttestation } from '../core/attestation.ts';
import type { JsonObject } from '../core/json.ts';
import { isJsonObject } from '../core/json.ts';
import { keyStatementClaims } from '../core/storage.ts';
import { AttestedError, type ErrorCode } from '../errors.ts';
import type {
  AttestationAnswer,
  AttestationRequest,
  CheckedEvidence,
  EvidenceCheck,
  EvidenceNextStep,
  NextStepAnswer,
} from '../evidence/protocol.ts';
import type { TpmTrust } from '../evidence/tpm/trust.ts';
import { randomId, sha256Base64url } from '../platform/crypto.ts';
import type { Challenges } from './challenges.ts';
import type { AttesterLog } from './events.ts';
import type { GrantedPolicy, PolicyReader } from './policy.ts';
import type { SignerSet } from './signers.ts';
import type { StatusLists } from './status.ts';
import type { AttesterStore, IssueOutcome, IssueRefusal } from './store.ts';

export interface AttesterParts {
  issuer: string;
  store: AttesterStore;
  signers: SignerSet;
  challenges: Challenges;
  policyOf: PolicyReader;
  /** The table of evidence kinds. */
  checkOf: (kind: string) => EvidenceCheck | undefined;
  /** Whom TPM evidence is believed from; undefined where none is. */
  tpm: TpmTrust | undefined;
  /** Undefined where attestations carry no status. */
  statusLists: StatusLists | undefined;
  log: AttesterLog;
  /** Milliseconds since the epoch. */
  now: () => number;
}

/**
 * Answers a request that is well-formed, in this order:
 *
 * 1. the challenge is taken, so it is spent whatever follows;
 * 2. the client has a policy, and it accepts this kind of evidence;
 * 3. the evidence holds, or asks for one more step;
 * 4. in one atomic step of the store: the instance is known or enrols, is not revoked, owns the key, stays within its
 *    limits, and the attestation is recorded;
 * 5. the attestation is signed.
 *
 * Recording comes before signing, so a crash at any point leaves no attestation that could not be revoked. A request that
 * fails in 1 to 4 spends no enrolment token; one that fails in 5 may be repeated, because the instance is known by then.
 *
 * @throws AttestedError `use_attestation_challenge`, `access_denied`, `invalid_request`, `invalid_client_attestation`,
 *   `temporarily_unavailable`, `store_unavailable`
 */
export async function answerAttestationRequest(
  parts: AttesterParts,
  request: AttestationRequest,
): Promise<AttestationAnswer | NextStepAnswer> {
  const { challenges, policyOf } = parts;
  const kept = await challenges.take(request.challenge);
  const policy = await policyOf(request.client_id);
  if (policy === undefined) throw denied('this attester does not serve this client');
  if (!policy.evidence.includes(request.evidence.kind))
    throw denied('the policy of this client does not accept this kind of evidence');

  const checked = await checkEvidence(parts, request, policy, kept);
  if ('next' in checked) {
    const state = { client_id: request.client_id, kind: request.evidence.kind, state: checked.state };
    return { next: checked.next, ...(await challenges.create(state)) };
  }
  return issue(parts, request, policy, checked);
}

async function checkEvidence(
  { issuer, checkOf, store, tpm, now }: AttesterParts,
  { client_id, challenge, evidence }: AttestationRequest,
  { pcrs }: GrantedPolicy,
  kept: JsonObject | undefined,
): Promise<CheckedEvidence | EvidenceNextStep> {
  const check = checkOf(evidence.kind);
  if (check === undefined) throw denied('this attester does not know this kind of evidence');
  if (kept !== undefined && (kept.client_id !== client_id || kept.kind !== evidence.kind)) {
    throw new AttestedError('invalid_client_attestation', 'the challenge belongs to another conversation');
  }
  return check(evidence, {
    attester: issuer,
    clientId: client_id,
    challenge,
    now,
    ...(tpm && { tpm }),
    ...(pcrs && { pins: pcrs }),
    pinned: (enrolmentThumbprint) => store.device(enrolmentThumbprint),
    ...(isJsonObject(kept?.state) && { state: kept.state }),
  });
}

async function issue(
  parts: AttesterParts,
  request: AttestationRequest,
  policy: GrantedPolicy,
  checked: CheckedEvidence,
): Promise<AttestationAnswer> {
  const { issuer, signers, statusLists, log } = parts;
  const iat = Math.floor(parts.now() / 1000);
  const exp = iat + policy.lifetime;
  const { instance, enrolled, index } = await record(parts, request, policy, checked, iat);
  if (enrolled) log({ type: 'enrolled', instance });

  // nothing here differs between two instances but the key, the index and the times (PRIV-1)
  const claims = {
    ...policy.claims,
    iss: issuer,
    sub: request.client_id,
    iat,
    exp,
    cnf: { jwk: { ...checked.instanceKey } },
    ...keyStatementClaims(checked.storage, checked.evidence),
    ...(statusLists && { status: { status_list: { idx: index, uri: statusLists.uri } } }),
  };
  const attestation = await createAttestation(claims, signers.signing());
  const { instanceId } = instance;
  const { instanceThumbprint, storage, evidence } = checked;
  log({
    type: 'issued',
    clientId: instance.clientId,
    instanceId,
    instanceThumbprint,
    storage,
    evidence,
    expiresAt: exp,
  });
  return { attestation, expires_at: exp, instance_id: instanceId };
}

/** Rounds of random places in the status list before it counts as full: at 97 % taken, one in 300 requests fails. */
const ROUNDS = 3;

async function record(
  { store, statusLists, challenges, tpm }: AttesterParts,
  request: AttestationRequest,
  policy: GrantedPolicy,
  { enrolmentThumbprint, instanceThumbprint, device }: CheckedEvidence,
  now: number,
): Promise<IssueOutcome & { issued: true }> {
  let why: IssueRefusal = 'index-taken';
  for (let round = 0; round < ROUNDS && why === 'index-taken'; round++) {
    const outcome = await store.issue({
      now,
      clientId: request.client_id,
      enrolmentThumbprint,
      newInstanceId: randomId(),
      tokenHash:
        policy.tokens && request.enrolment_token !== undefined ? sha256Base64url(request.enrolment_token) : undefined,
      allowed: policy.isAllowed(enrolmentThumbprint),
      instanceThumbprint,
      expiresAt: now + policy.lifetime,
      maxKeys: policy.maxKeys,
      maxAttestations: policy.maxAttestations,
      indexes: statusLists?.candidates() ?? [],
      // the statements may be from a first step, so two challenges old
      device: device && {
        ...device,
        maxUnderway: 2 * challenges.ttl,
        ...(tpm && { clockAfterReset: tpm.clockAfterReset }),
      },
    });
    if (outcome.issued) return outcome;
    why = outcome.why;
  }
  const [code, message, rule = 'attester policy'] = REFUSALS[why];
  throw new AttestedError(code, message, { rule });
}

const REFUSALS: Readonly<Record<IssueRefusal, readonly [code: ErrorCode, message: string, rule?: string]>> = {
  'not-enrolled': ['access_denied', 'the instance is not enrolled and brings nothing that enrols it'],
  'not-allowed': ['access_denied', 'the instance is no longer on the allow-list'],
  'other-client': ['access_denied', 'the enrolment key belongs to an instance of another client'],
  revoked: ['access_denied', 'the instance is revoked'],
  'key-of-other-instance': ['access_denied', 'the key is already in use by another instance or in another role'],
  'too-many-keys': ['access_denied', 'the instance has as many keys as its policy allows'],
  'too-many-attestations': ['access_denied', 'the instance has as many unexpired attestations as its policy allows'],
  'weaker-evidence': ['access_denied', 'the instance is known by its TPM: it needs tpm evidence', 'TPM attestation 9'],
  'other-device': [
    'device_conflict',
    'the instance is known by another EK or AK: enrol anew, with a new enrolment key',
    'TPM attestation 9',
  ],
  'rolled-back': [
    'access_denied',
    'the clock or reset count of the TPM went back: enrol anew, with a new enrolment key; for virtual TPMs see clockAfterReset',
    'TPM attestation 9',
  ],
  'index-taken': ['temporarily_unavailable', 'the status list is full'],
};

function denied(why: string): AttestedError {
  return new AttestedError('access_denied', why, { rule: 'attester policy' });
}
