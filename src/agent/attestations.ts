/** Keeps one attestation per identity good: reuse, renewal ahead of time, back-off (IMPL-1). */
import { randomInt } from 'node:crypto';
import { AttestedError } from '../errors.ts';
import type { AttesterClient } from './attester-client.ts';
import type { Events } from './events.ts';
import type { Identity } from './identity.ts';
import type { StoredIdentity } from './remembered.ts';
import type { StateStore } from './state.ts';
import type { Warnings } from './warnings.ts';

export interface Attestations {
  /**
   * An attestation that is good now. One that has lived 80 % of its life is renewed in the background meanwhile.
   *
   * @throws AttestedError `attester_unavailable` or `attester_refused` when there is none and none can be had
   */
  usable(identity: Identity): Promise<string>;
  /**
   * A newer attestation than the one a server has just refused (ERR-2); undefined when the one we have was got on such a
   * demand a moment ago, so that another would be refused as well.
   */
  fresh(identity: Identity): Promise<string | undefined>;
  /** Is this text an attestation of one of our identities? */
  isOurs(attestation: string): boolean;
  /** Waits for renewals under way. */
  settle(): Promise<void>;
}

/** Share of an attestation's life after which it is renewed. */
const RENEW_AT = 0.8;
/** Seconds before the end in which an attestation is not sent any more: it has to live until the server reads it. */
const MARGIN = 30;
/**
 * Seconds after a server's demand for a fresher attestation in which the next one is not believed: each takes an entry of the
 * attester's list, of which an instance has a limited number for all servers together.
 */
const SURELY_FRESH = 30;
/** Longest wait between tries, seconds. */
const LONGEST_BACKOFF = 300;
/** A clock that went back by more than this, in seconds, makes the age of what we hold unknowable. */
const CLOCK_SLACK = 60;

interface Failure {
  count: number;
  /** Milliseconds since the epoch. */
  notBefore: number;
  error: unknown;
}

export function keepAttestations(options: {
  client: AttesterClient;
  store: StateStore;
  enrolmentToken: string | undefined;
  now: () => number;
  warnings: Warnings;
  events: Events;
}): Attestations {
  const { client, store, enrolmentToken, now, warnings, events } = options;
  const underWay = new Map<string, Promise<string>>();
  const failures = new Map<string, Failure>();
  /** When a server's demand was last followed, milliseconds since the epoch, by label. */
  const demanded = new Map<string, number>();
  let enrolling: Promise<unknown> = Promise.resolve();

  function renew(identity: Identity): Promise<string> {
    const { label } = identity;
    const running = underWay.get(label);
    if (running !== undefined) return running;
    const failure = failures.get(label);
    if (failure !== undefined && now() < failure.notBefore) return Promise.reject(failure.error);
    const renewal = (async () => {
      try {
        const began = performance.now();
        const { attestation, lifetime } = await enrolled(identity);
        const duration = performance.now() - began;
        failures.delete(label);
        const stored = store.identities.get(label);
        if (stored !== undefined) {
          Object.assign(stored, { attestation, lifetime, receivedAt: Math.floor(now() / 1000) });
        }
        await store.save();
        const { thumbprint } = identity.signer;
        events.emit({ type: 'attestation', server: identity.scope, thumbprint, lifetime, duration });
        return attestation;
      } catch (error) {
        failures.set(label, nextFailure(failures.get(label), error));
        throw error;
      } finally {
        underWay.delete(label);
      }
    })();
    underWay.set(label, renewal);
    return renewal;
  }

  /** The enrolment token works once, so until the instance is enrolled, requests go one after the other. */
  function enrolled(identity: Identity): ReturnType<AttesterClient['request']> {
    if (store.enrolled || enrolmentToken === undefined) return client.request(identity, undefined);
    const turn = enrolling.then(async () => {
      if (store.enrolled) return client.request(identity, undefined);
      // an attester that knows the enrolment key already, say after a loss of our state, does not look at the token
      const answer = await client.request(identity, enrolmentToken);
      store.enrolled = true;
      return answer;
    });
    enrolling = turn.catch(() => undefined);
    return turn;
  }

  function nextFailure(before: Failure | undefined, error: unknown): Failure {
    const count = (before?.count ?? 0) + 1;
    const seconds = Math.min(LONGEST_BACKOFF, 2 ** Math.min(count - 1, 16));
    // half of the wait is random, so that a fleet that lost its attester does not come back as one
    const wait = seconds * 500 + randomInt(seconds * 500 + 1);
    return { count, notBefore: now() + wait, error };
  }

  return {
    async usable(identity) {
      const stored = store.identities.get(identity.label);
      const age = ageOf(stored, now());
      if (stored?.attestation === undefined || age === undefined || stored.lifetime === undefined)
        return renew(identity);
      const { attestation, lifetime } = stored;
      if (age >= lifetime - Math.min(MARGIN, lifetime * 0.1)) return renew(identity);
      if (age >= lifetime * RENEW_AT && mayTry(identity.label)) {
        renew(identity).catch((error: unknown) => {
          const why = error instanceof AttestedError ? error.message : 'the renewal failed';
          warnings.emit({ code: 'renewal_failed', message: `${why}; the attestation in use is still good` });
        });
      }
      return attestation;
    },
    async fresh(identity) {
      const { label } = identity;
      const since = now() - (demanded.get(label) ?? Number.NEGATIVE_INFINITY);
      // a clock that went back has forgotten the demand
      if (since >= 0 && since < SURELY_FRESH * 1000 && !underWay.has(label)) return undefined;
      demanded.set(label, now());
      return renew(identity);
    },
    isOurs: (attestation) => [...store.identities.values()].some((stored) => stored.attestation === attestation),
    async settle() {
      await Promise.allSettled([...underWay.values()]);
    },
  };

  function mayTry(label: string): boolean {
    const failure = failures.get(label);
    return !underWay.has(label) && (failure === undefined || now() >= failure.notBefore);
  }
}

/** Seconds since an attestation was received; undefined when there is none, or when the clock makes it unknowable. */
function ageOf(stored: StoredIdentity | undefined, now: number): number | undefined {
  if (stored?.attestation === undefined || stored.receivedAt === undefined) return undefined;
  const age = now / 1000 - stored.receivedAt;
  return age < -CLOCK_SLACK ? undefined : Math.max(0, age);
}
