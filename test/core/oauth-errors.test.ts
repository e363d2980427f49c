import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isRetryCode, parseChallenges, readErrorCode } from '../../src/core/oauth-errors.ts';

describe('parseChallenges', () => {
  it.each([
    ['Bearer', [['bearer', {}]]],
    ['Bearer error="invalid_token"', [['bearer', { error: 'invalid_token' }]]],
    ['DPoP error="use_dpop_nonce", algs="ES256 PS256"', [['dpop', { error: 'use_dpop_nonce', algs: 'ES256 PS256' }]]],
    ['Bearer error=use_attestation_challenge', [['bearer', { error: 'use_attestation_challenge' }]]],
    ['BEARER ERROR = "x"', [['bearer', { error: 'x' }]]],
    [
      'Bearer a="1", DPoP b="2", Basic realm="r"',
      [
        ['bearer', { a: '1' }],
        ['dpop', { b: '2' }],
        ['basic', { realm: 'r' }],
      ],
    ],
    [
      'Bearer a="1",,, DPoP',
      [
        ['bearer', { a: '1' }],
        ['dpop', {}],
      ],
    ],
    ['Bearer realm="a, DPoP error=\\"x\\""', [['bearer', { realm: 'a, DPoP error="x"' }]]],
    ['Bearer a="\\\\"', [['bearer', { a: '\\' }]]],
    ['Bearer a="", b=x', [['bearer', { a: '', b: 'x' }]]],
    ['Bearer error="first", error="second"', [['bearer', { error: 'first' }]]],
    [
      'Negotiate YWJj/+==, DPoP error="use_dpop_nonce"',
      [
        ['negotiate', {}],
        ['dpop', { error: 'use_dpop_nonce' }],
      ],
    ],
    ['Negotiate YWJj', [['negotiate', {}]]],
    ['', []],
    ['   ', []],
    ['a="b"', []],
    [
      'Bearer a="unfinished',
      [
        ['bearer', {}],
        ['a', {}],
      ],
    ],
  ] as [string, [string, object][]][])('ERR-4: %s', (text, expected) => {
    const read = parseChallenges(text).map(({ scheme, params }) => [scheme, { ...params }]);
    expect(read).toEqual(expected);
  });

  it('ERR-4: names that objects inherit are parameters like others', () => {
    const [challenge] = parseChallenges('Bearer __proto__="x", constructor="y"');
    expect(Object.keys(challenge?.params ?? {}).sort()).toEqual(['__proto__', 'constructor']);
    expect(({} as { x?: unknown }).x).toBeUndefined();
  });

  it('ERR-4: hostile text is read in bounded time, and what is too long is not read', () => {
    const startedAt = performance.now();
    for (const piece of ['a ', 'a=', 'a="', '\\', '" ', '="\\', ', ', '\t', 'a\t\t', 'a=b,', '"', '=', 'a= "']) {
      for (const length of [8000, 8192, 100_000]) {
        const text = `Bearer ${piece.repeat(length)}`.slice(0, length);
        expect(parseChallenges(text).length).toBeLessThanOrEqual(length);
        expect(parseChallenges(`${text}" x`).length).toBeLessThanOrEqual(length);
      }
    }
    expect(parseChallenges(`Bearer a="${'x'.repeat(9000)}"`)).toEqual([]);
    expect(performance.now() - startedAt).toBeLessThan(2000);
  });

  it('ERR-4: any text gives a list, never an exception', () => {
    const pieces = fc.constantFrom('Bearer', 'DPoP', ' ', ',', '=', '"', '\\', 'error', 'x', '\t', 'é', '\0');
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(pieces).map((parts) => parts.join('')),
        ),
        (text) => {
          for (const { scheme, params } of parseChallenges(text)) {
            expect(scheme).toBe(scheme.toLowerCase());
            for (const value of Object.values(params)) expect(typeof value).toBe('string');
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe('readErrorCode', () => {
  it.each([
    [null, { error: 'use_attestation_challenge' }, 'use_attestation_challenge'],
    [undefined, { error: 'invalid_grant' }, 'invalid_grant'],
    ['Bearer error="use_attestation_challenge"', undefined, 'use_attestation_challenge'],
    ['Bearer error="invalid_token", DPoP error="use_dpop_nonce"', undefined, 'use_dpop_nonce'],
    ['Bearer error="invalid_client"', { error: 'use_fresh_attestation' }, 'use_fresh_attestation'],
    ['DPoP error="use_dpop_nonce"', { error: 'invalid_token' }, 'use_dpop_nonce'],
    ['Bearer error="invalid_token"', 'text', 'invalid_token'],
    ['Bearer', undefined, undefined],
    [null, undefined, undefined],
    [null, null, undefined],
    [null, [], undefined],
    [null, { error: 5 }, undefined],
    [null, { error: { toString: 1 } }, undefined],
  ])('ERR-4: %o with body %o', (header, body, code) => expect(readErrorCode(header, body)).toBe(code));

  it('ERR-4: only three codes are worth another try', () => {
    expect(['use_attestation_challenge', 'use_dpop_nonce', 'use_fresh_attestation'].every(isRetryCode)).toBe(true);
    expect(['invalid_client', 'toString', '__proto__', '', undefined].some(isRetryCode)).toBe(false);
  });
});
