/** Who may have an attestation: the rules that every store applies inside its atomic step. Pure. */
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
  if (facts.liveKeys >= request.maxKeys) return 'too-many-keys';
  if (facts.liveAttestations >= request.maxAttestations) return 'too-many-attestations';
  return undefined;
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
