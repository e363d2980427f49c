/** A server on this machine for one test, and a `fetch` that must not be called. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { FetchLike } from '../../src/platform/http.ts';

export interface TestServer {
  /** `http://127.0.0.1:port` */
  origin: string;
  /** Paths asked for, in order. */
  seen: string[];
  close(): Promise<void>;
}

export async function startServer(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<TestServer> {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(request.url ?? '');
    response.on('error', () => undefined); // the client may hang up at any time
    handler(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    seen,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export function sendJson(response: ServerResponse, body: unknown, type = 'application/json', status = 200): void {
  response.writeHead(status, { 'content-type': type });
  response.end(typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body));
}

/** Sends so many bytes of spaces and keeps to what the connection takes. Resolves with the bytes written. */
export function flood(response: ServerResponse, bytes: number, written: { bytes: number }): void {
  const chunk = Buffer.alloc(64 * 1024, ' ');
  const more = (): void => {
    while (written.bytes < bytes && !response.destroyed) {
      written.bytes += chunk.length;
      if (!response.write(chunk)) {
        response.once('drain', more);
        return;
      }
    }
    response.end();
  };
  more();
}

/** One byte now and then, without end. */
export function drip(response: ServerResponse, first = ''): void {
  response.write(first === '' ? ' ' : first);
  const timer = setInterval(() => response.write(' '), 20);
  response.on('close', () => clearInterval(timer));
}

/** A `fetch` for places where no connection may be made. */
export function forbiddenFetch(): FetchLike & { calls: string[] } {
  const calls: string[] = [];
  const fetch = async (input: string | URL): Promise<Response> => {
    calls.push(String(input));
    throw new Error('no connection was to be made');
  };
  return Object.assign(fetch, { calls });
}
