/** MCP servers over stdio and other transports without HTTP headers: attested agents only. */

import { CHALLENGE_HEADER } from '../core/headers.ts';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { wireAnswer } from '../core/oauth-errors.ts';
import { AttestedError, type ErrorCode } from '../errors.ts';
import type { AttestedClient, Verifier } from '../verifier/verifier.ts';
import type { AuthInfo } from './gate.ts';
import { type ToolDemands, toolJudge } from './tools.ts';
import {
  ATTESTATION_META_KEY,
  CHALLENGE_META_KEY,
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
  withCaller,
} from './transport.ts';

export interface RequireAttestedTransportOptions {
  /** Of role `rs`, with `policy: { concatenated: true }`; its audience is the name by which clients call this server. */
  verifier: Verifier;
  /**
   * `request` (default): each needs a proof. `session`: one is good for the connection, until its attestation expires; a
   * revocation is then not noticed before.
   */
  frequency?: 'request' | 'session';
  /** What single tools demand beyond the verifier's policy. */
  tools?: ToolDemands;
  /** Every refusal, for the operator's log. A server over stdio must not write it to stdout. */
  onRefusal?: (error: AttestedError) => void;
  /** Milliseconds since the epoch. Default `Date.now`. */
  now?: () => number;
}

/**
 * Wraps a server's transport (SDK v1 or v2): `server.connect(requireAttestedTransport(new StdioServerTransport(), { verifier }))`.
 *
 * Requests without a valid attestation and proof are refused, apart from `initialize`, `server/discover` and `ping`. Tools see
 * the caller by `attestationOf`, or in `authInfo.extra.attestation`; there is no access token, so `token` is empty and `scopes`
 * has none. A connection belongs to the instance that was first seen on it. What needs no answer (notifications, answers to the
 * server's own requests) passes once that instance is known. The proof does not cover the message: it says who is at the other
 * end of a channel that nobody else writes to.
 *
 * @throws AttestedError `invalid_argument` for a verifier that cannot do this
 */
export function requireAttestedTransport<T extends TransportLike>(
  transport: T,
  options: RequireAttestedTransportOptions,
): T {
  const { role, policy } = options?.verifier ?? {};
  if (role !== 'rs' || !policy?.concatenated || !policy.popMethods.includes('attestation_pop_jwt')) {
    throw new AttestedError(
      'invalid_argument',
      "a transport without headers needs a verifier of the role 'rs' whose policy has concatenated: true",
    );
  }
  return interpose(transport, (ends) => serverHalf(ends, options));
}

/** Answers that have no request any more: cancelled ones are never sent. */
const MAX_UNANSWERED = 1000;

