/** The attester's memory in this process: for tests, in-process attesters and development. A restart forgets all of it. */
import type { JsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import {
  deviceAfter,
  enrolledInstance,
  type KeyRole,
  type PinnedDevice,
  refusalOf,
  statementOf,
} from './issue-rules.ts';
import {
  type AttesterStore,
  ENTRY_GRACE,
  type Instance,
  type IssueOutcome,
  type IssueRequest,
  type NewToken,
} from './store.ts';

interface Attestation {
  thumbprint: string;
  index: number | undefined;
  expiresAt: number;
}

interface Owner {
  instance: Instance;
  attestations: Attestation[];
  device: PinnedDevice | undefined;
}

/** Seconds between two sweeps over everything that has expired. */
const SWEEP = 10;

export function memoryStore(): AttesterStore {
  const challenges = new Map<string, { expiresAt: number; state: JsonObject | undefined }>();
  const tokens = new Map<string, NewToken>();
  const owners = new Map<string, Owner>();
  const keys = new Map<string, { instanceId: string; role: KeyRole }>();
  const usedIndexes = new Set<number>();
  let sweptAt = 0;
  let open = true;

  // every method below runs to its end without awaiting anything, so each is one atomic step
  const assertOpen = (): void => {
    if (!open) throw new AttestedError('store_unavailable', 'the attester store is closed');
  };

  const sweep = (now: number): void => {
    if (now < sweptAt + SWEEP && now >= sweptAt) return;
    sweptAt = now;
    for (const [hash, { expiresAt }] of challenges) if (expiresAt <= now) challenges.delete(hash);
    for (const [hash, { expiresAt }] of tokens) if (expiresAt <= now) tokens.delete(hash);
    for (const owner of owners.values()) {
      owner.attestations = owner.attestations.filter(({ index, expiresAt }) => {
        if (expiresAt + 2 * ENTRY_GRACE > now) return true;
        if (index !== undefined) usedIndexes.delete(index);
        return false;
      });
    }
  };

  const issue = (request: IssueRequest): IssueOutcome => {
    const { now, enrolmentThumbprint, instanceThumbprint, tokenHash } = request;
    const enrolmentKey = keys.get(enrolmentThumbprint);
    const known = enrolmentKey === undefined ? undefined : owners.get(enrolmentKey.instanceId);
    const live = known?.attestations.filter(({ expiresAt }) => expiresAt > now) ?? [];
    const token = tokenHash === undefined ? undefined : tokens.get(tokenHash);
    const why = refusalOf(request, {
      enrolmentKey: known && enrolmentKey && { owner: known.instance, role: enrolmentKey.role },
      instanceKey: keys.get(instanceThumbprint),
      token,
      liveKeys: new Set(live.map(({ thumbprint }) => thumbprint).filter((key) => key !== instanceThumbprint)).size,
      liveAttestations: live.length,
      device: known?.device,
    });
    if (why !== undefined) return { issued: false, why };
    const index = request.indexes.find((candidate) => !usedIndexes.has(candidate));
    if (index === undefined && request.indexes.length > 0) return { issued: false, why: 'index-taken' };

    const owner = known ?? { instance: enrolledInstance(request, token), attestations: [], device: undefined };
    const { instanceId } = owner.instance;
    if (known === undefined) {
      owners.set(instanceId, owner);
      keys.set(enrolmentThumbprint, { instanceId, role: 'enrolment' });
      if (owner.instance.enrolledBy === 'token') tokens.delete(tokenHash as string);
    }
    keys.set(instanceThumbprint, { instanceId, role: 'instance' });
    owner.attestations.push({ thumbprint: instanceThumbprint, index, expiresAt: request.expiresAt });
    if (index !== undefined) usedIndexes.add(index);
    owner.device = deviceAfter(request, owner.device);
    return { issued: true, instance: copyOf(owner), enrolled: known === undefined, index };
  };

  return {
    async putChallenge({ hash, expiresAt, state }, { now, max }) {
      assertOpen();
      sweep(now);
      if (challenges.size >= max) return false;
      challenges.set(hash, { expiresAt, state: structuredClone(state) });
      return true;
    },
    async takeChallenge(hash, now) {
      assertOpen();
      const found = challenges.get(hash);
      challenges.delete(hash);
      return found !== undefined && found.expiresAt > now ? { state: found.state } : undefined;
    },
    async putToken(token, now) {
      assertOpen();
      sweep(now);
      tokens.set(token.hash, { ...token });
    },
    async issue(request) {
      assertOpen();
      sweep(request.now);
      return issue(request);
    },
    async device(enrolmentThumbprint) {
      assertOpen();
      const key = keys.get(enrolmentThumbprint);
      return key?.role === 'enrolment' ? statementOf(owners.get(key.instanceId)?.device) : undefined;
    },
    async revoke(target, now) {
      assertOpen();
      const instanceId = 'instanceId' in target ? target.instanceId : keys.get(target.thumbprint)?.instanceId;
      const owner = instanceId === undefined ? undefined : owners.get(instanceId);
      if (owner === undefined) return undefined;
      owner.instance.revokedAt ??= now;
      return copyOf(owner);
    },
    async instances() {
      assertOpen();
      return [...owners.values()].map(copyOf);
    },
    async revokedIndexes(now) {
      assertOpen();
      return [...owners.values()]
        .filter(({ instance }) => instance.revokedAt !== undefined)
        .flatMap(({ attestations }) => attestations.filter(({ expiresAt }) => expiresAt + ENTRY_GRACE > now))
        .flatMap(({ index }) => index ?? []);
    },
    async close() {
      open = false;
    },
  };
}

function copyOf({ instance, device }: Owner): Instance {
  return { ...instance, device: statementOf(device) };
}
