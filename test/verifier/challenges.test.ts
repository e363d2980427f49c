import { describe, expect, it } from 'vitest';
import {
  type ChallengeContext,
  type Challenges,
  memoryChallengeStore,
  sealedChallenges,
  storedChallenges,
} from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { createWorld, expectRefused } from '../support/world.ts';

const START = Date.UTC(2026, 10, 22);
const context: ChallengeContext = { purpose: 'challenge', audience: 'https://as.example', now: START };
const later = (seconds: number, base = context): ChallengeContext => ({ ...base, now: base.now + seconds * 1000 });
const KEY_A = 'a'.repeat(32);
const KEY_B = 'b'.repeat(32);

describe('sealed challenges', () => {
  it('CHA-5: are good on any node that has the key, without any store', async () => {
    const [one, two] = [sealedChallenges({ keys: [KEY_A] }), sealedChallenges({ keys: [KEY_A] })];
    const value = await one.issue(context);
    expect(value).toMatch(/^[A-Za-z0-9_-]{42}$/);
    expect(await two.check(value, later(1))).toBe('good');
    expect(await one.check(value, later(1))).toBe('good');
    expect(one.spend).toBeUndefined();
  });

  it('CHA-5: keys roll over without a gap: add the new one last, move it first, drop the old one', async () => {
    const nodes = [[KEY_A], [KEY_A, KEY_B], [KEY_B, KEY_A], [KEY_B]].map((keys) => sealedChallenges({ keys }));
    for (const [i, node] of nodes.entries()) {
      for (const neighbour of [nodes[i - 1], nodes[i + 1]]) {
        if (neighbour) expect(await neighbour.check(await node.issue(context), later(1))).toBe('good');
      }
    }
    const [first, , , last] = nodes as [Challenges, Challenges, Challenges, Challenges];
    expect(await last.check(await first.issue(context), later(1))).toBe('bad');
  });

  it('CHA-5: every verifier has a key of its own unless one is given', async () => {
    expect(await sealedChallenges().check(await sealedChallenges().issue(context), context)).toBe('bad');
  });

  it.each([
    { name: 'another audience', context: { ...context, audience: 'https://as.example/' } },
    { name: 'another purpose', context: { ...context, purpose: 'dpop-nonce' as const } },
    { name: 'purpose and audience moved into each other', context: { ...context, audience: '' } },
  ])('POP-5, CHA-5: are worth nothing for $name', async ({ context: other }) => {
    const challenges = sealedChallenges();
    const value = await challenges.issue(context);
    expect(await challenges.check(value, context)).toBe('good'); // and is remembered
    expect(await challenges.check(value, other)).toBe('bad');
    expect(await challenges.check(await challenges.issue(other), context)).toBe('bad');
  });

  it.each([
    { seconds: 0, verdict: 'good' },
    { seconds: 150, verdict: 'good' },
    { seconds: 151, verdict: 'ageing' },
    { seconds: 300, verdict: 'ageing' },
    { seconds: 300.001, verdict: 'bad' },
    { seconds: 1e6, verdict: 'bad' },
    { seconds: -300, verdict: 'good' },
    { seconds: -301, verdict: 'bad' },
  ])('CHA-5, CHA-7: after $seconds seconds of 300 one is $verdict', async ({ seconds, verdict }) => {
    const challenges = sealedChallenges();
    const value = await challenges.issue(context);
    await challenges.check(value, context); // what is remembered must not keep it young
    expect(await challenges.check(value, later(seconds))).toBe(verdict);
  });

  it('POP-5: any change of any byte is noticed', async () => {
    const challenges = sealedChallenges();
    const value = await challenges.issue(context);
    const bytes = Buffer.from(value, 'base64url');
    for (let i = 0; i < bytes.length; i++) {
      for (const flip of [1, 0x80, 0xff]) {
        const changed = Buffer.from(bytes);
        changed[i] = (changed[i] as number) ^ flip;
        expect(await challenges.check(changed.toString('base64url'), context)).toBe('bad');
      }
    }
  });

  it.each([
    ['nothing', () => ''],
    ['a longer one', (value: string) => `${value}A`],
    ['a shorter one', (value: string) => value.slice(0, -1)],
    ['padding', (value: string) => `${value}==`],
    ['white space', (value: string) => ` ${value}`],
    ['10 MB', () => 'A'.repeat(10_000_000)],
    ['letters outside ASCII', (value: string) => value.replace(/^./, 'é')],
    [
      'another spelling of the last letter',
      (value: string) => value.replace(/.$/, (c) => String.fromCharCode(c.charCodeAt(0) + 1)),
    ],
  ])('POP-5: %s is bad', async (_, spoil) => {
    const challenges = sealedChallenges();
    expect(await challenges.check(spoil(await challenges.issue(context)), context)).toBe('bad');
  });

  it('CHA-5: no two are alike, also in the same millisecond', async () => {
    const challenges = sealedChallenges();
    const values = await Promise.all(Array.from({ length: 1000 }, () => challenges.issue(context)));
    expect(new Set(values).size).toBe(1000);
  });

  it.each([[[]], [['short']], [[KEY_A, 'short']], [[new Uint8Array(31)]]])(
    'CHA-5: keys %o are refused',
    async (keys) => {
      await expectRefusal(() => sealedChallenges({ keys }), { code: 'invalid_argument', rule: 'CHA-5' });
    },
  );

  it('CHA-5: keys that are no bytes, and a store that is none, are refused when they are given', async () => {
    for (const make of [
      () => sealedChallenges({ keys: [{ id: '1', key: KEY_A }] as never }),
      () => sealedChallenges({ keys: [KEY_A.length] as never }),
      () => storedChallenges(new Map() as never),
      () => storedChallenges(null as never),
    ]) {
      await expectRefusal(make, { code: 'invalid_argument', rule: 'CHA-5' });
    }
  });

  it('CHA-3, CHA-5: an ageing one is accepted, and the result has the next one', async () => {
    const world = createWorld({ challenges: sealedChallenges({ ttl: 100 }) });
    const challenge = await world.challenge();
    const use = async () => world.verify(await world.sent({ pop: await world.pop({ payload: { challenge } }) }));
    expect((await use()).challengeForNext).toBeUndefined();
    world.clock.now += 60_000;
    const { challengeForNext } = await use();
    world.clock.now += 60_000;
    const stale = await world.sent({ pop: await world.pop({ payload: { challenge } }) });
    await expectRefused(world, stale, { code: 'use_attestation_challenge', rule: 'POP-5' });
    const next = await world.sent({ pop: await world.pop({ payload: { challenge: String(challengeForNext) } }) });
    await expect(world.verify(next)).resolves.toMatchObject({ thumbprint: world.instance.thumbprint });
  });

  it('CHA-5, DPOP-4: an ageing DPoP nonce is accepted, and the result has the next one', async () => {
    const world = createWorld({ challenges: sealedChallenges({ ttl: 100 }) });
    const nonce = await world.nonce();
    world.clock.now += 60_000;
    const client = await world.verify(await world.sentCombined({ dpop: await world.dpop({ payload: { nonce } }) }));
    expect(client.challengeForNext).toBeUndefined();
    const next = await world.dpop({ payload: { nonce: String(client.dpopNonceForNext) } });
    await expect(world.verify(await world.sentCombined({ dpop: next }))).resolves.toMatchObject({
      method: 'dpop_combined',
    });
  });
});

