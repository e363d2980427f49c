/** Outgoing HTTP as a security product needs it: bounded in time and size, no redirects, JSON only. */
import { fromUtf8 } from '../core/bytes.ts';
import { type JsonObject, parseJsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';

/** Fits `globalThis.fetch` and the MCP SDKs' `FetchLike`. */
export type FetchLike = (input: string | URL, init?: RequestInit) => Promise<Response>;

export interface FetchLimits {
  fetch?: FetchLike | undefined;
  /** Whole exchange, body included, milliseconds. Default 5000. */
  timeout?: number | undefined;
  /** Largest body in bytes. Default 256 KiB. */
  maxBytes?: number | undefined;
}

export interface FetchedText {
  status: number;
  headers: Headers;
  text: string;
}

const DEFAULT_TIMEOUT = 5000;
const DEFAULT_MAX_BYTES = 256 * 1024;

/**
 * Fetches a text. Redirects are never followed: a redirect here would let one server speak for another.
 *
 * @throws AttestedError `http_timeout`, `http_too_large`, `http_failed` (network fault, redirect, not UTF-8) or
 *   `invalid_argument` (neither https nor loopback)
 */
export async function fetchText(url: string, init: RequestInit, limits: FetchLimits = {}): Promise<FetchedText> {
  assertSafeUrl(url);
  const { fetch = globalThis.fetch, timeout = DEFAULT_TIMEOUT, maxBytes = DEFAULT_MAX_BYTES } = limits;
  const deadline = AbortSignal.timeout(timeout);
  try {
    const response = await fetch(url, { ...init, redirect: 'manual', signal: deadline });
    if (response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)) {
      await response.body?.cancel();
      throw new AttestedError('http_failed', `${originOf(url)} answered with a redirect, which is not followed`);
    }
    const bytes = await readBounded(response, maxBytes, deadline);
    const text = fromUtf8(bytes);
    if (text === undefined)
      throw new AttestedError('http_failed', `${originOf(url)} answered with bytes that are not UTF-8`);
    return { status: response.status, headers: response.headers, text };
  } catch (error) {
    if (error instanceof AttestedError) throw error;
    if (deadline.aborted)
      throw new AttestedError('http_timeout', `${originOf(url)} did not answer within ${timeout} ms`);
    throw new AttestedError('http_failed', `${originOf(url)} could not be reached`, { cause: error });
  }
}

export interface FetchedJson {
  status: number;
  headers: Headers;
  /** Undefined when the body is not one JSON object or is not labelled as JSON. */
  json: JsonObject | undefined;
}

/** Fetches one JSON object, of whatever status. @throws AttestedError as {@link fetchText} does */
export async function fetchJson(url: string, init: RequestInit, limits: FetchLimits = {}): Promise<FetchedJson> {
  const headers = new Headers(init.headers);
  if (!headers.has('accept')) headers.set('accept', 'application/json');
  const answer = await fetchText(url, { ...init, headers }, limits);
  const json = isJson(answer.headers.get('content-type')) ? parseJsonObject(answer.text) : undefined;
  return { status: answer.status, headers: answer.headers, json };
}

/** `application/json` or `application/…+json`, with or without parameters. */
export function isJson(contentType: string | null): boolean {
  return contentType !== null && /^application\/([a-z0-9.-]+\+)?json\s*(;|$)/i.test(contentType);
}

/** Reads a body up to a limit; stops reading, and closes the connection, past it. @throws AttestedError `http_too_large` */
export async function readBounded(
  message: { body: ReadableStream<Uint8Array> | null },
  maxBytes: number,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  if (message.body === null) return new Uint8Array();
  const reader = message.body.getReader();
  const abort = () => void reader.cancel(signal?.reason).catch(() => undefined);
  signal?.addEventListener('abort', abort, { once: true });
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (signal?.aborted) throw signal.reason;
      if (done) return Buffer.concat(chunks, size);
      size += value.length;
      if (size > maxBytes) {
        await reader.cancel().catch(() => undefined);
        throw new AttestedError('http_too_large', `the body is larger than ${maxBytes} bytes`);
      }
      chunks.push(value);
    }
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/** https anywhere, http to this machine only. @throws AttestedError `invalid_argument` */
export function assertSafeUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const safe = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname));
  if (url === undefined || !safe || url.username !== '' || url.password !== '') {
    throw new AttestedError(
      'invalid_argument',
      'a URL must be https (http only to this machine) and carry no credentials',
    );
  }
  return url;
}

export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname);
}

function originOf(url: string): string {
  return new URL(url).origin;
}
