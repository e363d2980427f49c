/**
 * A local HTTP server that stands for one remote MCP server. Who knows its address acts with the agent's identity, so the
 * address holds a secret, and pages in a browser are kept out even if they learn it.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { utf8 } from '../core/bytes.ts';
import { AttestedError } from '../errors.ts';
import { equalInConstantTime, sha256 } from '../platform/crypto.ts';
import { type FetchLike, isLoopback } from '../platform/http.ts';
import { forwardedOf, returnedOf } from './forwarding.ts';
import { failureOf } from './http.ts';
import { openSink } from './sink.ts';

export interface ProxyOptions {
  /** The MCP server. */
  url: URL;
  /** Adds what authenticates a request, and stays within the server. */
  fetch: FetchLike;
  /** Path of the proxy: 22 or more characters of base64url that nobody can guess. */
  secret: string;
  /** An address of this machine. */
  host: string;
  /** 0: a free one. */
  port: number;
  /** Origins of web pages that may use the proxy. */
  origins: readonly string[];
  /** Largest request body, bytes. It is held until the server has taken it, to be sent again when a challenge demands it. */
  maxBytes: number;
  /** For people. */
  log: (text: string) => void;
}

export interface LocalProxy {
  /** Without the secret. */
  origin: string;
  url: string;
  close(): Promise<void>;
}

/** Should an answer be shown as a page all the same: it can do nothing, and tells nobody its address. */
const NO_PAGE: Readonly<Record<string, string>> = {
  'Content-Security-Policy': "sandbox; default-src 'none'",
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
};

/** `fetch` has no way to send these. */
const NO_METHODS: ReadonlySet<string> = new Set(['CONNECT', 'TRACE', 'TRACK']);

/** Milliseconds in which a client has to have sent its headers, and its whole request. */
const HEADERS_TIMEOUT = 20_000;
const REQUEST_TIMEOUT = 300_000;

