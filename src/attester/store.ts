/**
 * What an attester remembers. Every implementation runs the contract suite `test/contract/attester-store.ts`.
 *
 * All times are seconds since the epoch and come in as arguments: a store has no clock. Challenges and enrolment tokens
 * come in as SHA-256 hashes only, so that a copy of the store lets nobody enrol.
 */
import type { JsonObject } from '../core/json.ts';
import type { DeviceStatement } from '../evidence/protocol.ts';
import type { ClockAfterReset } from '../evidence/tpm/clock.ts';

export interface Instance {
  instanceId: string;
  clientId: string;
  /** RFC 7638 thumbprint of the enrolment key. */
  enrolmentThumbprint: string;
  /** What the operator called it when the enrolment token was made. */
  name: string | undefined;
  enrolledBy: 'token' | 'allow-list';
  enrolledAt: number;
  revokedAt: number | undefined;
  /** The device that it proved its keys to be in; absent while it has shown software evidence only. */
  device?: DeviceStatement | undefined;
}

export interface NewToken {
  hash: string;
  clientId: string;
  name: string | undefined;
  expiresAt: number;
}

export interface IssueRequest {
  now: number;
  clientId: string;
  enrolmentThumbprint: string;
  /** The id that the instance gets if it is new. */
  newInstanceId: string;
  /** Hash of the enrolment token that the request carried, where the client's policy lets tokens enrol. */
  tokenHash: string | undefined;
  /** Is the enrolment key on the client's allow-list? */
  allowed: boolean;
  instanceThumbprint: string;
  expiresAt: number;
  /** Most keys, and most attestations, of one instance that may be live at once. */
  maxKeys: number;
  maxAttestations: number;
  /** Random places in the status list, to be tried in this order; empty where the attester keeps no list. */
  indexes: readonly number[];
  /**
   * What was proved of the device, the seconds for which such a request may have been under way, and what a reset may do to
   * its clock (default `bounded`). The first is pinned; from then on no request without it, or of another device, or from
   * before, is issued to.
   */
  device?: (DeviceStatement & { maxUnderway: number; clockAfterReset?: ClockAfterReset }) | undefined;
}

export type IssueOutcome =
  | { issued: true; instance: Instance; enrolled: boolean; index: number | undefined }
  | { issued: false; why: IssueRefusal };

export type IssueRefusal =
  | 'not-enrolled'
  | 'not-allowed'
  | 'other-client'
  | 'revoked'
  | 'key-of-other-instance'
  | 'too-many-keys'
  | 'too-many-attestations'
  /** The instance is known by its device, and this request proves none. */
  | 'weaker-evidence'
  | 'other-device'
  /** The device's clock or reset count is behind what it was. */
  | 'rolled-back'
  /** All `indexes` are taken; others may be free. */
  | 'index-taken';

export type RevocationTarget =
  | { instanceId: string }
  /** Of the enrolment key, or of any instance key: the whole instance is revoked. */
  | { thumbprint: string };

/** @throws AttestedError `store_unavailable` from every method when the store cannot do its work; then nothing has changed */
export interface AttesterStore {
  /** Keeps a challenge, with what the next step of its conversation needs. False when `max` unexpired ones are there already. */
  putChallenge(
    challenge: { hash: string; expiresAt: number; state?: JsonObject },
    limits: { now: number; max: number },
  ): Promise<boolean>;

  /** Takes an unexpired challenge out. Of any number of callers exactly one gets it. */
  takeChallenge(hash: string, now: number): Promise<{ state: JsonObject | undefined } | undefined>;

  putToken(token: NewToken, now: number): Promise<void>;

  /**
   * One atomic step: finds the instance, or enrols it and spends the token; refuses what must be refused; records the
   * attestation. A refusal changes nothing, so it spends no token. A known instance needs no token and spends none.
   * An instance that enrolled by the allow-list has to stay on it, and one with a device keeps it.
   */
  issue(request: IssueRequest): Promise<IssueOutcome>;

  /** The device of the instance with this enrolment key; undefined where there is none. */
  device(enrolmentThumbprint: string): Promise<DeviceStatement | undefined>;

  /** Revokes for good, also what was revoked before. Undefined when there is no such instance. */
  revoke(target: RevocationTarget, now: number): Promise<Instance | undefined>;

  /** In the order of their enrolment. */
  instances(): Promise<Instance[]>;

  /** Places in the status list of all revoked instances' attestations that any server may still take for unexpired. */
  revokedIndexes(now: number): Promise<number[]>;

  close(): Promise<void>;
}

/**
 * Seconds for which an attestation's entry keeps its status after `exp`, because servers tolerate some clock difference,
 * and after that again stays unused, because servers cache the list: an entry must pass neither a revoked attestation for
 * a good one nor the reverse.
 */
export const ENTRY_GRACE = 600;
