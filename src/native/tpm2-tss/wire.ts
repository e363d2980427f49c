/** TPM wire format (TPM 2.0 Part 2): big-endian numbers, buffers behind their length. Only what the commands need. */
import type { PcrBank } from './types.ts';

export function u16(value: number): Uint8Array {
  return Uint8Array.of((value >>> 8) & 0xff, value & 0xff);
}

export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}

export function join(...parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** TPM2B: the content behind its length in two bytes. */
export function sized(content: Uint8Array): Uint8Array {
  if (!(content instanceof Uint8Array)) throw new TypeError('bytes are a Uint8Array');
  if (content.length > 0xffff) throw new RangeError('more than a TPM2B can hold');
  return join(u16(content.length), content);
}

/** The content of a TPM2B that the library gave, which is always whole. */
export function unsized(tpm2b: Uint8Array): Uint8Array {
  return tpm2b.slice(2);
}

/** TPML_PCR_SELECTION. */
export function pcrSelection(banks: readonly PcrBank[]): Uint8Array {
  return join(
    u32(banks.length),
    ...banks.map(({ hash, pcrs }) => {
      const bits = new Uint8Array(pcrs.some((pcr) => pcr > 23) ? 4 : 3);
      for (const pcr of pcrs) {
        if (!Number.isInteger(pcr) || pcr < 0 || pcr > 31) throw new RangeError('a PCR that TPM 2.0 does not have');
        bits[pcr >> 3] = (bits[pcr >> 3] as number) | (1 << (pcr & 7));
      }
      return join(u16(hash), Uint8Array.of(bits.length), bits);
    }),
  );
}

export interface Reader {
  u8(): number;
  u16(): number;
  u32(): number;
  sized(): Uint8Array;
  /** The numbers of the bits that are set, lowest first. */
  bits(): number[];
  pcrSelection(): PcrBank[];
}

/** Numbers one after another out of what the library marshalled. */
export function createReader(bytes: Uint8Array): Reader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (length: number): number => {
    at += length;
    return at - length;
  };
  const reader: Reader = {
    u8: (): number => view.getUint8(take(1)),
    u16: (): number => view.getUint16(take(2)),
    u32: (): number => view.getUint32(take(4)),
    sized(): Uint8Array {
      const start = take(2);
      const length = view.getUint16(start);
      const content = take(length);
      return bytes.slice(content, content + length);
    },
    bits(): number[] {
      const length = reader.u8();
      const start = take(length);
      return Array.from({ length: length * 8 }, (_, bit) => bit).filter(
        (bit) => view.getUint8(start + (bit >> 3)) & (1 << (bit & 7)),
      );
    },
    pcrSelection: (): PcrBank[] =>
      Array.from({ length: reader.u32() }, () => ({ hash: reader.u16(), pcrs: reader.bits() })),
  };
  return reader;
}