/** @throws AttestedError `invalid_argument` for an address that others could reach, or a secret that is none */
export async function openProxy(options: ProxyOptions): Promise<LocalProxy> {
  const { secret, host, port, log } = options;
  if (!isLoopback(host.includes(':') ? `[${host}]` : host)) {
    throw new AttestedError('invalid_argument', 'the proxy listens on addresses of this machine only');
  }
  if (!/^[A-Za-z0-9_-]{22,256}$/.test(secret)) {
    throw new AttestedError('invalid_argument', 'the secret must be 22 to 256 characters of base64url');
  }
  const server = createServer(
    { headersTimeout: HEADERS_TIMEOUT, requestTimeout: REQUEST_TIMEOUT },
    (request, response) => {
      answer(request, response, options, ownPort()).catch((error: unknown) => {
        if (response.headersSent) return void response.destroy();
        const { message, code } = failureOf(error, options.url.origin).error;
        log(`${request.method} failed: ${message} (${code})`);
        refuse(response, 502, code, message);
      });
    },
  );
  const ownPort = () => (server.address() as AddressInfo | null)?.port ?? 0;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new AttestedError('invalid_argument', 'the proxy cannot listen there', { cause })),
    );
    server.listen(port, host === 'localhost' ? '127.0.0.1' : host, resolve);
  });
  const origin = `http://${host.includes(':') ? `[${host}]` : host}:${ownPort()}`;
  return {
    origin,
    url: `${origin}/${secret}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { url, fetch, secret, host, origins, maxBytes, log }: ProxyOptions,
  port: number,
): Promise<void> {
  const { method = 'GET', headers } = request;
  const { origin } = headers;
  // a page that has pointed its own name at this machine sends that name (DNS rebinding)
  if (!isOwnName(headers.host, host, port))
    return refuse(response, 421, 'invalid_request', 'this proxy has another name');
  if (!isLoopback(addressOf(request))) return refuse(response, 403, 'access_denied', 'not from this machine');
  const allowed = origin === undefined || origins.includes(origin);
  if (
    !allowed ||
    (origin === undefined && headers['sec-fetch-site'] !== undefined && headers['sec-fetch-site'] !== 'none')
  ) {
    log('a web page was refused; --allow-origin lets one in');
    return refuse(response, 403, 'access_denied', 'web pages may not use this proxy');
  }
  const [path = '', query] = splitOnce(request.url ?? '', '?');
  if (!isSecret(path.slice(1), secret)) return refuse(response, 404, 'invalid_request', 'not found');
  if (origin !== undefined) allowOrigin(response, origin);
  if (method === 'OPTIONS' && headers['access-control-request-method'] !== undefined)
    return preflight(request, response);
  if (NO_METHODS.has(method)) return refuse(response, 405, 'invalid_request', 'method not allowed');

  const body = await readRequest(request, maxBytes);
  if (body === undefined) return refuse(response, 413, 'invalid_request', 'the request is too large');
  const target = new URL(url);
  if (query !== undefined) target.search = query;
  const aborted = new AbortController();
  response.once('close', () => aborted.abort());
  const answered = await fetch(target, {
    method,
    headers: forwardedOf(request),
    signal: aborted.signal,
    ...(body.length > 0 && { body: body as Uint8Array<ArrayBuffer> }),
  });
  if (answered.status === 401) {
    await answered.body?.cancel();
    // passed on, it would have the host begin a sign-in of its own, with us
    return refuse(response, 502, 'invalid_token', `${url.origin} refuses this client`);
  }
  response.statusCode = answered.status;
  for (const [name, value] of returnedOf(answered)) response.setHeader(name, value);
  for (const [name, value] of Object.entries(NO_PAGE)) response.setHeader(name, value);
  response.flushHeaders();
  if (answered.body === null) return void response.end();
  await pipeline(Readable.fromWeb(answered.body as NodeReadableStream), response).catch((error: unknown) => {
    if (!aborted.signal.aborted) throw error;
  });
}

function isOwnName(given: string | undefined, host: string, port: number): boolean {
  const name = given?.toLowerCase();
  return [host, '127.0.0.1', 'localhost', '[::1]'].some(
    (own) => name === `${own}:${port}` || (port === 80 && name === own),
  );
}

function addressOf({ socket }: IncomingMessage): string {
  const address = socket.remoteAddress ?? '';
  const mapped = address.replace(/^::ffff:/, '');
  return mapped.includes(':') ? `[${mapped}]` : mapped;
}

/** Hashes are compared, which have one length, in a time that tells nothing. */
function isSecret(given: string, secret: string): boolean {
  return equalInConstantTime(sha256(utf8(given)), sha256(utf8(secret)));
}

function splitOnce(text: string, at: string): [string, string | undefined] {
  const index = text.indexOf(at);
  return index === -1 ? [text, undefined] : [text.slice(0, index), text.slice(index + 1)];
}

async function readRequest(request: IncomingMessage, maxBytes: number): Promise<Uint8Array | undefined> {
  const body = openSink();
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    body.push(chunk);
    if (body.size > maxBytes) return undefined;
  }
  return body.take();
}

function allowOrigin(response: ServerResponse, origin: string): void {
  response.setHeader('Access-Control-Allow-Origin', origin);
  response.setHeader('Access-Control-Expose-Headers', 'Mcp-Session-Id, MCP-Protocol-Version');
  response.setHeader('Vary', 'Origin');
}

function preflight(request: IncomingMessage, response: ServerResponse): void {
  const asked = request.headers['access-control-request-headers'];
  response.setHeader('Access-Control-Allow-Methods', 'GET, POST, DELETE');
  if (asked !== undefined) response.setHeader('Access-Control-Allow-Headers', asked);
  response.writeHead(204).end();
}

function refuse(response: ServerResponse, status: number, error: string, description: string): void {
  if (response.destroyed) return;
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', Connection: 'close' });
  response.end(JSON.stringify({ error, error_description: description }));
}
