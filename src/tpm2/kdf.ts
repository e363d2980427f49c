/** Key derivation of TPM 2.0 (Part 1 §11.4.10). Labels end with a zero byte. */
import { createHmac } from 'node:crypto';
import { digest, type HashName, hashes } from './algorithms.ts';
import { concat, u32 } from './wire.ts';

const labelled = (label: string): Uint8Array => Uint8Array.from(Buffer.from(`${label}\0`, 'latin1'));

/** KDFa: NIST SP 800-108 in counter mode, with HMAC. @param bits a multiple of 8 */
export function kdfa(hash: HashName, key: Uint8Array, label: string, context: Uint8Array, bits: number): Uint8Array {
  return blocks(hash, bits, (counter) =>
    createHmac(hash, key).update(counter).update(labelled(label)).update(context).update(u32(bits)).digest(),
  );
}

/** KDFe: NIST SP 800-56A concatenation, over an ECDH secret and the two x coordinates. @param bits a multiple of 8 */
export function kdfe(
  hash: HashName,
  secret: Uint8Array,
  label: string,
  partyU: Uint8Array,
  partyV: Uint8Array,
  bits: number,
): Uint8Array {
  return blocks(hash, bits, (counter) => digest(hash, counter, secret, labelled(label), partyU, partyV));
}

function blocks(hash: HashName, bits: number, block: (counter: Uint8Array) => Uint8Array): Uint8Array {
  const count = Math.ceil(bits / 8 / hashes[hash].bytes);
  return concat(...Array.from({ length: count }, (_, i) => block(u32(i + 1)))).slice(0, bits / 8);
}
