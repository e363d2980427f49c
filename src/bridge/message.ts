/** What the bridge reads of a JSON-RPC message: enough to know where it belongs. The message itself travels as its own bytes. */
import { fromUtf8 } from '../core/bytes.ts';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import { isTooIntricate } from './weight.ts';

export type MessageId = string | number;

export type Message =
  | { kind: 'request'; id: MessageId; method: string; json: JsonObject }
  | { kind: 'notification'; method: string; json: JsonObject }
  | { kind: 'response'; id: MessageId | null; json: JsonObject };

export type Request = Extract<Message, { kind: 'request' }>;

/** One message, or a batch of them (protocol version 2025-03-26), and the bytes that they came as. */
export interface Envelope {
  bytes: Uint8Array;
  messages: readonly Message[];
}

/** JSON-RPC 2.0 §5.1. */
export const PARSE_ERROR = -32_700;
export const INVALID_REQUEST = -32_600;
export const INTERNAL_ERROR = -32_603;

/** Reads an envelope; else what is wrong with it, as a JSON-RPC error code. */
export function readEnvelope(bytes: Uint8Array): Envelope | typeof PARSE_ERROR | typeof INVALID_REQUEST {
  if (isTooIntricate(bytes)) return INVALID_REQUEST;
  const text = fromUtf8(bytes);
  if (text === undefined) return PARSE_ERROR;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return PARSE_ERROR;
  }
  const items = Array.isArray(json) ? json : [json];
  const messages = items.map(readMessage);
  return items.length > 0 && messages.every((message) => message !== undefined)
    ? { bytes, messages: messages as Message[] }
    : INVALID_REQUEST;
}

function readMessage(json: unknown): Message | undefined {
  if (!isJsonObject(json)) return undefined;
  const { id, method } = json;
  const isId = typeof id === 'string' || typeof id === 'number';
  if (typeof method === 'string') {
    if (isId) return { kind: 'request', id, method, json };
    return id === undefined ? { kind: 'notification', method, json } : undefined;
  }
  if (method !== undefined || 'result' in json === 'error' in json) return undefined;
  return isId || id === null || id === undefined ? { kind: 'response', id: id ?? null, json } : undefined;
}

/** Ids of different types are different ids. */
export function keyOf(id: MessageId): string {
  return JSON.stringify(id);
}

export function requestsOf({ messages }: Envelope): Request[] {
  return messages.filter((message) => message.kind === 'request');
}

/** `params._meta` of a message. */
export function metaOf({ json }: Message): JsonObject | undefined {
  const params = isJsonObject(json.params) ? json.params : undefined;
  return isJsonObject(params?._meta) ? params._meta : undefined;
}

/** The `error` of a response, with whatever else its sender put in. */
export interface RpcError {
  code: number;
  message: string;
  data?: unknown;
}

export function errorMessage(id: MessageId | null, error: RpcError): Uint8Array {
  return Buffer.from(JSON.stringify({ jsonrpc: '2.0', id, error }));
}

/** What went wrong, as the host gets to see it. */
export function rpcErrorOf(error: unknown): RpcError {
  if (!(error instanceof AttestedError)) return { code: INTERNAL_ERROR, message: 'attested: the bridge failed' };
  const { code, rule } = error;
  const message = `attested: ${error.message} (${[code, rule].filter((part) => part !== undefined).join(', ')})`;
  return { code: INTERNAL_ERROR, message, data: { code, ...(rule !== undefined && { rule }) } };
}
