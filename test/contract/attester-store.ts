/** What every attester store must do. Each store's own test file runs this. */

import type { AttesterStore, IssueRequest } from 'attested/attester';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const NOW = 1_800_000_000;
/** As in `src/attester/store.ts`. */
const GRACE = 600;

export interface StoreUnderTest {
  /** Opens a store on new, empty state, and further ones on that same state where the kind can be shared. */
  open: () => { store: AttesterStore; another: (() => AttesterStore) | undefined };
}

export function attesterStoreContract(name: string, { open }: StoreUnderTest): void {
  describe(`attester store contract: ${name}`, () => {
    let store: AttesterStore;
    let second: AttesterStore;

    beforeEach(() => {
      const opened = open();
      store = opened.store;
      second = opened.another?.() ?? store;
    });
    afterEach(async () => {
      await store.close();
      await second.close();
    });

    let serial = 0;
    const request = (changes: Partial<IssueRequest> = {}): IssueRequest => {
      serial += 1;
      return {
        now: NOW,
        clientId: 'client',
        enrolmentThumbprint: 'enrolment-1',
        newInstanceId: `instance-${serial}`,
        tokenHash: undefined,
        allowed: true,
        instanceThumbprint: 'key-1',
        expiresAt: NOW + 3600,
        maxKeys: 100,
        maxAttestations: 1000,
        indexes: [serial],
        ...changes,
      };
    };
    const token = (hash: string, changes = {}) => ({
      hash,
      clientId: 'client',
      name: 'build box',
      expiresAt: NOW + 60,
      ...changes,
    });
    const byToken = (changes: Partial<IssueRequest> = {}) =>
      request({ allowed: false, tokenHash: 'token', ...changes });
    const outcomeOf = async (asked: IssueRequest) => {
      const outcome = await store.issue(asked);
      return outcome.issued ? 'issued' : outcome.why;
    };

    describe('challenges', () => {
      const limits = { now: NOW, max: 3 };

      test('one is taken once, with what was kept beside it', async () => {
        await store.putChallenge({ hash: 'a', expiresAt: NOW + 60, state: { step: ['x', 1] } }, limits);
        await store.putChallenge({ hash: 'b', expiresAt: NOW + 60 }, limits);
        expect(await second.takeChallenge('a', NOW)).toEqual({ state: { step: ['x', 1] } });
        expect(await store.takeChallenge('a', NOW)).toBeUndefined();
        expect(await store.takeChallenge('b', NOW + 59)).toEqual({ state: undefined });
        expect(await store.takeChallenge('never given', NOW)).toBeUndefined();
      });

      test('an expired one is unknown, and stays so when the clock goes back', async () => {
        await store.putChallenge({ hash: 'a', expiresAt: NOW + 60 }, limits);
        expect(await store.takeChallenge('a', NOW + 60)).toBeUndefined();
        expect(await store.takeChallenge('a', NOW)).toBeUndefined();
      });

      test('of two connections that race for one, exactly one gets it', async () => {
        for (let i = 0; i < 20; i++) {
          await store.putChallenge({ hash: `a${i}`, expiresAt: NOW + 60 }, limits);
          const taken = await Promise.all([store, second, store].map((racer) => racer.takeChallenge(`a${i}`, NOW)));
          expect(taken.filter((one) => one !== undefined)).toHaveLength(1);
        }
      });

      test('no more than the maximum are kept, and expiry makes room', async () => {
        for (const hash of ['a', 'b', 'c']) {
          expect(await store.putChallenge({ hash, expiresAt: NOW + 60 }, limits)).toBe(true);
        }
        expect(await second.putChallenge({ hash: 'd', expiresAt: NOW + 60 }, limits)).toBe(false);
        expect(await store.takeChallenge('d', NOW)).toBeUndefined();
        const later = NOW + 60;
        expect(await store.putChallenge({ hash: 'e', expiresAt: later + 60 }, { now: later, max: 3 })).toBe(true);
      });
    });

    describe('enrolment', () => {
      test('nothing enrols without a token or the allow-list', async () => {
        expect(await outcomeOf(request({ allowed: false }))).toBe('not-enrolled');
        expect(await outcomeOf(byToken())).toBe('not-enrolled');
        expect(await store.instances()).toEqual([]);
      });

      test('a token enrols one instance, which then needs it no more', async () => {
        await store.putToken(token('token'), NOW);
        const first = await store.issue(byToken({ newInstanceId: 'first', indexes: [7] }));
        const expected = {
          instanceId: 'first',
          clientId: 'client',
          enrolmentThumbprint: 'enrolment-1',
          name: 'build box',
          enrolledBy: 'token',
          enrolledAt: NOW,
          revokedAt: undefined,
        };
        expect(first).toEqual({ issued: true, enrolled: true, instance: expected, index: 7 });
        const retried = await second.issue(byToken());
        expect(retried).toMatchObject({ issued: true, enrolled: false, instance: expected });
        expect(await outcomeOf(byToken({ enrolmentThumbprint: 'enrolment-2', instanceThumbprint: 'key-2' }))).toBe(
          'not-enrolled',
        );
        expect(await outcomeOf(request({ allowed: false, instanceThumbprint: 'key-3' }))).toBe('issued');
        expect(await store.instances()).toEqual([expected]);
      });

      test('a token of another client or an expired one enrols nobody', async () => {
        await store.putToken(token('other', { clientId: 'other' }), NOW);
        await store.putToken(token('token'), NOW);
        expect(await outcomeOf(byToken({ tokenHash: 'other' }))).toBe('not-enrolled');
        expect(await outcomeOf(byToken({ now: NOW + 60 }))).toBe('not-enrolled');
      });

      test('a refusal spends no token', async () => {
        await store.putToken(token('token'), NOW);
        await store.issue(request({ enrolmentThumbprint: 'enrolment-0', instanceThumbprint: 'taken', indexes: [1] }));
        expect(await outcomeOf(byToken({ instanceThumbprint: 'taken' }))).toBe('key-of-other-instance');
        expect(await outcomeOf(byToken({ indexes: [1] }))).toBe('index-taken');
        expect(await outcomeOf(byToken({ maxAttestations: 0 }))).toBe('too-many-attestations');
        expect(await outcomeOf(byToken({ clientId: 'other' }))).toBe('not-enrolled');
        expect(await store.instances()).toHaveLength(1);
        expect(await outcomeOf(byToken())).toBe('issued');
      });

      test('of two connections that race with one token, exactly one enrols', async () => {
        for (let i = 0; i < 20; i++) {
          await store.putToken(token(`token-${i}`), NOW);
          const racing = [store, second, store].map((racer, j) =>
            racer.issue(
              byToken({
                tokenHash: `token-${i}`,
                enrolmentThumbprint: `e-${i}-${j}`,
                instanceThumbprint: `k-${i}-${j}`,
              }),
            ),
          );
          const outcomes = await Promise.all(racing);
          expect(outcomes.filter(({ issued }) => issued)).toHaveLength(1);
        }
        expect(await store.instances()).toHaveLength(20);
      });

      test('an instance that enrolled by the allow-list has to stay on it', async () => {
        expect(await outcomeOf(request())).toBe('issued');
        expect(await outcomeOf(request({ allowed: false }))).toBe('not-allowed');
        expect(await outcomeOf(request())).toBe('issued');
      });

      test('a listed key spends no token that it happens to bring', async () => {
        await store.putToken(token('token'), NOW);
        expect(await store.issue(byToken({ allowed: true }))).toMatchObject({ instance: { enrolledBy: 'allow-list' } });
        expect(await outcomeOf(byToken({ enrolmentThumbprint: 'enrolment-2', instanceThumbprint: 'key-2' }))).toBe(
          'issued',
        );
      });
    });

    describe('keys', () => {
      test('an enrolment key belongs to one client', async () => {
        await store.issue(request());
        expect(await outcomeOf(request({ clientId: 'other' }))).toBe('other-client');
      });

      test('an instance key belongs to one instance, also after its attestations have expired', async () => {
        await store.issue(request());
        const stranger = { enrolmentThumbprint: 'enrolment-2', now: NOW + 100_000, expiresAt: NOW + 103_600 };
        expect(await outcomeOf(request(stranger))).toBe('key-of-other-instance');
        expect(await store.instances()).toHaveLength(1);
      });

      test('a key keeps the role in which it came first', async () => {
        await store.issue(request());
        expect(await outcomeOf(request({ instanceThumbprint: 'enrolment-1' }))).toBe('key-of-other-instance');
        const swapped = { enrolmentThumbprint: 'key-1', instanceThumbprint: 'key-2' };
        expect(await outcomeOf(request(swapped))).toBe('key-of-other-instance');
        const borrowed = { enrolmentThumbprint: 'enrolment-2', instanceThumbprint: 'enrolment-1' };
        expect(await outcomeOf(request(borrowed))).toBe('key-of-other-instance');
      });

      test('limits count what is unexpired', async () => {
        const limited = { maxKeys: 2, maxAttestations: 3 };
        expect(await outcomeOf(request(limited))).toBe('issued');
        expect(await outcomeOf(request({ ...limited, instanceThumbprint: 'key-2' }))).toBe('issued');
        expect(await outcomeOf(request({ ...limited, instanceThumbprint: 'key-3' }))).toBe('too-many-keys');
        expect(await outcomeOf(request({ ...limited, instanceThumbprint: 'key-2' }))).toBe('issued');
        expect(await outcomeOf(request(limited))).toBe('too-many-attestations');
        const later = { now: NOW + 3600, expiresAt: NOW + 7200 };
        expect(await outcomeOf(request({ ...limited, ...later, instanceThumbprint: 'key-3' }))).toBe('issued');
      });
    });

    describe('status', () => {
      test('an index is given once, the first free one in the order asked for', async () => {
        expect(await store.issue(request({ indexes: [5, 6] }))).toMatchObject({ index: 5 });
        expect(await second.issue(request({ indexes: [5, 6] }))).toMatchObject({ index: 6 });
        expect(await store.issue(request({ indexes: [6, 5] }))).toEqual({ issued: false, why: 'index-taken' });
        expect(await store.issue(request({ indexes: [] }))).toMatchObject({ issued: true, index: undefined });
      });

      test('an index is free again, but not before every server has forgotten the old attestation and list', async () => {
        await store.issue(request({ indexes: [5], expiresAt: NOW + 100 }));
        const at = (now: number) => request({ now, expiresAt: now + 100, indexes: [5] });
        expect(await outcomeOf(at(NOW + 100 + 2 * GRACE - 1))).toBe('index-taken');
        expect(await outcomeOf(at(NOW + 100 + 2 * GRACE + 10))).toBe('issued');
      });

      test('revocation marks all unexpired attestations, ends issuing, and is for good', async () => {
        await store.issue(request({ newInstanceId: 'mine', indexes: [5] }));
        await store.issue(request({ instanceThumbprint: 'key-2', indexes: [9], expiresAt: NOW + 10 }));
        await store.issue(request({ enrolmentThumbprint: 'enrolment-2', instanceThumbprint: 'key-9', indexes: [11] }));
        expect(await store.revokedIndexes(NOW)).toEqual([]);
        expect(await store.revoke({ instanceId: 'mine' }, NOW + 5)).toMatchObject({
          instanceId: 'mine',
          revokedAt: NOW + 5,
        });
        expect(await store.revoke({ instanceId: 'mine' }, NOW + 6)).toMatchObject({ revokedAt: NOW + 5 });
        expect((await second.revokedIndexes(NOW + 6)).sort()).toEqual([5, 9]);
        expect(await outcomeOf(request({ now: NOW + 6 }))).toBe('revoked');
        expect((await store.instances()).map(({ revokedAt }) => revokedAt)).toEqual([NOW + 5, undefined]);
        // the mark outlives exp, for servers whose clock is behind
        expect((await store.revokedIndexes(NOW + 10 + GRACE - 1)).sort()).toEqual([5, 9]);
        expect(await store.revokedIndexes(NOW + 10 + GRACE)).toEqual([5]);
        expect(await store.revokedIndexes(NOW + 3600 + GRACE)).toEqual([]);
      });

      test.each(['enrolment-1', 'key-1', 'key-2'])('the instance can be named by its key %s', async (thumbprint) => {
        await store.issue(request({ newInstanceId: 'mine' }));
        await store.issue(request({ instanceThumbprint: 'key-2' }));
        expect(await store.revoke({ thumbprint }, NOW)).toMatchObject({ instanceId: 'mine' });
        expect(await outcomeOf(request())).toBe('revoked');
      });

      test('revoking what is not there says so', async () => {
        expect(await store.revoke({ instanceId: 'nobody' }, NOW)).toBeUndefined();
        expect(await store.revoke({ thumbprint: 'nobody' }, NOW)).toBeUndefined();
      });

      test('a key of a revoked instance cannot enrol again under another name', async () => {
        await store.issue(request({ newInstanceId: 'mine' }));
        await store.revoke({ instanceId: 'mine' }, NOW);
        await store.putToken(token('token'), NOW);
        expect(await outcomeOf(byToken())).toBe('revoked');
        expect(await outcomeOf(byToken({ enrolmentThumbprint: 'enrolment-2' }))).toBe('key-of-other-instance');
      });
    });

    describe('devices', () => {
      const device = (changes: object = {}, clock: object = {}) => ({
        ek: 'ek-1',
        ak: 'ak-1',
        signer: 'signer-1',
        clock: { clock: 1_000_000, resetCount: 7, restartCount: 3, safe: true, ...clock },
        maxUnderway: 60,
        ...changes,
      });
      const pinned = (changes: object = {}, clock: object = {}) => {
        const { maxUnderway: _, ...statement } = device(changes, clock);
        return statement;
      };
      /** Long enough after NOW that no request of then is still under way. */
      const later = { now: NOW + 1000, expiresAt: NOW + 4600 };

      test('the first device is pinned with the instance, and is the same for every connection', async () => {
        expect(await store.device('enrolment-1')).toBeUndefined();
        expect(await store.issue(request({ device: device() }))).toMatchObject({ instance: { device: pinned() } });
        expect(await second.device('enrolment-1')).toEqual(pinned());
        expect(await store.device('key-1')).toBeUndefined();
        expect((await second.instances())[0]?.device).toEqual(pinned());
        expect(await store.revoke({ thumbprint: 'key-1' }, NOW)).toMatchObject({ device: pinned() });
      });

      test('an instance without a device has none, until it proves one', async () => {
        const { instance } = (await store.issue(request())) as { instance: object };
        expect(instance).toMatchObject({ device: undefined });
        expect(await store.device('enrolment-1')).toBeUndefined();
        expect(await outcomeOf(request({ device: device() }))).toBe('issued');
        expect(await store.device('enrolment-1')).toEqual(pinned());
      });

      test.each([
        ['no device', undefined, 'weaker-evidence'],
        ['another EK', device({ ek: 'ek-2' }), 'other-device'],
        ['another AK', device({ ak: 'ak-2' }), 'other-device'],
        ['another qualified signer', device({ signer: 'signer-2' }), 'other-device'],
        ['a reset count that went back', device({}, { resetCount: 6, clock: 2_000_000 }), 'rolled-back'],
        ['a reset count that went back over zero', device({}, { resetCount: 7 - 2 ** 31 + 2 ** 32 }), 'rolled-back'],
        ['a restart count that went back', device({}, { restartCount: 2, clock: 2_000_000 }), 'rolled-back'],
        ['a clock that went back', device({}, { clock: 999_999 }), 'rolled-back'],
        ['an unsafe clock that went back without a reset', device({}, { clock: 999_999, safe: false }), 'rolled-back'],
        ['a safe clock that went back over a reset', device({}, { clock: 999_999, resetCount: 8 }), 'rolled-back'],
      ])('%s is refused, and the record unchanged', async (_what, changed, why) => {
        await store.issue(request({ device: device() }));
        const before = await store.instances();
        expect(await outcomeOf(request({ ...later, device: changed }))).toBe(why);
        expect(await second.instances()).toEqual(before);
        expect(await outcomeOf(request({ ...later, device: device() }))).toBe('issued');
      });

      test('a power cut may cost a part of the clock, but not more than the TPM may lose', async () => {
        const clock = 2 ** 33;
        await store.issue(request({ device: device({}, { clock }) }));
        const cut = (lost: number) => device({}, { clock: clock - lost, resetCount: 8, restartCount: 0, safe: false });
        expect(await outcomeOf(request({ ...later, device: cut(2 ** 22 + 1) }))).toBe('rolled-back');
        expect(await outcomeOf(request({ ...later, device: cut(2 ** 22) }))).toBe('issued');
        expect(await store.device('enrolment-1')).toEqual(pinned({}, cut(2 ** 22).clock));
      });

      test("a TPM that loses its whole clock with the power: refused, unless clockAfterReset is 'any'", async () => {
        const clock = 2 ** 33;
        await store.issue(request({ device: device({}, { clock }) }));
        const any = { clockAfterReset: 'any' };
        const reset = (changes: object, reading: object) =>
          outcomeOf(request({ ...later, device: device(changes, { clock: 100_000, ...reading }) }));
        expect(await reset({}, { resetCount: 8 })).toBe('rolled-back');
        expect(await reset(any, { resetCount: 7 })).toBe('rolled-back'); // nothing was reset
        expect(await reset(any, { resetCount: 6 })).toBe('rolled-back');
        expect(await reset(any, { resetCount: 8, restartCount: 0 })).toBe('issued');
        expect(await store.device('enrolment-1')).toMatchObject({ clock: { clock: 100_000, resetCount: 8 } });
        expect(await reset(any, { resetCount: 8, clock: 39_999 })).toBe('rolled-back');
      });

      test('counters that pass their largest value go forward', async () => {
        await store.issue(request({ device: device({}, { resetCount: 2 ** 32 - 1 }) }));
        expect(await outcomeOf(request({ ...later, device: device({}, { resetCount: 0 }) }))).toBe('issued');
      });

      test('of two requests under way together either may come first, and the later reading stays', async () => {
        await store.issue(request({ device: device() }));
        const slow = device({}, { clock: 1_000_000 - 60_000 });
        expect(await outcomeOf(request({ now: NOW + 61, device: slow }))).toBe('rolled-back');
        expect(await outcomeOf(request({ now: NOW + 60, device: device({}, { clock: 1_000_000 - 60_001 }) }))).toBe(
          'rolled-back',
        );
        expect(await outcomeOf(request({ now: NOW + 60, device: slow }))).toBe('issued');
        expect(await store.device('enrolment-1')).toEqual(pinned());
      });

      test('of two connections that race to pin, one device wins and stays', async () => {
        for (let i = 0; i < 10; i++) {
          const asked = ['a', 'b'].map((ek) =>
            request({ enrolmentThumbprint: `e-${i}`, instanceThumbprint: `k-${i}`, device: device({ ek }) }),
          );
          const outcomes = await Promise.all([store.issue(asked[0]!), second.issue(asked[1]!)]);
          const winner = outcomes.findIndex(({ issued }) => issued);
          expect(outcomes[1 - winner]).toEqual({ issued: false, why: 'other-device' });
          expect((await store.device(`e-${i}`))?.ek).toBe(['a', 'b'][winner]);
        }
      });

      test('a refusal pins nothing', async () => {
        await store.issue(request({ indexes: [999] }));
        expect(await outcomeOf(request({ maxAttestations: 1, device: device() }))).toBe('too-many-attestations');
        expect(await outcomeOf(request({ indexes: [999], device: device() }))).toBe('index-taken');
        const thief = request({ enrolmentThumbprint: 'enrolment-2', device: device() });
        expect(await outcomeOf(thief)).toBe('key-of-other-instance');
        for (const thumbprint of ['enrolment-1', 'enrolment-2']) expect(await store.device(thumbprint)).toBeUndefined();
      });
    });

    test('what comes out is a copy', async () => {
      const outcome = await store.issue(request());
      if (outcome.issued) outcome.instance.revokedAt = 1;
      const [listed] = await store.instances();
      listed!.clientId = 'changed';
      expect(await outcomeOf(request())).toBe('issued');
    });

    test('after close every method fails with store_unavailable', async () => {
      await store.close();
      await store.close();
      const unavailable = { code: 'store_unavailable' };
      await expect(store.putChallenge({ hash: 'a', expiresAt: NOW }, { now: NOW, max: 1 })).rejects.toMatchObject(
        unavailable,
      );
      await expect(store.takeChallenge('a', NOW)).rejects.toMatchObject(unavailable);
      await expect(store.putToken(token('token'), NOW)).rejects.toMatchObject(unavailable);
      await expect(store.issue(request())).rejects.toMatchObject(unavailable);
      await expect(store.device('a')).rejects.toMatchObject(unavailable);
      await expect(store.revoke({ instanceId: 'a' }, NOW)).rejects.toMatchObject(unavailable);
      await expect(store.instances()).rejects.toMatchObject(unavailable);
      await expect(store.revokedIndexes(NOW)).rejects.toMatchObject(unavailable);
    });
  });
}
