/** The JSON-RPC messages of a request, as the MCP server behind the gate is going to read them. */
import { isJsonObject, type JsonValue, parseJson } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import type { GateRequest } from './gate.ts';

/** Bytes: as much as the SDKs' servers take by default. */
const MAX_BODY = 4 * 1024 * 1024;
const MAX_DEPTH = 256;
/** No MCP server reads messages from the bodies of these, unless something behind the gate makes a POST of them. */
const WITHOUT_MESSAGES: readonly string[] = ['GET', 'HEAD', 'DELETE', 'OPTIONS'];

/**
 * Reads a bounded copy of the body and leaves the request's own for the server. What two readers could understand in two ways
 * is refused: repeated members, bytes that are no UTF-8 (whatever the charset says), anything that is not JSON.
 *
 * @returns undefined for methods without messages, apart from what a parser found there all the same
 * @throws AttestedError `invalid_request`; `invalid_argument` where the gate is not given what it needs
 */
export async function readMessages(request: GateRequest): Promise<unknown> {
  if (WITHOUT_MESSAGES.includes(request.method.toUpperCase())) return request.parsedBody;
  if (request.parsedBody !== undefined) return messagesIn(request.parsedBody);
  const { clone, bodyUsed } = request as GateRequest & Partial<Request>;
  if (clone === undefined) {
    throw new AttestedError(
      'invalid_argument',
      'demands of tools need the parsed body: put the gate behind its parser',
    );
  }
  if (bodyUsed) {
    throw new AttestedError('invalid_argument', 'the body was read before the gate: pass it on as parsedBody');
  }
  return messagesIn(parseUtf8(await bytesOf(clone.call(request).body)));
}

/** A parser that passes a body over leaves an empty object, which is no message and must not stand for the unread one. */
function messagesIn(body: unknown): unknown {
  if ([body].flat().every((message) => isJsonObject(message) && message.jsonrpc === '2.0')) return body;
  throw malformed('is not a JSON-RPC message, or can be read in more than one way');
}

function parseUtf8(bytes: Uint8Array): JsonValue | undefined {
  try {
    return parseJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes), MAX_DEPTH);
  } catch {
    return undefined;
  }
}

async function bytesOf(stream: ReadableStream<Uint8Array> | null): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = stream?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) break;
    length += value.length;
    if (length > MAX_BODY) {
      // not awaited: half of a divided stream is only cancelled when the other half is, and that one is the server's
      reader?.cancel().catch(() => undefined);
      throw malformed('is larger than this server reads');
    }
    chunks.push(value);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

function malformed(why: string): AttestedError {
  return new AttestedError('invalid_request', `the body ${why}`, { rule: 'JSON-RPC 2.0 §4' });
}
