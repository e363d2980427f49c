import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { asLine, readLines } from '../../src/bridge/lines.ts';
import { openSink } from '../../src/bridge/sink.ts';
import { readEvents, type ServerEvent } from '../../src/bridge/sse.ts';
import { refusalOf } from '../support/errors.ts';

const bytes = (text: string) => Buffer.from(text, 'utf8');
const textOf = (line: Uint8Array | undefined) => (line === undefined ? undefined : Buffer.from(line).toString('utf8'));

/** Cuts at the given places, wherever they are. */
function cut(whole: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [...new Set(places.map((place) => place % (whole.length + 1)))].sort((a, b) => a - b);
  return [...at, whole.length].map((end, i) => whole.subarray(at[i - 1] ?? 0, end));
}

function linesOf(chunks: readonly Uint8Array[], maxBytes = 1000): (string | undefined)[] {
  const lines: (string | undefined)[] = [];
  const reader = readLines(maxBytes, (line) => lines.push(textOf(line)));
  for (const chunk of chunks) reader.push(chunk);
  reader.end();
  return lines;
}

function eventsOf(chunks: readonly Uint8Array[], maxBytes = 10_000) {
  const events: { id: string | undefined; type: string; data: string }[] = [];
  const reader = readEvents(maxBytes, (event: ServerEvent) =>
    events.push({ ...event, data: textOf(event.data) ?? '' }),
  );
  for (const chunk of chunks) reader.push(chunk);
  return { events, retry: reader.retry };
}

test('a sink gives back what was pushed, whatever the parts', () => {
  fc.assert(
    fc.property(fc.array(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 30 }), { maxLength: 4 }), (rounds) => {
      const sink = openSink();
      for (const parts of rounds) {
        for (const part of parts) sink.push(part);
        expect(sink.size).toBe(parts.reduce((sum, part) => sum + part.length, 0));
        expect(Buffer.from(sink.take())).toEqual(Buffer.concat(parts));
        expect(sink.size).toBe(0);
      }
    }),
  );
});

test('a sink of a million parts takes linear time', () => {
  const sink = openSink();
  const part = Uint8Array.of(7);
  const start = performance.now();
  for (let i = 0; i < 1_000_000; i++) sink.push(part);
  expect(sink.take()).toHaveLength(1_000_000);
  expect(performance.now() - start).toBeLessThan(2000);
});

describe('lines', () => {
  test('are the same however they are cut into chunks', () => {
    const line = fc.string({ unit: 'binary' }).map((text) => text.replace(/[\r\n]/g, '').concat('.'));
    fc.assert(
      fc.property(fc.array(line, { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 12 }), (lines, places) => {
        const whole = bytes(lines.map((text, i) => `${text}${i % 2 === 0 ? '\n' : '\r\n'}`).join(''));
        expect(linesOf(cut(whole, places), whole.length + 1)).toEqual(lines.map((text) => textOf(bytes(text))));
      }),
    );
  });

  test.each<[string, string[], (string | undefined)[]]>([
    ['blank ones are left out', ['\n\r\n \t\na\n\n'], ['a']],
    ['the last needs no end', ['a\nb'], ['a', 'b']],
    ['one that is too long is reported, and the next is read', ['0123456789x', 'yz\nb\n'], [undefined, 'b']],
    ['one that is just not too long', ['0123456789\n'], ['0123456789']],
  ])('%s', (_what, chunks, expected) => {
    expect(linesOf(chunks.map(bytes), 10)).toEqual(expected);
  });

  test('a JSON text as a line is one line, and the same JSON', () => {
    fc.assert(
      fc.property(fc.json(), fc.constantFrom(undefined, 2, '\t'), fc.boolean(), (json, indent, returns) => {
        const pretty = JSON.stringify(JSON.parse(json), undefined, indent);
        const line = asLine(bytes(returns ? pretty.replaceAll('\n', '\r\n') : pretty));
        const text = textOf(line) as string;
        expect(text.search(/[\r\n]/)).toBe(text.length - 1);
        expect(JSON.parse(text)).toEqual(JSON.parse(json));
      }),
    );
  });
});

describe('events', () => {
  const message = (data: string, id?: string) => ({ id, type: 'message', data });
  test.each<[string, string, ReturnType<typeof message>[]]>([
    ['one', 'data: a\n\n', [message('a')]],
    ['without the space', 'data:a\n\n', [message('a')]],
    ['with two', 'data:  a\n\n', [message(' a')]],
    ['lines of data are joined', 'data: YHOO\ndata: +2\ndata: 10\n\n', [message('YHOO\n+2\n10')]],
    ['an empty one of two lines', 'data\ndata\n\n', [message('\n')]],
    ['comments and unknown fields are passed over', ': hello\nfoo: bar\ndata: a\nid2: 7\n\n', [message('a')]],
    ['nothing without data', 'event: x\n\n\n\n', []],
    ['an id stays until it is changed', 'id: 1\ndata: a\n\ndata: b\n\n', [message('a', '1'), message('b', '1')]],
    ['and is emptied', 'id: 1\ndata: a\n\nid\ndata: b\n\n', [message('a', '1'), message('b')]],
    ['an id alone', 'id: 7\n\n', [message('', '7')]],
    [
      'an id that no header field can carry',
      'id: 7\u0000\ndata: a\n\nid: ü\ndata: b\n\n',
      [message('a'), message('b')],
    ],
    ['a type', 'event: endpoint\ndata: /x\n\n', [{ id: undefined, type: 'endpoint', data: '/x' }]],
    ['a byte order mark', '\ufeffdata: a\n\n', [message('a')]],
    ['what is not finished is not given', 'data: a\n', []],
  ])('%s', (_what, text, expected) => {
    for (const end of ['\n', '\r\n', '\r']) {
      const whole = bytes(text.replaceAll('\n', end));
      expect(eventsOf([whole]).events).toEqual(expected);
      expect(eventsOf([...whole].map((byte) => Uint8Array.of(byte))).events).toEqual(expected);
    }
  });

  test('are the same however they are cut into chunks', () => {
    const data = fc.string({ unit: 'binary', minLength: 1 }).map((text) => text.replace(/[\r\n]/g, ' '));
    const end = fc.constantFrom('\n', '\r\n', '\r');
    fc.assert(
      fc.property(
        fc.array(fc.tuple(data, end), { maxLength: 6 }),
        fc.array(fc.nat(), { maxLength: 12 }),
        (all, places) => {
          const whole = bytes(all.map(([text, ending]) => `data: ${text}${ending}${ending}`).join(''));
          const expected = all.map(([text]) => message(bytes(text).toString('utf8')));
          expect(eventsOf(cut(whole, places), 10_000).events).toEqual(expected);
        },
      ),
    );
  });

  test('the pause that the server asks for', () => {
    expect(eventsOf([bytes('retry: 250\n\n')]).retry).toBe(250);
    expect(eventsOf([bytes('retry: soon\nretry: -1\nretry: 99999999999999\n\n')]).retry).toBeUndefined();
  });

  test.each<[string, string]>([
    ['in one line', `data: ${'x'.repeat(200)}`],
    ['in many', 'data: xxxxxxxx\n'.repeat(40)],
    ['in a field that nobody wants', `x: ${'x'.repeat(200)}`],
  ])('one that is too large is refused: %s', async (_what, text) => {
    const error = await refusalOf(async () => eventsOf([bytes(text)], 100));
    expect(error.code).toBe('http_too_large');
  });
});
