/** How much a message may cost once it is parsed. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { INVALID_REQUEST, readEnvelope } from '../../src/bridge/message.ts';
import { isTooIntricate } from '../../src/bridge/weight.ts';

const MEGABYTE = 1024 * 1024;
const answer = (inner: string): Uint8Array => Buffer.from(`{"jsonrpc":"2.0","id":1,"result":{"x":${inner}}}`);

describe('a text that would fill the memory is refused before it is parsed', () => {
  test.each([
    ['objects', answer(`[${'{},'.repeat(8 * MEGABYTE)}0]`)],
    ['arrays', answer(`[${'[],'.repeat(8 * MEGABYTE)}0]`)],
    ['numbers', answer(`[${'1,'.repeat(12 * MEGABYTE)}0]`)],
    ['depth', answer('['.repeat(4 * MEGABYTE) + ']'.repeat(4 * MEGABYTE))],
  ])('%s', (_what, text) => {
    const before = performance.now();
    expect(readEnvelope(text)).toBe(INVALID_REQUEST);
    expect(performance.now() - before).toBeLessThan(2000);
  });
});

describe('what is large, and no more than that, is a message', () => {
  test.each([
    ['a text of brackets and commas', answer(JSON.stringify('[{,'.repeat(4 * MEGABYTE)))],
    ['a text of quotes', answer(JSON.stringify('"[{'.repeat(4 * MEGABYTE)))],
    ['a text of backslashes', answer(JSON.stringify('\\'.repeat(8 * MEGABYTE)))],
    [
      'a table of a hundred thousand rows',
      answer(JSON.stringify(Array(100_000).fill({ name: 'a name', numbers: [1, 2] }))),
    ],
  ])('%s', (_what, text) => {
    expect(readEnvelope(text)).toMatchObject({ messages: [{ kind: 'response', id: 1 }] });
  });
});

test('brackets in strings, however those are escaped, do not count', () => {
  const filler = ' '.repeat(MEGABYTE);
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: fc.constantFrom('"', '\\', '[', '{', ',', 'a') }), { maxLength: 20 }),
      (texts) => {
        const text = JSON.stringify({ texts: texts.map((each) => each.repeat(3000)) });
        expect(isTooIntricate(Buffer.from(filler + text))).toBe(false);
        // and what stands behind them does
        const bomb = `[${text},${'[],'.repeat(1_000_001)}0]`;
        expect(isTooIntricate(Buffer.from(bomb))).toBe(true);
      },
    ),
    { numRuns: 30 },
  );
});

test('a text without end', () => {
  for (const text of ['"', '"\\', '"\\"']) expect(isTooIntricate(Buffer.from(text.padStart(MEGABYTE + 1)))).toBe(false);
});
