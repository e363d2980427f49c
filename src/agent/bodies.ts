/** Bodies on their way through the fetch layer: what can be sent again, and a look at answers that costs them nothing. */
import { fromUtf8 } from '../core/bytes.ts';
import { type JsonObject, parseJsonObject } from '../core/json.ts';
import { isJson } from '../platform/http.ts';

/** Most that is read of an answer before the caller gets it, bytes. */
const MAX_PEEK = 64 * 1024;
/** Longest that an answer is held back for that, milliseconds. */
const MAX_WAIT = 5000;

/** Can the body be sent a second time? A stream can be read once only. */
export function isReplayable(body: unknown): boolean {
  return (
    body === undefined ||
    body === null ||
    typeof body === 'string' ||
    body instanceof URLSearchParams ||
    body instanceof ArrayBuffer ||
    ArrayBuffer.isView(body) ||
    body instanceof Blob ||
    body instanceof FormData
  );
}

export interface Peeked {
  /** To be handed on in place of the response that was looked into. */
  response: Response;
  json: JsonObject | undefined;
}

/**
 * Reads the JSON object in an answer and gives an answer that still has its whole body. Answers that are not JSON, event
 * streams above all, are not touched. A body that is too large or too slow is passed on as it comes.
 */
export async function peekJson(response: Response): Promise<Peeked> {
  const untouched: Peeked = { response, json: undefined };
  if (response.body === null || response.bodyUsed || !isJson(response.headers.get('content-type'))) return untouched;
  const reader = response.body.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  let pending: ReturnType<typeof reader.read> | undefined;
  let ended = false;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), MAX_WAIT);
  });
  try {
    while (!ended && size <= MAX_PEEK) {
      pending = reader.read();
      const part = await Promise.race([pending, late]);
      if (part === undefined) break;
      pending = undefined;
      if (part.done) {
        ended = true;
      } else {
        chunks.push(part.value);
        size += part.value.length;
      }
    }
  } catch (error) {
    // the connection broke: the caller gets what came, and then the error
    return { response: rebuild(response, failing(chunks, error)), json: undefined };
  } finally {
    clearTimeout(timer);
  }
  const text = ended ? fromUtf8(Buffer.concat(chunks, size)) : undefined;
  const body = ended ? Buffer.concat(chunks, size) : continued(chunks, pending, reader);
  return { response: rebuild(response, body), json: text === undefined ? undefined : parseJsonObject(text) };
}

/** The parts already read, then the rest of the stream. */
function continued(
  chunks: Uint8Array[],
  pending: ReturnType<ReadableStreamDefaultReader<Uint8Array>['read']> | undefined,
  reader: ReadableStreamDefaultReader<Uint8Array>,
): ReadableStream<Uint8Array> {
  const held = [...chunks];
  let waiting = pending;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = held.shift();
      if (next !== undefined) return controller.enqueue(next);
      const part = await (waiting ?? reader.read());
      waiting = undefined;
      if (part.done) controller.close();
      else controller.enqueue(part.value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
}

function failing(chunks: Uint8Array[], error: unknown): ReadableStream<Uint8Array> {
  const held = [...chunks];
  return new ReadableStream<Uint8Array>({
    pull(controller) {
      const next = held.shift();
      if (next === undefined) controller.error(error);
      else controller.enqueue(next);
    },
  });
}

/** The same answer around another body. A new Response has lost its address, which the SDKs' messages show. */
function rebuild(from: Response, body: ReadableStream<Uint8Array> | Uint8Array<ArrayBuffer>): Response {
  const { status, statusText, headers, url, redirected } = from;
  const response = new Response(body, { status, statusText, headers });
  Object.defineProperties(response, { url: { value: url }, redirected: { value: redirected } });
  return response;
}

/** Gives up an answer that nobody will read, so that its connection is free again. */
export async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => undefined);
}