describe('stored challenges', () => {
  const store = (options: { maxEntries?: number } = {}) => {
    const clock = { now: START };
    const kept = memoryChallengeStore({ ...options, now: () => clock.now });
    return { clock, kept, challenges: storedChallenges(kept) };
  };

  it('CHA-5: are single use', async () => {
    const { challenges } = store();
    const value = await challenges.issue(context);
    expect(await challenges.check(value, context)).toBe('ageing');
    expect(await challenges.check(value, context)).toBe('ageing'); // looking does not use it up
    const uses = await Promise.all(Array.from({ length: 50 }, () => challenges.spend?.(value, context)));
    expect(uses.filter((won) => won)).toHaveLength(1);
    expect(await challenges.check(value, context)).toBe('bad');
  });

  it('CHA-5: are good for their time, on every node that shares the store', async () => {
    const { clock, kept, challenges } = store();
    const other = storedChallenges(kept);
    const value = await challenges.issue(context);
    clock.now += 299_999;
    expect(await other.check(value, context)).toBe('ageing');
    clock.now += 1;
    expect(await other.check(value, context)).toBe('bad');
    expect(await other.spend?.(value, context)).toBe(false);
  });

  it('POP-5: are worth nothing for another audience or purpose, and a guess is bad', async () => {
    const { challenges } = store();
    const value = await challenges.issue(context);
    for (const other of [
      { ...context, audience: 'https://rs.example' },
      { ...context, purpose: 'dpop-nonce' as const },
    ]) {
      expect(await challenges.check(value, other)).toBe('bad');
      expect(await challenges.spend?.(value, other)).toBe(false);
    }
    expect(await challenges.check('x'.repeat(1_000_000), context)).toBe('bad');
    expect(await challenges.spend?.(value, context)).toBe(true);
  });

  it('CHA-5: the store sees a hash of the value, not the value', async () => {
    const seen: string[] = [];
    const put = (id: string) => void seen.push(id);
    const value = await storedChallenges({ put, has: () => false, take: () => false }).issue(context);
    expect(seen.join()).not.toContain(value);
    expect(value.length).toBeGreaterThanOrEqual(32);
  });

  it('IMPL-4: the memory store is bounded: when it is full the oldest goes', async () => {
    const { challenges, clock } = store({ maxEntries: 100 });
    const values: string[] = [];
    for (let i = 0; i < 150; i++) values.push(await challenges.issue(context));
    const verdicts = await Promise.all(values.map((value) => challenges.check(value, context)));
    expect(verdicts).toEqual([...Array(50).fill('bad'), ...Array(100).fill('ageing')]);
    clock.now -= 3600_000; // a clock that goes back neither forgets nor throws
    expect(await challenges.check(values.at(-1) as string, context)).toBe('ageing');
  });

  it('CHA-5, VER-7: a store that answers with thenables of its own is waited for', async () => {
    // knex and bluebird answer with objects that are no native promises: taken for an answer they would all be truthy
    // biome-ignore lint/suspicious/noThenProperty: such objects are what is tested
    const thenable = <T>(value: T) => ({ then: (done: (value: T) => void) => done(value) }) as unknown as Promise<T>;
    const challenges: Challenges = {
      issue: () => 'value',
      check: (value) => thenable(value === 'value' ? ('good' as const) : ('bad' as const)),
      spend: () => thenable(false),
    };
    const world = createWorld({ challenges, replay: { claim: () => thenable(true) } });
    for (const challenge of ['wrong', 'value']) {
      const pop = await world.pop({ payload: { challenge } });
      await expectRefused(world, await world.sent({ pop }), { code: 'use_attestation_challenge', rule: 'POP-5' });
      const dpop = await world.dpop({ payload: { nonce: challenge } });
      await expectRefused(world, await world.sentCombined({ dpop }), { code: 'use_dpop_nonce', rule: 'DPOP-4' });
    }
    const replayed = createWorld({ replay: { claim: () => thenable(false) } });
    await expectRefused(replayed, await replayed.sent(), { code: 'invalid_client_attestation', rule: 'VER-8' });
    await expectRefused(replayed, await replayed.sentCombined(), { code: 'invalid_dpop_proof', rule: 'VER-8' });
  });

  // what Number() makes of a setting that is not there: compared with it, no challenge would ever be too old
  it.each([Number.NaN, 0, -1, '300'])('CHA-5: a ttl of %o is refused', async (ttl) => {
    for (const make of [
      () => sealedChallenges({ ttl: ttl as number }),
      () => storedChallenges(undefined, { ttl: ttl as number }),
    ]) {
      await expectRefusal(make, { code: 'invalid_argument', rule: 'CHA-5' });
    }
  });
});