function serverHalf(ends: Ends, options: RequireAttestedTransportOptions): Interposed {
  const { verifier, frequency = 'request', onRefusal, now = Date.now } = options;
  const judge = options.tools === undefined ? undefined : toolJudge(options.tools, now);
  const inbox = inOrder();
  /** The challenges that answers shall carry, by the ids of their requests. */
  const challenges = new Map<unknown, string>();
  let owner: AttestedClient | undefined;

  function receive(message: unknown, extra: unknown): void {
    // proofs are verified side by side, messages delivered in their order
    const verdict = proofOf(message);
    verdict.catch(() => undefined);
    inbox(async () => {
      let caller: AttestedClient | undefined;
      try {
        caller = await admit(message, await verdict);
      } catch (error) {
        return refuse(message, error);
      }
      pass(message as JsonObject, extra, caller);
    }).catch((error: Error) => ends.fail(error));
  }

  async function proofOf(message: unknown): Promise<AttestedClient | undefined> {
    if (!isJsonObject(message)) return undefined;
    const text = metaOf(message.params)[ATTESTATION_META_KEY];
    if (text === undefined || (isRequest(message) && isOpen(message))) return undefined;
    return verifier.verifyConcatenated(text as string);
  }

  /** Whose message it is, as far as that is known and matters. */
  async function admit(message: unknown, client: AttestedClient | undefined): Promise<AttestedClient | undefined> {
    if (!isJsonObject(message)) throw refused('invalid_request', 'what came is no JSON-RPC message', 'JSON-RPC 2.0 §4');
    if (isRequest(message) && isOpen(message)) {
      if (message.method !== 'ping') owe(message.id, await freshChallenge());
      return undefined;
    }
    if (client !== undefined && owner !== undefined && client.thumbprint !== owner.thumbprint) {
      throw refused('invalid_client_attestation', 'this connection belongs to another client instance', 'BIND-1');
    }
    owner = client ?? owner;
    if (!isRequest(message)) {
      if (owner !== undefined || message.method === 'notifications/initialized') return owner;
      throw refused('invalid_client_attestation', 'a message came before any attestation', 'VER-1');
    }
    const caller = client ?? (frequency === 'session' ? unexpired(owner) : undefined);
    // not invalid_client_attestation: a client that means well can mend it, with the challenge that comes along
    if (caller === undefined)
      throw refused('use_attestation_challenge', 'the request has no Client Attestation', 'VER-1');
    const unmet = judge?.(message, caller);
    if (unmet !== undefined) throw unmet;
    owe(message.id, client?.challengeForNext);
    return caller;
  }

  function unexpired(client: AttestedClient | undefined): AttestedClient | undefined {
    return client !== undefined && now() / 1000 < client.expiresAt ? client : undefined;
  }

  /** Handlers and logs do not get to see the tokens; and nobody else's word on the caller counts. */
  function pass(message: JsonObject, extra: unknown, client: AttestedClient | undefined): void {
    const { authInfo: _, ...rest } = (extra ?? {}) as { authInfo?: unknown };
    const known = client === undefined ? rest : { ...rest, authInfo: authInfoOf(client) };
    ends.deliver(withCaller(message, client), known);
  }

  function owe(id: unknown, challenge: string | undefined): void {
    if (challenge === undefined) return;
    const [oldest] = challenges.keys();
    if (challenges.size >= MAX_UNANSWERED) challenges.delete(oldest);
    challenges.set(id, challenge);
  }

  async function send(message: unknown, sendOptions: unknown): Promise<void> {
    if (!isResponse(message)) return ends.send(message, sendOptions);
    const challenge = challenges.get(message.id);
    challenges.delete(message.id);
    if (challenge === undefined || !isJsonObject(message.result)) return ends.send(message, sendOptions);
    const result = { ...message.result, _meta: { ...metaOf(message.result), [CHALLENGE_META_KEY]: challenge } };
    return ends.send({ ...message, result }, sendOptions);
  }

  async function refuse(message: unknown, error: unknown): Promise<void> {
    const refusal = error instanceof AttestedError ? error : undefined;
    const reported =
      refusal ?? new AttestedError('temporarily_unavailable', 'the request could not be judged', { cause: error });
    try {
      onRefusal?.(reported);
    } catch {
      // a log that fails must not change the answer
    }
    if (!isRequest(message)) return; // nobody waits for an answer
    const { body } = wireAnswer(refusal, 'rs');
    const challenge = refusal?.challenge ?? (await freshChallenge());
    const data = { ...body, ...(challenge !== undefined && { [CHALLENGE_META_KEY]: challenge }) };
    const text = body.error_description ?? 'the request could not be judged';
    await ends.send({ jsonrpc: '2.0', id: message.id, error: { code: REFUSED, message: text, data } });
  }

  async function freshChallenge(): Promise<string | undefined> {
    // without one it is an answer all the same
    return verifier.freshHeaders().then(
      (headers) => headers[CHALLENGE_HEADER],
      () => undefined,
    );
  }

  return { send, receive };
}

function authInfoOf(client: AttestedClient): AuthInfo {
  const { clientId, expiresAt } = client;
  return { token: '', clientId, scopes: [], expiresAt, extra: { attestation: client } };
}

function refused(code: ErrorCode, why: string, rule: string): AttestedError {
  return new AttestedError(code, why, { rule });
}
