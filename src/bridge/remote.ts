/**
 * The remote MCP server over Streamable HTTP, in all protocol versions that have it (2025-03-26 and newer, with sessions or
 * without). Messages are passed on as the bytes that they came as; what is read of them is what belongs to this transport.
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import type { FetchLike } from '../platform/http.ts';
import { type Answers, openAnswers } from './answers.ts';
import { isInitialize, openExchanges, type Session } from './exchange.ts';
import { discard, failureOf, mediaTypeOf, readBody } from './http.ts';
import { asLine } from './lines.ts';
import {
  type Envelope,
  errorMessage,
  type Message,
  type MessageId,
  type RpcError,
  readEnvelope,
  requestsOf,
  rpcErrorOf,
} from './message.ts';
import { asVersion, openMirror, versionIn } from './mirrored.ts';
import { errorOf, isSessionLost, readRefusal } from './refusal.ts';
import { openStreams } from './streams.ts';

export interface RemoteOptions {
  url: URL;
  /** Adds what authenticates a request, and stays within the server. */
  fetch: FetchLike;
  /** Gives one line to the host; resolves when the host can take more. */
  deliver: (line: Uint8Array) => Promise<void>;
  /** For people. */
  log: (text: string) => void;
  /** Largest message, bytes. */
  maxBytes: number;
  /** Milliseconds before the second try of what failed; doubled from then on. Default 250. */
  firstPause?: number;
}

export interface Remote {
  /** Sends what the host said. Resolves when all that was asked is answered, be it with an error. Never rejects. */
  send(envelope: Envelope): Promise<void>;
  /** Ends the session. */
  close(): Promise<void>;
}

/** A request of the bridge's own has to be answered within this many milliseconds. */
const OWN_PATIENCE = 30_000;
/** Milliseconds to say goodbye. */
const GOODBYE = 1500;
/** Milliseconds in which a cancelled request's answer may still come. */
const LAST_WORDS = 10_000;
/** A request's header fields do not repeat what its body says (SEP-2243). */
const HEADER_MISMATCH = -32_020;

