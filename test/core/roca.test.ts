import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { isRocaModulus } from '../../src/core/roca.ts';
import { rocaModulus } from '../support/keys.ts';

const bytesOf = (modulus: bigint) => Buffer.from(modulus.toString(16), 'hex');
const vulnerable = bytesOf(rocaModulus());

describe('isRocaModulus', () => {
  it('VER-4: knows a modulus of the faulty library, also with zeros before it', () => {
    expect(isRocaModulus(vulnerable)).toBe(true);
    expect(isRocaModulus(Buffer.concat([Buffer.alloc(8), vulnerable]))).toBe(true);
  });

  it('VER-4: nothing that is merely near to one', () => {
    const modulus = rocaModulus();
    for (let step = 2n; step <= 200n; step += 2n) expect(isRocaModulus(bytesOf(modulus + step)), `${step}`).toBe(false);
  });

  it('VER-4: no honest key, and nothing that is no key', () => {
    const { n } = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' });
    expect(isRocaModulus(Buffer.from(n as string, 'base64url'))).toBe(false);
    expect(isRocaModulus(new Uint8Array())).toBe(false);
    expect(isRocaModulus(new Uint8Array(256))).toBe(false);
  });
});
