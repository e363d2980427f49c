/** Numbers and pointers in the cells of a scratch. */

// A cell has eight bytes and starts at zero, so that a pointer or size of four bytes reads the same (all of koffi's
// platforms that tpm2-tss runs on are little-endian).
export function readPointer(cell: Uint8Array): bigint {
  return new DataView(cell.buffer, cell.byteOffset, 8).getBigUint64(0, true);
}

export function writePointer(cell: Uint8Array, pointer: bigint): void {
  new DataView(cell.buffer, cell.byteOffset, 8).setBigUint64(0, pointer, true);
}

export function readNumber(cell: Uint8Array): number {
  return new DataView(cell.buffer, cell.byteOffset, 4).getUint32(0, true);
}

export function writeNumber(cell: Uint8Array, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
    throw new RangeError('a handle is a number of 32 bits');
  new DataView(cell.buffer, cell.byteOffset, 4).setUint32(0, value, true);
}
