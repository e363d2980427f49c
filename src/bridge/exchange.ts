/** One message's way to the server: the header fields of its session and version, and tries that do no harm. */
import { AttestedError } from '../errors.ts';
import type { FetchLike } from '../platform/http.ts';
import { backOff, failureOf, pause } from './http.ts';
import { type Envelope, requestsOf } from './message.ts';
import { type Mirror, versionIn } from './mirrored.ts';

/** What the server and the host have agreed on. */
export interface Session {
  /** Of a server that keeps sessions. */
  id: string | undefined;
  version: string | undefined;
}

export interface Exchanges {
  /**
   * @param lastId where a stream is to be resumed
   * @returns the answer, and the session that was named
   * @throws AttestedError `http_*`, or what authentication throws
   */
  exchange(
    method: 'POST' | 'GET',
    envelope: Envelope | undefined,
    signal: AbortSignal,
    lastId?: string,
  ): Promise<{ response: Response; used: string | null }>;
  headersFor(envelope: Envelope | undefined, accept: string): Headers;
}

/** How often a message that could not be sent, or an answer that broke off, is tried again. */
export const MAX_TRIES = 6;

/** Nothing changes when these are asked twice. */
const REPEATABLE: ReadonlySet<string> = new Set([
  'completion/complete',
  'initialize',
  'ping',
  'prompts/get',
  'prompts/list',
  'resources/list',
  'resources/read',
  'resources/templates/list',
  'server/discover',
  'tools/list',
]);

export function openExchanges(options: {
  url: URL;
  fetch: FetchLike;
  firstPause: number;
  session: Session;
  mirror: Mirror;
}): Exchanges {
  const { url, fetch, firstPause, session, mirror } = options;

  function headersFor(envelope: Envelope | undefined, accept: string): Headers {
    const headers = new Headers({ accept });
    const [message] = envelope?.messages ?? [];
    const version = message === undefined ? undefined : versionIn(message);
    if (envelope !== undefined) headers.set('content-type', 'application/json');
    if (message?.kind === 'request' && version !== undefined) {
      session.version = version;
      mirror.apply(headers, message, version);
      return headers;
    }
    if (isInitialize(envelope)) return headers;
    const named = version ?? session.version;
    if (named !== undefined) headers.set('mcp-protocol-version', named);
    if (session.id !== undefined) headers.set('mcp-session-id', session.id);
    return headers;
  }

  async function exchange(
    method: 'POST' | 'GET',
    envelope: Envelope | undefined,
    signal: AbortSignal,
    lastId?: string,
  ) {
    const accept = method === 'GET' ? 'text/event-stream' : 'application/json, text/event-stream';
    const repeatable = requestsOf(envelope ?? { bytes: new Uint8Array(), messages: [] }).every((request) =>
      REPEATABLE.has(request.method),
    );
    for (let failures = 0; ; failures++) {
      const headers = headersFor(envelope, accept);
      if (lastId !== undefined) headers.set('last-event-id', lastId);
      const used = headers.get('mcp-session-id');
      try {
        const body = envelope?.bytes as Uint8Array<ArrayBuffer> | undefined;
        return { response: await fetch(url, { method, headers, signal, ...(body !== undefined && { body }) }), used };
      } catch (error) {
        if (signal.aborted) throw error;
        const failure = failureOf(error, url.origin);
        const again = failure.unsent || (repeatable && failures === 0 && !(error instanceof AttestedError));
        if (!again || failures + 1 >= MAX_TRIES || !(await pause(backOff(failures, firstPause), signal)))
          throw failure.error;
      }
    }
  }

  return { exchange, headersFor };
}

export function isInitialize(envelope: Envelope | undefined): boolean {
  return envelope !== undefined && requestsOf(envelope).some(({ method }) => method === 'initialize');
}
