/** The stdio transport's frames: messages delimited by line feeds, in chunks of any size (MCP, transports, stdio). */
import { openSink } from './sink.ts';

export interface LineReader {
  push(chunk: Uint8Array): void;
  /** The stream has ended: what stands without a line feed counts as a line. */
  end(): void;
}

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const TAB = 0x09;

/**
 * Cuts a byte stream into lines.
 *
 * @param maxBytes of one line; of a longer one nothing is kept
 * @param onLine gets each line without its end; `undefined` for one that was too long. Blank lines are left out.
 */
export function readLines(maxBytes: number, onLine: (line: Uint8Array | undefined) => void): LineReader {
  const line = openSink();
  let tooLong = false;

  function take(part: Uint8Array): void {
    if (!tooLong) line.push(part);
    if (line.size <= maxBytes) return;
    tooLong = true;
    line.take();
  }

  function finish(): void {
    const whole = line.take();
    const text = whole.at(-1) === CARRIAGE_RETURN ? whole.subarray(0, -1) : whole;
    if (tooLong) onLine(undefined);
    else if (text.some((byte) => byte !== SPACE && byte !== TAB)) onLine(text);
    tooLong = false;
  }

  return {
    push(chunk) {
      let from = 0;
      for (let at = chunk.indexOf(LINE_FEED); at !== -1; at = chunk.indexOf(LINE_FEED, from)) {
        take(chunk.subarray(from, at));
        finish();
        from = at + 1;
      }
      take(chunk.subarray(from));
    },
    end: finish,
  };
}

/**
 * A JSON text as one line. JSON has line ends only between its tokens, where a space means the same (RFC 8259 §2), so the text
 * itself need not be understood.
 */
export function asLine(json: Uint8Array): Uint8Array {
  const line = Buffer.allocUnsafe(json.length + 1);
  line.set(json);
  line[json.length] = LINE_FEED;
  for (const end of [LINE_FEED, CARRIAGE_RETURN]) {
    for (let at = line.indexOf(end); at !== -1 && at < json.length; at = line.indexOf(end, at + 1)) line[at] = SPACE;
  }
  return line;
}
