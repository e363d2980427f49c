/** Who may have an attestation: the rules that every store applies inside its atomic step. Pure. */
import type { DeviceStatement } from '../evidence/protocol.ts';
import { later, wentBack } from '../evidence/tpm/clock.ts';
import type { Instance, IssueRefusal, IssueRequest, NewToken } from './store.ts';

/** What a store finds, in the same transaction in which it then records. */
export interface IssueFacts {
  /** The owner of the enrolment key, and the role in which it came first. */
  enrolmentKey: { owner: Instance; role: KeyRole } | undefined;
  /** The owner of the instance key. */
  instanceKey: { instanceId: string; role: KeyRole } | undefined;
  /** The unspent enrolment token. */
  token: NewToken | undefined;
  /** Keys of this instance with an unexpired attestation, the one asked for not counted. */
  liveKeys: number;
  liveAttestations: number;
  /** The instance's device, and when it was last seen. */
  device: PinnedDevice | undefined;
}

export interface PinnedDevice extends DeviceStatement {
  /** Seconds since the epoch. */
  seenAt: number;
}

/** A key has one role for ever: servers see instance keys, and must never see an enrolment key. */
export type KeyRole = 'enrolment' | 'instance';

/** The first rule that refuses; undefined when the attestation may be recorded. */
export function refusalOf(request: IssueRequest, facts: IssueFacts): IssueRefusal | undefined {
  const { enrolmentKey, instanceKey } = facts;
  if (enrolmentKey === undefined) {
    if (!request.allowed && !isTokenFor(request, facts.token)) return 'not-enrolled';
  } else {
    if (enrolmentKey.role !== 'enrolment') return 'key-of-other-instance';
    if (enrolmentKey.owner.clientId !== request.clientId) return 'other-client';
    if (enrolmentKey.owner.revokedAt !== undefined) return 'revoked';
    if (enrolmentKey.owner.enrolledBy === 'allow-list' && !request.allowed) return 'not-allowed';
  }
  if (
    instanceKey !== undefined &&
    (instanceKey.role !== 'instance' || instanceKey.instanceId !== enrolmentKey?.owner.instanceId)
  ) {
    return 'key-of-other-instance';
  }
  const deviceRefusal = refusalOfDevice(request, facts.device);
  if (deviceRefusal !== undefined) return deviceRefusal;
  if (facts.liveKeys >= request.maxKeys) return 'too-many-keys';
  if (facts.liveAttestations >= request.maxAttestations) return 'too-many-attestations';
  return undefined;
}

function refusalOfDevice({ device, now }: IssueRequest, pinned: PinnedDevice | undefined): IssueRefusal | undefined {
  if (pinned === undefined) return undefined;
  if (device === undefined) return 'weaker-evidence';
  if (device.ek !== pinned.ek || device.ak !== pinned.ak || device.signer !== pinned.signer) return 'other-device';
  // of two requests that were under way together, either may arrive first
  const together = now - pinned.seenAt <= device.maxUnderway;
  const slack = together ? device.maxUnderway * 1000 : 0;
  return wentBack(device.clock, pinned.clock, slack, device.clockAfterReset) ? 'rolled-back' : undefined;
}

/** What is pinned once the request has been issued to; undefined where there is no device. */
export function deviceAfter({ device, now }: IssueRequest, pinned: PinnedDevice | undefined): PinnedDevice | undefined {
  if (device === undefined) return undefined;
  const { ek, ak, signer, clock } = device;
  return { ek, ak, signer, clock: pinned === undefined ? clock : later(pinned.clock, clock), seenAt: now };
}

/** What a store tells of a pinned device: a copy, without its own bookkeeping. */
export function statementOf(device: PinnedDevice | undefined): DeviceStatement | undefined {
  if (device === undefined) return undefined;
  const { ek, ak, signer, clock } = device;
  return { ek, ak, signer, clock: { ...clock } };
}

/** The instance that a request enrols. The allow-list goes first, so that an allowed key spends no token. */
export function enrolledInstance(request: IssueRequest, token: NewToken | undefined): Instance {
  return {
    instanceId: request.newInstanceId,
    clientId: request.clientId,
    enrolmentThumbprint: request.enrolmentThumbprint,
    name: request.allowed ? undefined : token?.name,
    enrolledBy: request.allowed ? 'allow-list' : 'token',
    enrolledAt: request.now,
    revokedAt: undefined,
  };
}

function isTokenFor(request: IssueRequest, token: NewToken | undefined): boolean {
  return token !== undefined && token.clientId === request.clientId && token.expiresAt > request.now;
}
