import { inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { parseStatusListToken, readStatusReference, statusAt } from '../../src/core/status-list.ts';
import { isAtLeast, KEY_STORAGE_LEVELS, keyStatementClaims, readKeyStatement } from '../../src/core/storage.ts';
import { expectRefusal } from '../support/errors.ts';
import { forge } from '../support/tokens.ts';
import vectors from '../vectors/status-list.json' with { type: 'json' };

describe('status lists', () => {
  it.each(vectors.lists)("VER-5: the draft's list of $bits bits", async ({ bits, lst, statuses }) => {
    const token = await forge({
      header: { typ: 'statuslist+jwt', alg: 'ES256' },
      payload: { sub: 'https://a.example/1', iat: 5, exp: 9, ttl: 3, status_list: { bits, lst } },
    });
    const parsed = parseStatusListToken(token);
    expect(parsed).toMatchObject({ uri: 'https://a.example/1', iat: 5, exp: 9, ttl: 3, bits });
    const list = inflateSync(parsed.compressed);
    expect(statuses.map((_, index) => statusAt(list, parsed.bits, index))).toEqual(statuses);
    expect(statusAt(list, parsed.bits, statuses.length)).toBeUndefined();
  });

  it('VER-5: entries of every width are found where they are', () => {
    const list = Uint8Array.from({ length: 64 }, (_, i) => (i * 37) & 255);
    const bitsOf = [...list].flatMap((byte) => Array.from({ length: 8 }, (_, i) => (byte >> i) & 1));
    for (const bits of [1, 2, 4, 8] as const) {
      for (let index = 0; index < (64 * 8) / bits; index++) {
        const expected = bitsOf.slice(index * bits, (index + 1) * bits).reduce((sum, bit, i) => sum + (bit << i), 0);
        expect(statusAt(list, bits, index)).toBe(expected);
      }
    }
  });

  it('VER-5: the reference is read, or is not there, or is refused', async () => {
    expect(readStatusReference({})).toBeUndefined();
    expect(readStatusReference({ status: { status_list: { uri: 'u', idx: 0 } } })).toEqual({ uri: 'u', idx: 0 });
    for (const status of [
      null,
      'x',
      [],
      {},
      { status_list: null },
      { status_list: { uri: 'u' } },
      { status_list: { idx: 1 } },
    ]) {
      await expectRefusal(() => readStatusReference({ status: status as never }), {
        code: 'invalid_client_attestation',
      });
    }
  });
});

describe('what an attestation says of its key', () => {
  it('VER-5: is written and read', () => {
    for (const storage of KEY_STORAGE_LEVELS) {
      for (const evidence of ['self-asserted', 'tpm-certified'] as const) {
        expect(readKeyStatement(keyStatementClaims(storage, evidence))).toEqual({ storage, evidence });
      }
    }
  });
  it.each([
    [{}, 'unknown'],
    [{ key_storage: 'hardware' }, 'hardware'],
    [{ key_storage: ['hardware', 'keychain'] }, 'keychain'],
    [{ key_storage: ['iso_18045_high', 'software'] }, 'software'],
    [{ key_storage: ['iso_18045_high'] }, 'unknown'],
    [{ key_storage: [['hardware']] }, 'unknown'],
    [{ key_storage: { 0: 'hardware' } }, 'unknown'],
    [{ key_storage: null }, 'unknown'],
  ])('VER-5: %o is %s: the weakest that is named counts', (claims, storage) => {
    expect(readKeyStatement(claims as never).storage).toBe(storage);
  });
  it('VER-5: unknown is never enough', () => {
    for (const demanded of KEY_STORAGE_LEVELS) expect(isAtLeast('unknown', demanded)).toBe(false);
    expect(isAtLeast('hardware', 'keychain')).toBe(true);
    expect(isAtLeast('software', 'keychain')).toBe(false);
  });
});
