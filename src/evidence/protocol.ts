/**
 * The conversation between a Client Instance and its Client Attester. The draft leaves it open (ABCA §1), so it is ours:
 *
 *     POST <issuer>/challenge      {}                        → 200 ChallengeAnswer, and what evidence may be brought
 *     POST <issuer>/attestation    AttestationRequest        → 200 AttestationAnswer, or NextStepAnswer
 *     GET  <issuer>/jwks                                     → the keys that sign attestations
 *     GET  <issuer>/status/<list>                            → Status List Token
 *
 * An instance enrols once, by a one-time token or because its enrolment key is on an allow-list, and then asks for as many
 * attestations as it has servers. Each request is signed by two keys: the *enrolment key*, which only the attester ever
 * sees, says which instance is asking; the *instance key*, one per server, is what gets attested. The attester can so
 * revoke the whole instance, and no two servers share a key. Nothing in a request says which server it is for (PRIV-3).
 *
 * Refusals are JSON `{ error, error_description }`. `use_attestation_challenge` (the challenge was unknown, late or used)
 * also carries `challenge` and `expires_in`, to retry with once (ERR-4). `access_denied` and `device_conflict` (the instance
 * belongs to another device) are final until a person acts; after `temporarily_unavailable` the same request, with a new
 * challenge, may succeed later.
 */
import type { JsonObject } from '../core/json.ts';
import type { PublicJwk } from '../core/jwk.ts';
import type { KeyEvidence, KeyStorage } from '../core/storage.ts';
import type { TpmClock } from './tpm/clock.ts';
import type { ReadPins, TpmTrust } from './tpm/trust.ts';

export const ATTESTER_PATHS = {
  challenge: '/challenge',
  attestation: '/attestation',
  jwks: '/jwks',
  status: '/status',
} as const;

export interface ChallengeAnswer {
  /** Opaque, for one request. */
  challenge: string;
  /** Seconds. */
  expires_in: number;
}

/** What an attester asks for, so that an agent knows before it proves. Absent members: software evidence, no quote. */
export interface EvidenceOffer {
  /** The kinds that this attester can check. What a client needs is its policy's affair. */
  evidence?: string[];
  /** In `tpm` evidence, a quote of exactly these PCRs, by bank; and the firmware's event log, where the device shows one. */
  quote?: { pcrs: Record<string, number[]>; event_log: boolean };
}

export interface AttestationRequest {
  client_id: string;
  /** From the challenge endpoint, used once. */
  challenge: string;
  /** One kind per member of the evidence table; the attester's policy says which it accepts. */
  evidence: { kind: string } & JsonObject;
  /** Only in the first request of an instance. */
  enrolment_token?: string;
}

export interface AttestationAnswer {
  attestation: string;
  /** Seconds since the epoch; the attestation's own `exp`. */
  expires_at: number;
  instance_id: string;
}

/**
 * The other 200 answer to an AttestationRequest: the evidence's kind takes a further round (TPM credential activation).
 * The agent sends the same request again, with this challenge and with the evidence that `next` asks for.
 */
export interface NextStepAnswer extends ChallengeAnswer {
  next: JsonObject;
}

/** What a checked piece of evidence says. Produced by `evidence/<kind>/check.ts`, consumed by the attester. */
export interface CheckedEvidence {
  /** Thumbprint of the enrolment key: the stable name of the instance. */
  enrolmentThumbprint: string;
  instanceKey: PublicJwk;
  instanceThumbprint: string;
  storage: KeyStorage;
  evidence: KeyEvidence;
  /** The device that the keys were proved to be in, for the attester's store to pin. */
  device?: DeviceStatement;
}

/** One TPM, as it is known again. Hashes and counters, all base64url; servers never see any of it (PRIV-1). */
export interface DeviceStatement {
  /** {@link ekHash} of the endorsement key. */
  ek: string;
  /** Name of the attestation key, as computed from its public area. */
  ak: string;
  /** Qualified Name of the AK: which hierarchy and parent it is below. */
  signer: string;
  clock: TpmClock;
}

/** What a check knows of the request around the evidence. */
export interface EvidenceContext {
  /** The attester's issuer URL. */
  attester: string;
  clientId: string;
  /** The request's challenge, which the attester gave and has already taken out of its store. */
  challenge: string;
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Seconds by which clocks may differ. */
  clockTolerance?: number;
  /** Oldest acceptable proof, seconds. */
  maxAge?: number;
  /** Whom `tpm` evidence is believed from; absent where the attester believes none. */
  tpm?: TpmTrust;
  /** PCR values that the client's policy demands. */
  pins?: ReadPins;
  /** The device of the instance with this enrolment key, as the store has pinned it. */
  pinned?: (enrolmentThumbprint: string) => Promise<DeviceStatement | undefined>;
  /** What the check of the step before left in {@link EvidenceNextStep.state}; absent in a first step. */
  state?: JsonObject;
}

/** A check that is not done yet: `next` goes to the agent, `state` comes back to the check with the agent's next request. */
export interface EvidenceNextStep {
  next: JsonObject;
  state: JsonObject;
}

/** @throws AttestedError `invalid_request` for malformed evidence, `invalid_client_attestation` for evidence that fails */
export type EvidenceCheck = (
  evidence: JsonObject,
  context: EvidenceContext,
) => CheckedEvidence | EvidenceNextStep | Promise<CheckedEvidence | EvidenceNextStep>;
