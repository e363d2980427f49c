/** A web-standard handler behind node:http. */
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';

export interface Listening {
  /** `http://127.0.0.1:<port>`, with a port that was free. */
  origin: string;
  /** Answers from now on. */
  answerWith(listener: RequestListener): void;
  close(): Promise<void>;
}

/** Takes a free port on this machine only. What is asked before there is somebody to answer gets a 503. */
export async function listen(): Promise<Listening> {
  let current: RequestListener = (_request, response) => void response.writeHead(503).end();
  const server: Server = createServer((request, response) => current(request, response));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    answerWith: (listener) => {
      current = listener;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/**
 * Adapts a handler. The headers come from `rawHeaders`, so that a repeated field stays visible (as one joined by a comma)
 * where Node's own `headers` would keep the first and drop the rest.
 */
export function listenerOf(origin: string, handler: (request: Request) => Promise<Response>): RequestListener {
  return (incoming, outgoing) => {
    void handler(requestOf(origin, incoming, outgoing))
      .then((response) => send(response, outgoing))
      .catch(() => {
        if (!outgoing.headersSent) outgoing.writeHead(500);
        outgoing.end();
      });
  };
}

function requestOf(origin: string, incoming: IncomingMessage, outgoing: ServerResponse): Request {
  const { method = 'GET', url = '/', rawHeaders } = incoming;
  const headers = new Headers();
  for (let i = 0; i + 1 < rawHeaders.length; i += 2)
    headers.append(rawHeaders[i] as string, rawHeaders[i + 1] as string);
  const abort = new AbortController();
  outgoing.once('close', () => abort.abort());
  const body = method === 'GET' || method === 'HEAD' ? null : (Readable.toWeb(incoming) as ReadableStream<Uint8Array>);
  // an absolute-form target names no path of ours
  const target = new URL(url.startsWith('/') ? url : '/', origin);
  return new Request(target, { method, headers, body, duplex: 'half', signal: abort.signal });
}

async function send(response: Response, outgoing: ServerResponse): Promise<void> {
  outgoing.writeHead(response.status, [...response.headers].flat());
  if (response.body === null) outgoing.end();
  else await pipeline(Readable.fromWeb(response.body as NodeReadableStream<Uint8Array>), outgoing);
}
