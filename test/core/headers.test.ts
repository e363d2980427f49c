import { describe, expect, it } from 'vitest';
import { type HeadersInput, readAttestationFields } from '../../src/core/headers.ts';
import { expectRefusal } from '../support/errors.ts';

type Pairs = [string, string][];
const shapes: Record<string, (pairs: Pairs) => HeadersInput> = {
  'web Headers': (pairs) => new Headers(pairs),
  pairs: (pairs) => pairs,
  'a flat list': (pairs) => pairs.flat(),
  'a record of lists': (pairs) => {
    const record: Record<string, string[]> = {};
    for (const [name, value] of pairs) {
      const key = name.toLowerCase();
      record[key] = [...(record[key] ?? []), value];
    }
    return record;
  },
  'an iterator': (pairs) => pairs.values(),
};
const names = {
  attestation: 'OAuth-Client-Attestation',
  pop: 'OAuth-Client-Attestation-PoP',
  dpop: 'DPoP',
  authorization: 'Authorization',
} as const;

describe.each(Object.entries(shapes))('fields in %s', (_, shape) => {
  it('ATT-9, POP-8, DPOP-1: are read, whatever the case of their names', () => {
    const pairs: Pairs = Object.values(names).map((name, i) => [i % 2 ? name.toUpperCase() : name, `v${i}`]);
    const others: Pairs = [
      ['Accept', 'a, b'],
      ['OAuth-Client-Attestation-PoPX', 'x'],
      ['X-DPoP', 'x'],
      ['dpo', 'x'],
    ];
    expect(readAttestationFields(shape([...others, ...pairs]))).toEqual({
      attestation: 'v0',
      pop: 'v1',
      dpop: 'v2',
      authorization: 'v3',
    });
  });

  it('VER-1: absent fields are undefined', () => {
    expect(readAttestationFields(shape([]))).toEqual({
      attestation: undefined,
      pop: undefined,
      dpop: undefined,
      authorization: undefined,
    });
  });

  it.each([
    { field: names.attestation, code: 'invalid_client_attestation', rule: 'VER-1' },
    { field: names.pop, code: 'invalid_client_attestation', rule: 'POP-8' },
    { field: names.dpop, code: 'invalid_dpop_proof', rule: 'DPOP-1' },
  ] as const)('VER-1, POP-8, DPOP-1: $field twice, joined or empty is refused', async ({ field, code, rule }) => {
    const bad: Pairs[] = [
      [
        [field, 'a.b.c'],
        [field, 'a.b.c'],
      ],
      [
        [field, 'a.b.c'],
        [field.toLowerCase(), 'd.e.f'],
      ],
      [[field, 'a.b.c, d.e.f']],
      [[field, 'a.b.c,']],
      [[field, ',']],
      [[field, '']],
    ];
    for (const pairs of bad) {
      const error = await expectRefusal(() => readAttestationFields(shape(pairs)), { code, rule });
      expect(error.message).toContain(field);
      expect(error.message).not.toContain('a.b.c');
    }
  });
});

describe('fields with names that objects inherit', () => {
  it.each(['constructor', '__proto__', 'toString', 'valueOf', 'hasOwnProperty'])(
    'VER-1: %s is a field like others',
    (name) => {
      for (const value of ['', 'a, b', 'x']) {
        const found = readAttestationFields([name, value, 'DPoP', 'v', name, value]);
        expect(found).toEqual({ attestation: undefined, pop: undefined, dpop: 'v', authorization: undefined });
      }
    },
  );
});

describe('shapes of their own', () => {
  it('VER-1: a record that holds a field in two cases is refused', async () => {
    await expectRefusal(() => readAttestationFields({ dpop: 'a', DPoP: 'a' }), { code: 'invalid_dpop_proof' });
  });
  it('VER-1: an Authorization field may hold commas, and may be there once', async () => {
    expect(readAttestationFields({ Authorization: 'Digest a="b", c="d"' }).authorization).toBe('Digest a="b", c="d"');
    await expectRefusal(() => readAttestationFields(['Authorization', 'Bearer a', 'Authorization', 'Bearer b']), {
      code: 'invalid_request',
    });
  });
  it('a flat list of odd length and undefined members lose nothing', () => {
    expect(readAttestationFields(['DPoP', 'a', 'Authorization']).dpop).toBe('a');
    expect(readAttestationFields({ dpop: undefined, authorization: [] }).dpop).toBeUndefined();
  });
  it.each([undefined, null, 5, 'OAuth-Client-Attestation: a', [5, 6], () => 1])(
    'what is no headers at all is refused as such: %s',
    async (headers) => {
      await expectRefusal(() => readAttestationFields(headers as never), { code: 'invalid_argument' });
    },
  );
  it('VER-1: a value that is no text is refused, never read as something else; null is no field', async () => {
    expect(readAttestationFields({ dpop: null, authorization: null } as never).dpop).toBeUndefined();
    for (const value of [5, ['a'], {}, true]) {
      await expectRefusal(() => readAttestationFields([['DPoP', value]] as never), { code: 'invalid_dpop_proof' });
      await expectRefusal(() => readAttestationFields([['Authorization', value]] as never), {
        code: 'invalid_request',
      });
      await expectRefusal(() => readAttestationFields({ DPoP: [value] } as never), { code: 'invalid_dpop_proof' });
    }
    await expectRefusal(() => readAttestationFields({ DPoP: 5 } as never), { code: 'invalid_dpop_proof' });
  });
});
