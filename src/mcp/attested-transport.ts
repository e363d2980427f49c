/** MCP clients over stdio and other transports without HTTP headers: every request carries attestation and proof. */
import type { Agent, Presenter } from '../agent/index.ts';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { isRetryCode, type RetryCode } from '../core/oauth-errors.ts';
import { AttestedError } from '../errors.ts';
import {
  ATTESTATION_META_KEY,
  challengeIn,
  type Ends,
  type Interposed,
  inOrder,
  interpose,
  isOpen,
  isRequest,
  isResponse,
  metaOf,
  REFUSED,
  type TransportLike,
  withMeta,
} from './transport.ts';

export interface AttestedTransportOptions {
  /** The server's identifier, as its verifier has it for an audience: a URL, or a URN where there is none. */
  server: string;
  /**
   * `request` (default): a proof with each. `session`: with the first, and whenever the server refuses; for servers that hold
   * with that, and keys that are slow to sign.
   */
  frequency?: 'request' | 'session';
}

/**
 * Wraps a client's transport (SDK v1 or v2): `client.connect(attestedTransport(new StdioClientTransport(…), agent, { server }))`.
 * A refusal that names a fresh challenge, or wants a fresher attestation, is answered once, out of the client's sight.
 *
 * @throws AttestedError `invalid_argument` without the server's name
 */
export function attestedTransport<T extends TransportLike>(
  transport: T,
  agent: Pick<Agent, 'presenter'>,
  { server, frequency = 'request' }: AttestedTransportOptions,
): T {
  if (!URL.canParse(server)) {
    throw new AttestedError('invalid_argument', 'server must be the audience of its verifier, a URL or a URN');
  }
  return interpose(transport, (ends) => clientHalf(ends, agent.presenter(server), frequency === 'session'));
}

/** A request that has no answer yet. */
interface InFlight {
  message: JsonObject;
  options: unknown;
  /** It was sent a second time: that is enough. */
  repeated: boolean;
}

function clientHalf(ends: Ends, presenter: Presenter, once: boolean): Interposed {
  const outbox = inOrder();
  const inFlight = new Map<unknown, InFlight>();
  let challenge: string | undefined;
  let proven = false;

  async function dressed(message: JsonObject): Promise<JsonObject> {
    return withMeta(message, { [ATTESTATION_META_KEY]: await presenter.present(challenge) });
  }

  function send(message: unknown, options: unknown): Promise<void> {
    if (!isJsonObject(message)) return outbox(() => ends.send(message, options));
    const asks = isRequest(message) && !isOpen(message);
    if (asks) inFlight.set(message.id, { message, options, repeated: false });
    if (message.method === 'notifications/cancelled')
      inFlight.delete(isJsonObject(message.params) && message.params.requestId);
    // `initialized` too, since the server may have requests of its own right after it
    const opens = message.method === 'notifications/initialized' && challenge !== undefined;
    if (!(asks || opens) || (once && proven)) return outbox(() => ends.send(message, options));
    // without a proof, `initialized` is still to be said
    const prepared = asks ? dressed(message) : dressed(message).catch(() => message);
    prepared.catch(() => inFlight.delete(message.id)); // which its sender hears
    return outbox(async () => ends.send(await prepared, options));
  }

  function receive(message: unknown, extra: unknown): void {
    const sent = isResponse(message) ? taken(message) : undefined;
    const refusal = isResponse(message) ? refusalIn(message) : undefined;
    if (sent !== undefined) proven = refusal === undefined;
    if (sent === undefined || sent.repeated || refusal?.code === undefined) ends.deliver(message, extra);
    else {
      repeat(sent, refusal.code).catch(() => {
        inFlight.delete(sent.message.id);
        ends.deliver(message, extra);
      });
    }
  }

  /** Takes note of an answer's challenge, and of the request that it answers. */
  function taken(message: JsonObject): InFlight | undefined {
    challenge = challengeIn(metaOf(message.result)) ?? refusalIn(message)?.challenge ?? challenge;
    const sent = inFlight.get(message.id);
    inFlight.delete(message.id);
    return sent;
  }

  async function repeat({ message, options }: InFlight, code: RetryCode): Promise<void> {
    inFlight.set(message.id, { message, options, repeated: true });
    if (code === 'use_fresh_attestation' && !(await presenter.renew())) throw new Error('no fresher attestation');
    const prepared = await dressed(message);
    // unless it was cancelled meanwhile
    await outbox(async () => inFlight.has(message.id) && ends.send(prepared, options));
  }

  return { send, receive };
}

/** What a refusal of the server half says; the code only where trying again may help. */
function refusalIn({ error }: JsonObject): { code: RetryCode | undefined; challenge: string | undefined } | undefined {
  if (!isJsonObject(error) || error.code !== REFUSED || !isJsonObject(error.data)) return undefined;
  const { error: code } = error.data;
  const known = typeof code === 'string' && isRetryCode(code) ? code : undefined;
  return { code: known, challenge: challengeIn(error.data) };
}
