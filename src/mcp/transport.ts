/**
 * Client attestation where there are no HTTP headers: what both halves share. A request carries the concatenated form of
 * attestation and proof (CAT-1) in `params._meta`; results carry fresh challenges in `_meta`; a refusal is a JSON-RPC error.
 *
 * MCP keeps names without a prefix in `_meta` free for anybody and asks for a domain in a prefix. These have none: they are the
 * draft's own field names, and no domain of ours should stand in a protocol that others may speak.
 */
import { isUsableChallenge } from '../core/challenge.ts';
import { isJsonObject, type JsonObject, type JsonValue } from '../core/json.ts';
import type { AttestedClient } from '../verifier/verifier.ts';

export const ATTESTATION_META_KEY = 'oauth-client-attestation';
export const CHALLENGE_META_KEY = 'oauth-client-attestation-challenge';

/** JSON-RPC code of every refusal of ours; `data.error` says which. Of the range that MCP leaves to implementations. */
export const REFUSED = -32010;

/** Requests that need no attestation: by them client and server meet, and the client gets its first challenge. */
const OPEN_METHODS: readonly unknown[] = ['initialize', 'server/discover', 'ping'];

/** The MCP SDKs' `Transport`, v1 and v2, by what is used of it. */
export interface TransportLike {
  start(): Promise<void>;
  send(message: never, options?: never): Promise<void>;
  close(): Promise<void>;
  onmessage?: ((message: never, extra?: never) => void) | undefined;
  onerror?: ((error: Error) => void) | undefined;
}

/** What a half does to what passes; `send` and `deliver` take it on, in the order in which they are called. */
export interface Interposed {
  send(message: unknown, options: unknown): Promise<void>;
  receive(message: unknown, extra: unknown): void;
}

export interface Ends {
  send(message: unknown, options?: unknown): Promise<void>;
  deliver(message: unknown, extra: unknown): void;
  fail(error: Error): void;
}

/** The same transport, with a half of ours between it and whoever uses it. Every other member is the transport's own. */
export function interpose<T extends TransportLike>(transport: T, half: (ends: Ends) => Interposed): T {
  const raw = transport as unknown as {
    send(message: unknown, options?: unknown): Promise<void>;
    onmessage?: (message: unknown, extra: unknown) => void;
    onerror?: (error: Error) => void;
  };
  let above: ((message: unknown, extra: unknown) => void) | undefined;
  const { send, receive } = half({
    send: (message, options) => raw.send(message, options),
    deliver: (message, extra) => above?.(message, extra),
    fail: (error) => raw.onerror?.(error),
  });
  return new Proxy(transport, {
    get(target, name) {
      if (name === 'send') return send;
      if (name === 'onmessage') return above;
      const value: unknown = Reflect.get(target, name, target);
      // methods may need the transport's private members; its callbacks belong to others
      return typeof value === 'function' && !String(name).startsWith('on') ? value.bind(target) : value;
    },
    set(target, name, value) {
      if (name !== 'onmessage') return Reflect.set(target, name, value, target);
      above = value;
      // not before somebody listens: some transports keep what comes earlier
      raw.onmessage = receive;
      return true;
    },
  });
}

/** One thing after the other, whatever became of the one before. */
export function inOrder(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const next = last.then(work);
    last = next.catch(() => undefined);
    return next;
  };
}

/** A request, whatever its id is: `null` must not make it a notification. */
export function isRequest(message: unknown): message is JsonObject & { id: JsonValue; method: JsonValue } {
  return isJsonObject(message) && 'method' in message && 'id' in message;
}

export function isResponse(message: unknown): message is JsonObject & { id: JsonValue } {
  return isJsonObject(message) && !('method' in message) && 'id' in message;
}

export function isOpen({ method }: JsonObject): boolean {
  return OPEN_METHODS.includes(method);
}

export function metaOf(holder: JsonValue | undefined): JsonObject {
  return isJsonObject(holder) && isJsonObject(holder._meta) ? holder._meta : {};
}

/** A request or notification with these members in `params._meta`; undefined takes one away. */
export function withMeta(message: JsonObject, members: JsonObject): JsonObject {
  const params = isJsonObject(message.params) ? message.params : {};
  return { ...message, params: { ...params, _meta: { ...metaOf(params), ...members } } };
}

export function challengeIn(holder: JsonObject): string | undefined {
  const challenge = holder[CHALLENGE_META_KEY];
  return isUsableChallenge(challenge) ? challenge : undefined;
}

/** Callers that a server half of this process has verified. What came as JSON is never among them, whatever it looks like. */
const vouched = new WeakSet<object>();

/** The request as handlers get it: in the place of the tokens, what they proved. Some SDK paths bring nothing else through. */
export function withCaller(message: JsonObject, client: AttestedClient | undefined): JsonObject {
  if (client !== undefined && isRequest(message)) {
    vouched.add(client);
    return withMeta(message, { [ATTESTATION_META_KEY]: client as unknown as JsonObject });
  }
  return ATTESTATION_META_KEY in metaOf(message.params)
    ? withMeta(message, { [ATTESTATION_META_KEY]: undefined })
    : message;
}

/** What a tool is called with, by what is read of it: v1 `extra`, v2 `ctx`. */
export interface ToolContext {
  authInfo?: { extra?: Record<string, unknown> | undefined } | undefined;
  http?: { authInfo?: { extra?: Record<string, unknown> | undefined } | undefined } | undefined;
  _meta?: Record<string, unknown> | undefined;
  mcpReq?: { _meta?: Record<string, unknown> | undefined } | undefined;
}

/**
 * Who is calling this tool, behind any gate of this package: HTTP or not, SDK v1 or v2.
 *
 * @param context the tool's last argument: v1 `extra`, v2 `ctx`
 */
export function attestationOf(context: ToolContext | undefined): AttestedClient | undefined {
  const { authInfo = context?.http?.authInfo, _meta = context?.mcpReq?._meta } = context ?? {};
  const found = authInfo?.extra?.attestation ?? verifiedIn(_meta);
  return found as AttestedClient | undefined;
}

function verifiedIn(meta: Record<string, unknown> | undefined): unknown {
  const found = meta?.[ATTESTATION_META_KEY];
  return typeof found === 'object' && found !== null && vouched.has(found) ? found : undefined;
}
