/**
 * The memory that a context lends to C: written by one command at a time, wiped after it, and held as long as any command
 * runs. koffi does not keep the arguments of an asynchronous call alive, so nothing that the garbage collector could take or
 * move is ever passed: not a caller's array, and none made for one call.
 */

/** More than any structure of TPM 2.0 in the library's layout; the largest, TPM2B_ATTEST, has 2306 bytes. */
export const SLOT_BYTES = 8192;
const SLOTS = 8;
const CELL_BYTES = 8;
const CELLS = 8;

export interface Scratch {
  /** For wire bytes on their way in or out; whoever uses it leaves it zeroed. */
  wire: Uint8Array;
  /** How far the library came in the wire bytes. Set to zero by whoever uses it. */
  offset: Uint8Array;
  /** Zeroed room for one structure. */
  slot(): Uint8Array;
  /** Zeroed room for one number or pointer that the library gives. */
  cell(): Uint8Array;
  /** Whether a value is memory of this scratch that {@link wipe} has not taken back. */
  lends(kind: 'slot' | 'cell', value: unknown): boolean;
  /** Everything that was lent is zero and free again. */
  wipe(): void;
}

export function createScratch(): Scratch {
  const wire = new Uint8Array(new ArrayBuffer(SLOT_BYTES));
  const offset = new Uint8Array(new ArrayBuffer(CELL_BYTES));
  const rooms = { slot: createRooms(SLOTS, SLOT_BYTES), cell: createRooms(CELLS, CELL_BYTES) };
  return {
    wire,
    offset,
    slot: rooms.slot.take,
    cell: rooms.cell.take,
    lends: (kind, value) => rooms[kind].lent.has(value),
    wipe() {
      rooms.slot.wipe();
      rooms.cell.wipe();
    },
  };
}

function createRooms(count: number, bytes: number) {
  const memory = new ArrayBuffer(count * bytes);
  const rooms = Array.from({ length: count }, (_, at) => new Uint8Array(memory, at * bytes, bytes));
  const lent = new Set<unknown>();
  return {
    lent,
    take(): Uint8Array {
      const room = rooms[lent.size];
      if (room === undefined) throw new RangeError('more parameters than any command of TPM 2.0 has');
      lent.add(room);
      return room;
    },
    wipe(): void {
      for (let at = 0; at < lent.size; at++) rooms[at]?.fill(0);
      lent.clear();
    },
  };
}
