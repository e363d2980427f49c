/** Bytes put together from parts, of any number and size, in linear time and at most about twice the memory. */

export interface Sink {
  readonly size: number;
  push(part: Uint8Array): void;
  /** All that was pushed since the last time. One part alone is given back as it is, without a copy. */
  take(): Uint8Array;
}

const EMPTY = new Uint8Array();

/**
 * A list of parts would do for honest peers. One that sends a byte at a time could make its entries cost a hundred times what
 * they hold, so the parts are copied as they come.
 */
export function openSink(): Sink {
  let first: Uint8Array | undefined;
  let buffer: Buffer | undefined;
  let size = 0;

  return {
    get size() {
      return size;
    },
    push(part) {
      if (part.length === 0) return;
      if (size === 0) {
        first = part;
        size = part.length;
        return;
      }
      const needed = size + part.length;
      if (buffer === undefined || buffer.length < needed) {
        const larger = Buffer.allocUnsafe(Math.max(needed, 2 * size, 1024));
        larger.set(buffer === undefined ? (first as Uint8Array) : buffer.subarray(0, size));
        buffer = larger;
        first = undefined;
      }
      buffer.set(part, size);
      size = needed;
    },
    take() {
      const taken = first ?? buffer?.subarray(0, size) ?? EMPTY;
      first = undefined;
      buffer = undefined;
      size = 0;
      return taken;
    },
  };
}