export function openRemote({ url, fetch, deliver, log, maxBytes, firstPause = 250 }: RemoteOptions): Remote {
  /** What is under way; nothing begins once it is over. */
  const exchanges = new Set<AbortController>();
  let over = false;
  const mirror = openMirror();
  const answers: Answers = openAnswers();
  const session: Session = { id: undefined, version: undefined };
  const { exchange, headersFor } = openExchanges({ url, fetch, firstPause, session, mirror });
  const streams = openStreams({ exchange, receive, renewSession, maxBytes, firstPause, isOver: () => over });
  const handshake: { initialize?: Message; initialized?: Envelope } = {};
  let renewing: Promise<void> | undefined;
  let listening: AbortController | undefined;
  let ownRequests = 0;

  // ---- from the server

  async function receive(bytes: Uint8Array): Promise<void> {
    const envelope = readEnvelope(bytes);
    if (typeof envelope === 'number')
      return log('the server sent something that is no JSON-RPC message; it is left out');
    let forHost = false;
    for (const message of envelope.messages) {
      const waiting = message.kind === 'response' && message.id !== null ? answers.take(message.id) : undefined;
      if (waiting !== undefined) learn(waiting.method, message.json.result, bytes);
      if (waiting?.resolve === undefined) forHost = true;
      else waiting.resolve(message.json);
    }
    if (forHost) await deliver(asLine(bytes));
  }

  function learn(method: string, result: unknown, bytes: Uint8Array): void {
    if (method === 'initialize' && isJsonObject(result)) session.version = asVersion(result.protocolVersion);
    if (method === 'tools/list' && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes('x-mcp-header')) {
      mirror.learn(result);
    }
  }

  // ---- to the server

  async function post(envelope: Envelope, signal: AbortSignal, mayRenew: boolean): Promise<void> {
    for (let renewed = !mayRenew; ; renewed = true) {
      const { response, used } = await exchange('POST', envelope, signal);
      if (response.ok) {
        if (isInitialize(envelope)) session.id = response.headers.get('mcp-session-id') ?? undefined;
        return await readAnswer(response, envelope, signal);
      }
      const refusal = await readRefusal(response);
      if (!renewed && used !== null && isSessionLost(response.status, refusal)) await renewSession(used);
      else if (!renewed && refusal?.code === HEADER_MISMATCH && (await learnTools(envelope))) continue;
      else return refused(envelope, response, refusal);
    }
  }

  async function readAnswer(first: Response, envelope: Envelope, signal: AbortSignal): Promise<void> {
    const open = () => requestsOf(envelope).some(({ id }) => answers.has(id));
    if (!open()) return discard(first);
    const type = mediaTypeOf(first);
    if (type === 'application/json') {
      await receive(await readBody(first, maxBytes));
    } else if (type === 'text/event-stream') {
      await streams.follow(first, open, signal);
    } else {
      await discard(first);
      throw new AttestedError('http_failed', `${url.origin} answered with neither JSON nor an event stream`);
    }
    if (open()) throw new AttestedError('http_failed', `${url.origin} ended its answer before it was complete`);
  }

  async function refused(envelope: Envelope, response: Response, refusal: RpcError | undefined): Promise<void> {
    const requests = requestsOf(envelope);
    if (requests.length === 0) log(`${url.origin} refused a message with status ${response.status}`);
    const error = refusal ?? errorOf(response, url.origin);
    for (const { id } of requests) await fail(id, error);
  }

  async function fail(id: MessageId, error: RpcError): Promise<void> {
    const waiting = answers.take(id);
    if (waiting === undefined) return;
    if (waiting.resolve !== undefined) return waiting.resolve({ error: { ...error } as JsonObject });
    await deliver(asLine(errorMessage(id, error)));
  }

  // ---- requests of the bridge's own

  /** @returns the response; undefined when there is none in time */
  async function ask(json: JsonObject): Promise<JsonObject | undefined> {
    const id = `attested-bridge-${++ownRequests}`;
    const message = { ...json, id } as JsonObject;
    const request = { kind: 'request' as const, id, method: String(json.method), json: message };
    const answered = new Promise<JsonObject>((resolve) => answers.expect(request, { resolve, modern: false }));
    await runOwn({ bytes: Buffer.from(JSON.stringify(message)), messages: [request] });
    answers.take(id);
    return Promise.race([answered, Promise.resolve(undefined)]);
  }

  async function runOwn(envelope: Envelope, mayRenew = true): Promise<void> {
    const exchange = begin();
    const late = setTimeout(() => exchange.abort(), OWN_PATIENCE);
    await run(envelope, exchange, mayRenew);
    clearTimeout(late);
  }

  /** A server that has forgotten the session (it was restarted, as a rule) gets the host's own handshake once more. */
  function renewSession(lost: string): Promise<void> {
    if (session.id !== lost) return Promise.resolve();
    renewing ??= beginAgain().finally(() => {
      renewing = undefined;
    });
    return renewing;
  }

  async function beginAgain(): Promise<void> {
    const lost = session.id;
    const { initialize, initialized } = handshake;
    const before = session.version;
    const answer = initialize === undefined ? undefined : await ask(initialize.json);
    if (!isJsonObject(answer?.result)) {
      session.id = lost; // the next message tries again
      throw new AttestedError('http_failed', `${url.origin} has ended the session, and a new one could not be begun`);
    }
    log(`${url.origin} had forgotten the session; a new one was begun`);
    if (session.version !== before) log(`the server now speaks protocol version ${session.version}`);
    if (initialized === undefined) return;
    await runOwn(initialized, false); // who forgets this session, too, must not have us wait for ourselves
    listen();
  }

  /** The tools' schemas say which arguments the header fields repeat, and the host may know them from an earlier run. */
  async function learnTools(envelope: Envelope): Promise<boolean> {
    const [message] = envelope.messages;
    if (message?.kind !== 'request' || message.method !== 'tools/call') return false;
    const { params } = message.json;
    const _meta = isJsonObject(params) ? params._meta : undefined;
    let cursor: unknown;
    for (let page = 0; page < 20; page++) {
      const asked = { _meta, ...(cursor !== undefined && { cursor }) } as JsonObject;
      const answer = await ask({ jsonrpc: '2.0', method: 'tools/list', params: asked });
      if (!isJsonObject(answer?.result)) return page > 0;
      cursor = answer.result.nextCursor;
      if (typeof cursor !== 'string') return true;
    }
    return true;
  }

  // ---- the stream that the server may use at any time

  function listen(): void {
    listening?.abort();
    const exchange = begin();
    listening = exchange;
    streams
      .listen(exchange.signal)
      .catch((error: unknown) => {
        if (exchange.signal.aborted) return;
        log(`the server's stream is given up: ${failureOf(error, url.origin).error.message}`);
      })
      .finally(() => exchanges.delete(exchange));
  }

  // ---- for the bridge

  function begin(): AbortController {
    const exchange = new AbortController();
    if (over) exchange.abort();
    else exchanges.add(exchange);
    return exchange;
  }

  /** Sends, and sees to it that each request is answered. */
  async function run(envelope: Envelope, exchange: AbortController, mayRenew = true): Promise<void> {
    const { signal } = exchange;
    try {
      await post(envelope, signal, mayRenew);
    } catch (error) {
      const failure = rpcErrorOf(signal.aborted ? error : failureOf(error, url.origin).error);
      const requests = requestsOf(envelope);
      if (requests.length === 0 && !signal.aborted) log(failure.message);
      for (const { id } of requests) await fail(id, failure);
    } finally {
      exchanges.delete(exchange);
    }
  }

  /**
   * The host does not wait for the answer any more. From version 2026-07-28 on that is said by closing the stream, and the
   * notification goes no further. Before, the notification says it; the stream is closed later, since many servers leave it open.
   *
   * @returns whether all has been said
   */
  function cancel(message: Message): boolean {
    const params = isJsonObject(message.json.params) ? message.json.params : {};
    const id = params.requestId;
    if (typeof id !== 'string' && typeof id !== 'number') return false;
    const waiting = answers.take(id);
    if (waiting === undefined) return false;
    if (waiting.modern) waiting.stop?.abort();
    else setTimeout(() => waiting.stop?.abort(), LAST_WORDS).unref();
    return waiting.modern;
  }

  return {
    async send(envelope) {
      const [first] = envelope.messages;
      if (first?.kind === 'notification' && first.method === 'notifications/cancelled' && cancel(first)) return;
      const stop = begin();
      const modern = first !== undefined && versionIn(first) !== undefined;
      // other requests of a batch share its exchange
      const waiting = envelope.messages.length === 1 ? { stop, modern } : { modern };
      for (const request of requestsOf(envelope)) answers.expect(request, waiting);
      const initialize = requestsOf(envelope).find(({ method }) => method === 'initialize');
      if (initialize !== undefined) handshake.initialize = initialize;
      await run(envelope, stop);
      if (first?.kind === 'notification' && first.method === 'notifications/initialized') {
        handshake.initialized = envelope;
        listen();
      }
    },
    async close() {
      over = true;
      for (const exchange of exchanges) exchange.abort();
      if (session.id === undefined) return;
      const headers = headersFor(undefined, '*/*');
      const signal = AbortSignal.timeout(GOODBYE);
      // a server may forbid it (405), or be gone
      await fetch(url, { method: 'DELETE', headers, signal }).then(discard, () => undefined);
    },
  };
}
