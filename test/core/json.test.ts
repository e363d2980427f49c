import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isJsonObject, parseJsonObject } from '../../src/core/json.ts';

describe('parseJsonObject', () => {
  it('ATT-8: reads one object', () => {
    expect(parseJsonObject('{}')).toEqual({});
    expect(parseJsonObject(' {"a":{"a":[{"a":1},{"a":2}]},"b":"x:{\\"a\\":1}","c":null}\n')).toEqual({
      a: { a: [{ a: 1 }, { a: 2 }] },
      b: 'x:{"a":1}',
      c: null,
    });
  });

  it.each([
    ['nothing', ''],
    ['white space', '  '],
    ['a list', '[]'],
    ['a list of an object', '[{"a":1}]'],
    ['null', 'null'],
    ['a number', '1'],
    ['a string', '"{}"'],
    ['two objects', '{}{}'],
    ['text after it', '{} x'],
    ['a comment', '{/* */}'],
    ['a trailing comma', '{"a":1,}'],
    ['single quotes', "{'a':1}"],
    ['no quotes', '{a:1}'],
    ['NaN', '{"a":NaN}'],
    ['Infinity', '{"a":Infinity}'],
    ['a leading zero', '{"a":01}'],
    ['a byte order mark', '\uFEFF{}'],
    ['an unfinished string', '{"a'],
    ['an unfinished escape', '{"a\\'],
    ['an unfinished object', '{"a":1'],
    ['too many brackets', '{}}'],
    ['a raw control character', '{"a":"\u0001"}'],
  ])('ATT-8: %s is refused', (_, text) => expect(parseJsonObject(text)).toBeUndefined());

  it.each([
    ['plain', '{"a":1,"a":2}'],
    ['with the same value', '{"a":1,"a":1}'],
    ['behind an escape', '{"a":1,"\\u0061":2}'],
    ['behind an escape of upper case', '{"/":1,"\\u002F":2}'],
    ['behind a short escape', '{"/":1,"\\/":2}'],
    ['nested', '{"x":{"a":1,"a":2}}'],
    ['in a list', '{"x":[{"a":1,"a":2}]}'],
    ['far apart', `{"a":1,${Array.from({ length: 500 }, (_, i) => `"m${i}":${i}`).join()},"a":2}`],
    ['of an empty name', '{"":1,"":2}'],
    ['of an object that vanishes', '{"a":{"b":1,"c":2},"a":{"b":1,"c":2,"d":3}}'],
    ['made up for by colons in strings', '{"a":":","a":":"}'],
    ['of an integer name', '{"1":1,"1":2}'],
  ])('ATT-8: a duplicate member %s is refused', (_, text) => expect(parseJsonObject(text)).toBeUndefined());

  it.each([
    '{"__proto__":{}}',
    '{"a":{"__proto__":1}}',
    '{"a":[{"__proto__":1}]}',
    '{"\\u005f_proto__":1}',
    '{"__proto__":1,"__proto__":2}',
  ])('ATT-8: __proto__ is refused: %s', (text) => {
    expect(parseJsonObject(text)).toBeUndefined();
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });
  it('ATT-6: names that every object inherits are names like others', () => {
    const value = parseJsonObject('{"constructor":1,"toString":2,"hasOwnProperty":3}');
    expect(value).toMatchObject({ constructor: 1, toString: 2, hasOwnProperty: 3 });
  });

  it('ATT-8: 16 levels are read, 17 are refused, and a million take no time', () => {
    const nested = (depth: number) => `{"a":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`;
    expect(parseJsonObject(nested(16))).toBeDefined();
    expect(parseJsonObject(nested(17))).toBeUndefined();
    const objects = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
    expect(parseJsonObject(objects(16))).toBeDefined();
    expect(parseJsonObject(objects(17))).toBeUndefined();
    const startedAt = performance.now();
    expect(parseJsonObject(nested(1_000_000))).toBeUndefined();
    expect(parseJsonObject(`{"a":"${'['.repeat(100_000)}"}`)).toBeDefined();
    expect(performance.now() - startedAt).toBeLessThan(1000);
  });

  it('ATT-8: agrees with JSON.parse on every object without duplicates, and never throws on any text', () => {
    const value = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 4 }));
    fc.assert(
      fc.property(value, fc.constantFrom(undefined, 2), (object, indent) => {
        const text = JSON.stringify(object, null, indent);
        if (text.includes('__proto__')) return;
        expect(parseJsonObject(text)).toEqual(JSON.parse(text));
      }),
    );
    const pieces = fc.constantFrom('{', '}', '[', ']', ':', ',', '"', '\\', '"a"', '"a":', '1', 'null', '\\u0061', ' ');
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 30 }), (parts) => {
        const parsed = parseJsonObject(parts.join(''));
        expect(parsed === undefined || isJsonObject(parsed)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it('ATT-8: any member written twice is found', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }), { minKeys: 1 }),
        fc.nat(),
        (object, pick) => {
          const members = Object.entries(object).map(
            ([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`,
          );
          const again = members[pick % members.length] as string;
          expect(parseJsonObject(`{${[...members, again].join()}}`)).toBeUndefined();
        },
      ),
    );
  });
});
