/** TPM wire bytes: big-endian numbers, TPM2B buffers, counted lists (TPM 2.0 Part 2 §4). Every read is bounded. */
import { AttestedError } from '../errors.ts';

/** No structure of a TPM is longer: commands and responses end at 4096 bytes. */
const MAX_BYTES = 4096;

/** The refusal of bytes that are no such structure. @param rule default: strict parsing */
export function malformed(structure: string, why: string, rule = 'TPM attestation 1'): AttestedError {
  return new AttestedError('tpm_malformed', `${structure}: ${why}`, { rule });
}

/**
 * Reads one structure from its first byte to its last. Works on a copy, so that nobody can change bytes after they were
 * checked. Each method throws AttestedError `tpm_malformed` where bytes are missing or a bound is passed.
 */
export class Reader {
  readonly #structure: string;
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array, structure: string) {
    this.#structure = structure;
    if (!(bytes instanceof Uint8Array)) throw malformed(structure, 'not given as bytes');
    if (bytes.length > MAX_BYTES) throw malformed(structure, 'longer than anything a TPM makes');
    this.#bytes = new Uint8Array(bytes);
  }

  /** The copy that is read: the whole structure. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Refuses, naming the structure. */
  fail(why: string, rule?: string): never {
    throw malformed(this.#structure, why, rule);
  }

  u8(): number {
    const at = this.#offset;
    if (at >= this.#bytes.length) this.fail('cut short');
    this.#offset = at + 1;
    return this.#bytes[at] as number;
  }

  u16(): number {
    return this.u8() * 0x100 + this.u8();
  }

  u32(): number {
    return this.u16() * 0x10000 + this.u16();
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  /** The next bytes, exactly as many. */
  take(length: number): Uint8Array {
    const end = this.#offset + length;
    if (end > this.#bytes.length) this.fail('cut short');
    const taken = this.#bytes.slice(this.#offset, end);
    this.#offset = end;
    return taken;
  }

  /** A TPM2B's content: a 16-bit length of at most `max`, then that many bytes. */
  sized(max: number): Uint8Array {
    const length = this.u16();
    if (length > max) this.fail('a buffer is longer than its kind allows');
    return this.take(length);
  }

  /** A TPML's count, at most `max`. */
  count(max: number): number {
    const count = this.u32();
    if (count > max) this.fail('a list is longer than its kind allows');
    return count;
  }

  /** The row of a table that a 16-bit id stands for. */
  id<Row>(table: ReadonlyMap<number, Row>, what: string, rule?: string): Row {
    return table.get(this.u16()) ?? this.fail(`${what} is none that this version knows`, rule);
  }

  /** TPMI_YES_NO: one byte, 0 or 1. */
  yesNo(): boolean {
    const byte = this.u8();
    if (byte > 1) this.fail('a truth value is neither 0 nor 1');
    return byte === 1;
  }

  /** The structure must end here. */
  end(): void {
    if (this.#offset !== this.#bytes.length) this.fail('bytes left over at its end');
  }
}

/**
 * A structure's own bytes where it may come as a TPM2B: the size prefix is dropped when it counts exactly the rest.
 *
 * @param beginnings the 16-bit ids that the structure may begin with, where its first field may be mistaken for a size: the
 *   prefix is one only if such an id follows (no hash algorithm, which stands second in a TPMT, has the id of a type or scheme)
 */
export function withoutSize(
  bytes: Uint8Array,
  structure: string,
  beginnings?: ReadonlyMap<number, unknown>,
): Uint8Array {
  if (!(bytes instanceof Uint8Array)) throw malformed(structure, 'not given as bytes');
  if (bytes.length < 4 || numberAt(bytes, 0) !== bytes.length - 2) return bytes;
  return beginnings === undefined || beginnings.has(numberAt(bytes, 2)) ? bytes.subarray(2) : bytes;
}

const numberAt = (bytes: Uint8Array, offset: number): number =>
  (bytes[offset] as number) * 0x100 + (bytes[offset + 1] as number);

/** Parts of a structure, to be joined by {@link concat}. */
export const u8 = (value: number): Uint8Array => Uint8Array.of(value);
export const u16 = (value: number): Uint8Array => Uint8Array.of(value >>> 8, value);
export const u32 = (value: number): Uint8Array => Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
export const u64 = (value: bigint): Uint8Array => concat(u32(Number(value >> 32n)), u32(Number(value & 0xffffffffn)));

/** A TPM2B: the length in 16 bits, then the bytes. @throws AttestedError `invalid_argument` over 65535 bytes */
export function sized(bytes: Uint8Array): Uint8Array {
  if (bytes.length > 0xffff) throw new AttestedError('invalid_argument', 'too long for a TPM2B');
  return concat(u16(bytes.length), bytes);
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}
