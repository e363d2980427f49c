import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { memoryReplay } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';

const WINDOW = 330;
const T = 1_800_000_000;
/** A proof created at `at`, arriving at `now` (seconds). */
const proof = (jti: string, at = T, now = at, instance = 'pop key-1') => ({
  instance,
  jti,
  createdAt: at,
  expiresAt: at + WINDOW,
  now,
});

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
function heapInUse(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

describe('memoryReplay', () => {
  it('VER-8, IMPL-4: accepts a proof once inside its window, to the last second', () => {
    const replay = memoryReplay();
    expect(replay.claim(proof('a'))).toBe(true);
    for (const later of [0, 1, 60, 329, WINDOW]) expect(replay.claim(proof('a', T, T + later))).toBe(false);
  });

  it('VER-8: tells instances and kinds of proof apart', () => {
    const replay = memoryReplay();
    for (const instance of ['pop key-1', 'pop key-2', 'dpop key-1']) {
      expect(replay.claim(proof('same', T, T, instance))).toBe(true);
      expect(replay.claim(proof('same', T, T, instance))).toBe(false);
    }
  });

  it('VER-8, IMPL-4: a long jti costs no more memory than a short one, and is known again', () => {
    const replay = memoryReplay();
    // decoded, as from a token: V8 shares the parts of a text that was put together
    const long = (i: number) => Buffer.from(`${'\u4e00'.repeat(500)}${i}`).toString();
    const before = heapInUse();
    for (let i = 0; i < 50_000; i++) replay.claim(proof(long(i)));
    expect(heapInUse() - before).toBeLessThan(20e6);
    for (const i of [0, 49_999]) expect(replay.claim(proof(long(i)))).toBe(false);
  });

  it('VER-8: knows a jti again under another iat', () => {
    const replay = memoryReplay();
    expect(replay.claim(proof('a', T))).toBe(true);
    expect(replay.claim(proof('a', T + 200, T + 200))).toBe(false);
    expect(replay.claim(proof('a', T - 200, T))).toBe(false);
  });

  it('IMPL-4: what has left the window is dropped, and the memory is free again', () => {
    const replay = memoryReplay({ maxEntries: 100 });
    for (let round = 0; round < 20; round++) {
      const at = T + round * 600;
      for (let i = 0; i < 100; i++) expect(replay.claim(proof(`${round} ${i}`, at))).toBe(true);
    }
  });

  it('IMPL-4: no proof inside the window is mistaken for a replay, however old and whatever came before it', () => {
    for (const offset of [0, 1, 30, 59]) {
      for (let now = T + offset; now < T + 3 * WINDOW; now++) {
        const replay = memoryReplay();
        replay.claim(proof('early', T + offset));
        expect(replay.claim(proof('late', now - WINDOW, now)), `${now - T} seconds after the start`).toBe(true);
      }
    }
  });

  it('IMPL-4: when it is full it refuses, and forgets nothing', async () => {
    const replay = memoryReplay({ maxEntries: 10 });
    for (let i = 0; i < 10; i++) replay.claim(proof(`${i}`));
    await expectRefusal(() => replay.claim(proof('one more')), { code: 'temporarily_unavailable', rule: 'IMPL-4' });
    for (let i = 0; i < 10; i++) expect(replay.claim(proof(`${i}`))).toBe(false);
    expect(replay.claim(proof('later', T + 1000))).toBe(true);
  });

  it('IMPL-4: a clock that goes back lets nothing through a second time', () => {
    const replay = memoryReplay();
    expect(replay.claim(proof('a', T))).toBe(true);
    expect(replay.claim(proof('b', T + 1000))).toBe(true); // this drops the first
    expect(replay.claim(proof('a', T, T))).toBe(false); // the clock is back
    expect(replay.claim(proof('b', T + 1000, T + 700))).toBe(false);
  });

  it('IMPL-4: 100,000 live entries stay within 60 MB and are looked up fast', () => {
    const replay = memoryReplay();
    const before = process.memoryUsage().heapUsed;
    const startedAt = performance.now();
    for (let i = 0; i < 100_000; i++) replay.claim(proof(`0f8fad5b-d9cb-469f-a165-7086${i}`, T + (i % 300), T + 300));
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(60e6);
    expect(performance.now() - startedAt).toBeLessThan(3000);
    expect(replay.claim(proof('0f8fad5b-d9cb-469f-a165-708650000', T + (50_000 % 300), T + 300))).toBe(false);
  });
});
