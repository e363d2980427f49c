/** `attested/integrations/node`: web-standard handlers, such as `attester.handler` and what `protect` makes, behind node:http. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { AttestedError } from '../errors.ts';
import { urlUnder } from '../mcp/request-target.ts';
import { assertSafeUrl } from '../platform/http.ts';

export interface NodeListenerOptions {
  /**
   * A URL of this server as its clients see it, such as its issuer or resource identifier; the origin is what counts. The Host
   * header is not believed: under the name of another server, a DPoP proof made for that server would pass here.
   */
  url: string;
  /** What the handler threw; the client gets a bare 500. Default: to stderr. */
  onError?: (error: unknown) => void;
}

/**
 * Adapts a fetch-style handler to `createServer` of node:http, node:https or, through its compatibility API, node:http2, or to
 * Express where no body was parsed before.
 *
 * The headers come from `rawHeaders`, so that a repeated field stays visible (as one joined by a comma) where Node's own
 * `headers` would keep the first and drop the rest. A client that goes away aborts the request's `signal`. What no `Request`
 * can express (a target without a path, TRACE) is answered with 400.
 *
 * @throws AttestedError `invalid_argument` when `url` is missing, or neither https nor http on loopback
 */
export function toNodeListener(
  handler: (request: Request) => Response | Promise<Response>,
  { url, onError = (error) => console.error(error) }: NodeListenerOptions = {} as NodeListenerOptions,
): (incoming: IncomingMessage, outgoing: ServerResponse) => void {
  if (url === undefined) throw new AttestedError('invalid_argument', 'url must be this server as its clients see it');
  const { origin } = assertSafeUrl(url);

  async function answer(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const request = requestOf(origin, incoming, outgoing);
    if (request === undefined) {
      if (incoming.httpVersionMajor < 2) outgoing.setHeader('Connection', 'close');
      return void outgoing.writeHead(400).end();
    }
    try {
      await send(await handler(request), outgoing);
    } catch (error) {
      // nobody is left to answer: the handler was told so, or the answer broke off
      if (outgoing.headersSent ? isPrematureClose(error) : request.signal.aborted) return;
      if (outgoing.headersSent) outgoing.destroy();
      else outgoing.writeHead(500).end();
      onError(error);
    }
  }
  // a log that fails must not end the process
  return (incoming, outgoing) => void answer(incoming, outgoing).catch(() => undefined);
}

function requestOf(origin: string, incoming: IncomingMessage, outgoing: ServerResponse): Request | undefined {
  const { method = 'GET', rawHeaders } = incoming;
  // Express takes the path under which a listener is mounted off `url`
  const { originalUrl = incoming.url ?? '' } = incoming as { originalUrl?: string };
  const target = urlUnder(origin, originalUrl);
  if (target === undefined) return undefined;
  const abort = new AbortController();
  outgoing.once('close', () => {
    if (!outgoing.writableFinished) abort.abort();
  });
  try {
    const headers = new Headers();
    for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
      const name = rawHeaders[i] as string;
      // HTTP/2 has method and target among the fields (RFC 9113 §8.3.1)
      if (!name.startsWith(':')) headers.append(name, rawHeaders[i + 1] as string);
    }
    const body = method === 'GET' || method === 'HEAD' ? null : bodyOf(incoming, outgoing);
    return new Request(target, { method, headers, body, duplex: 'half', signal: abort.signal });
  } catch {
    return undefined;
  }
}

/**
 * Asks for bytes only when somebody reads them. What is left when the reader stops, or the answer is out, is thrown away:
 * Node would keep it, and with it the connection, and `Readable.toWeb` would cut the connection before the answer.
 */
function bodyOf(incoming: IncomingMessage, outgoing: ServerResponse): ReadableStream<Uint8Array> {
  let reading = true;
  const discard = (): void => {
    reading = false;
    incoming.removeAllListeners('data').resume();
  };
  outgoing.once('finish', discard);
  return new ReadableStream(
    {
      start(controller) {
        incoming.on('data', (chunk: Uint8Array) => {
          incoming.pause();
          controller.enqueue(chunk);
        });
        incoming.pause(); // listening started the flow
        incoming.once('end', () => reading && controller.close());
        incoming.once('error', (error) => reading && controller.error(error));
      },
      pull: () => void incoming.resume(),
      cancel: discard,
    },
    { highWaterMark: 0 },
  );
}

async function send(response: Response, outgoing: ServerResponse): Promise<void> {
  outgoing.writeHead(response.status, [...response.headers].flat());
  if (response.body === null) return void outgoing.end();
  outgoing.flushHeaders(); // whoever waits for events wants to know at once that they will come
  await pipeline(Readable.fromWeb(response.body as NodeReadableStream<Uint8Array>), outgoing);
}

function isPrematureClose(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE';
}
