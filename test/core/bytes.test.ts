import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeBase64url,
  decodeTextBase64url,
  encodeBase64url,
  encodeTextBase64url,
  fromUtf8,
  utf8,
} from '../../src/core/bytes.ts';

describe('base64url', () => {
  it('ATT-8: agrees with Buffer for every length to 520 and some long ones', () => {
    for (const length of [...Array(520).keys(), 4095, 4096, 65_537]) {
      const bytes = randomBytes(length);
      const text = bytes.toString('base64url');
      expect(encodeBase64url(bytes)).toBe(text);
      expect(Buffer.from(decodeBase64url(text) as Uint8Array).equals(bytes)).toBe(true);
    }
  });

  it('ATT-8: has exactly one text for each byte string: all texts of up to three letters', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const letters = [...alphabet];
    expect(decodeBase64url('')).toEqual(new Uint8Array());
    for (const a of letters) {
      expect(decodeBase64url(a)).toBeUndefined();
      for (const b of letters) {
        const two = a + b;
        const bytes = decodeBase64url(two);
        expect(bytes === undefined).toBe(alphabet.indexOf(b) % 16 !== 0);
        if (bytes) expect(encodeBase64url(bytes)).toBe(two);
        for (const c of 'AEIQgw_-BCDR') {
          const three = decodeBase64url(two + c);
          expect(three === undefined).toBe(alphabet.indexOf(c) % 4 !== 0);
          if (three) expect(encodeBase64url(three)).toBe(two + c);
        }
      }
    }
  });

  it.each([
    ['padding', 'QQ=='],
    ['padding alone', '='],
    ['padding where none is due', 'QUJD===='],
    ['a space before', ' QUJD'],
    ['a space after', 'QUJD '],
    ['a space inside', 'QU JD'],
    ['a line break', 'QUJD\n'],
    ['a tab', 'QU\tD'],
    ['NUL', 'QUJ\0'],
    ['plus', 'QUJ+'],
    ['slash', 'QUJ/'],
    ['a letter outside ASCII', 'QUJé'],
    ['a letter whose low byte is in the alphabet', 'QUJ\u0141'],
    ['a surrogate', 'QUJ\ud800'],
    ['trailing bits in two letters', 'QR'],
    ['trailing bits in three letters', 'QUJ'],
    ['an impossible length', 'QUJDR'],
  ])('ATT-8: %s is refused', (_, text) => expect(decodeBase64url(text)).toBeUndefined());

  it('ATT-8: what is accepted is what would be written, for any text', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.base64String(), fc.string({ unit: 'binary' })), (text) => {
        const bytes = decodeBase64url(text);
        if (bytes !== undefined) expect(encodeBase64url(bytes)).toBe(text);
      }),
    );
  });
});

describe('base64url of texts', () => {
  const texts = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), fc.json());

  it('ATT-8: is the one of their bytes', () => {
    fc.assert(
      fc.property(texts, (text) => {
        const encoded = encodeTextBase64url(text);
        expect(encoded).toBe(Buffer.from(text).toString('base64url'));
        expect(decodeTextBase64url(encoded)).toBe(Buffer.from(text).toString());
      }),
      { numRuns: 1000 },
    );
    for (const text of ['\ud800', 'a\udfff', '\uFEFFx', '\0', '\x7f', '\x80', 'é', '>>>???', '\u{10ffff}']) {
      expect(decodeTextBase64url(encodeTextBase64url(text))).toBe(Buffer.from(text).toString());
    }
  });

  it('ATT-8: is as strict as the one of bytes, and about UTF-8 too', () => {
    const encodings = fc.oneof(
      fc.string(),
      fc.base64String(),
      fc.string({ unit: fc.constantFrom(...'AQgw_-+/= \n\té\u0141') }),
      fc.uint8Array().map((bytes) => Buffer.from(bytes).toString('base64url')),
    );
    fc.assert(
      fc.property(encodings, (encoded) => {
        const bytes = decodeBase64url(encoded);
        expect(decodeTextBase64url(encoded)).toBe(bytes === undefined ? undefined : fromUtf8(bytes));
      }),
      { numRuns: 3000 },
    );
    for (const encoded of ['QQ==', 'QR', 'QUJ', 'QUJDR', 'QUJD\n', 'wyg', '_w', '=', ' ']) {
      expect(decodeTextBase64url(encoded), encoded).toBeUndefined();
    }
  });
});

describe('UTF-8', () => {
  it('ATT-8: is decoded strictly', () => {
    const bad = ['80', 'c080', 'c328', 'e28228', 'eda080', 'f4908080', 'fe', 'ff', 'f0288cbc', 'e282'];
    for (const hex of bad) expect(fromUtf8(Buffer.from(hex, 'hex')), hex).toBeUndefined();
    expect(fromUtf8(Buffer.from('efbbbf41', 'hex'))).toBe('\uFEFFA');
    fc.assert(fc.property(fc.string({ unit: 'grapheme' }), (text) => fromUtf8(utf8(text)) === text));
  });
});
