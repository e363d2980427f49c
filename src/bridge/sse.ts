/** Server-sent events as bytes (HTML Standard §9.2.6), bounded in size. */
import { AttestedError } from '../errors.ts';
import { openSink } from './sink.ts';

export interface ServerEvent {
  /** The last event id that was seen, this event's own included. */
  id: string | undefined;
  /** `message` where the event names no type. */
  type: string;
  /** The lines of `data`, joined by line feeds; empty for an event that only sets the id. */
  data: Uint8Array;
}

export interface EventReader {
  /** @throws AttestedError `http_too_large` for an event that is larger than the limit */
  push(chunk: Uint8Array): void;
  /** The pause that the server asks for before a reconnect, milliseconds. */
  readonly retry: number | undefined;
}

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const COLON = 0x3a;
const SPACE = 0x20;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
const EMPTY = new Uint8Array();
const MAX_NAME = 1024;

/** @param maxBytes of one event */
export function readEvents(maxBytes: number, onEvent: (event: ServerEvent) => void): EventReader {
  const line = openSink();
  const data = openSink();
  let type = '';
  let id: string | undefined;
  let hasData = false;
  let hasId = false;
  let retry: number | undefined;
  let skipLineFeed = false;
  let atStart = true;

  function take(part: Uint8Array): void {
    line.push(part);
    if (line.size + data.size > maxBytes) {
      throw new AttestedError('http_too_large', `an event is larger than ${maxBytes} bytes`);
    }
  }

  function finishLine(): void {
    const whole = line.take();
    const text = atStart && BYTE_ORDER_MARK.equals(whole.subarray(0, 3)) ? whole.subarray(3) : whole;
    atStart = false;
    if (text.length === 0) dispatch();
    else field(text);
  }

  function field(text: Uint8Array): void {
    const colon = text.indexOf(COLON);
    if (colon === 0) return; // a comment, which is how servers keep a connection alive
    const name = asText(colon === -1 ? text : text.subarray(0, colon));
    const value = colon === -1 ? EMPTY : text.subarray(colon + (text[colon + 1] === SPACE ? 2 : 1));
    if (name === 'data') {
      if (hasData) data.push(Uint8Array.of(LINE_FEED));
      data.push(value);
      hasData = true;
    } else if (name === 'event') {
      type = asText(value);
    } else if (name === 'id') {
      // an id goes back in a header field: what cannot stand there is no id for us
      if (!/^[\x20-\x7e]*$/.test(asText(value)) || value.length > MAX_NAME) return;
      id = value.length === 0 ? undefined : asText(value);
      hasId = true;
    } else if (name === 'retry' && /^\d{1,9}$/.test(asText(value))) {
      retry = Number(asText(value));
    }
  }

  function dispatch(): void {
    const event = hasData || hasId ? { id, type: type === '' ? 'message' : type, data: data.take() } : undefined;
    type = '';
    hasData = false;
    hasId = false;
    if (event !== undefined) onEvent(event);
  }

  return {
    get retry() {
      return retry;
    },
    push(chunk) {
      let from = skipLineFeed && chunk[0] === LINE_FEED ? 1 : 0;
      if (chunk.length > 0) skipLineFeed = false;
      let nextCarriageReturn = chunk.indexOf(CARRIAGE_RETURN, from);
      for (;;) {
        const lineFeed = chunk.indexOf(LINE_FEED, from);
        const byReturn = nextCarriageReturn !== -1 && (lineFeed === -1 || nextCarriageReturn < lineFeed);
        const at = byReturn ? nextCarriageReturn : lineFeed;
        if (at === -1) return take(chunk.subarray(from));
        take(chunk.subarray(from, at));
        finishLine();
        from = at + 1;
        if (!byReturn) continue;
        if (from === chunk.length) skipLineFeed = true;
        else if (chunk[from] === LINE_FEED) from++;
        nextCarriageReturn = chunk.indexOf(CARRIAGE_RETURN, from);
      }
    },
  };
}

/** Field names, types and ids are short and ASCII; what is longer is none that we know. */
function asText(bytes: Uint8Array): string {
  return Buffer.from(bytes.subarray(0, MAX_NAME + 1)).toString('latin1');
}
