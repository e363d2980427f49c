import { expect, test } from 'vitest';
import { createLanes } from '../../src/keys/lanes.ts';
import { createLru } from '../../src/keys/lru.ts';

test('jobs of one lane run one after another, also after a failure; other lanes do not wait', async () => {
  const lanes = createLanes();
  const events: string[] = [];
  const job =
    (name: string, turns: number, fails = false) =>
    async () => {
      events.push(`${name} starts`);
      for (let i = 0; i < turns; i++) await null;
      events.push(`${name} ends`);
      if (fails) throw new Error(name);
      return name;
    };
  const slow = lanes.run('lane', job('first', 50, true));
  const next = lanes.run('lane', job('second', 1));
  const other = lanes.run('other', job('other', 1));
  await expect(slow).rejects.toThrow('first');
  expect(await Promise.all([next, other])).toEqual(['second', 'other']);
  expect(events.indexOf('second starts')).toBeGreaterThan(events.indexOf('first ends'));
  expect(events.indexOf('other ends')).toBeLessThan(events.indexOf('first ends'));
});

test('idle waits for all that was begun', async () => {
  const lanes = createLanes();
  let done = 0;
  const job = async () => {
    await null;
    done++;
  };
  for (const lane of ['a', 'a', 'b']) void lanes.run(lane, job);
  await lanes.idle();
  expect(done).toBe(3);
});

test('a bounded map forgets what was used least recently', () => {
  const lru = createLru<number>(2);
  lru.set('a', 1);
  lru.set('b', 2);
  lru.get('a');
  lru.set('c', 3);
  expect(['a', 'b', 'c'].map((key) => lru.get(key))).toEqual([1, undefined, 3]);
});
