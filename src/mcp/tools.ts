/**
 * What single tools demand of the attestation, beyond the policy that all requests have to meet.
 *
 * Two places to ask: at the gate (`tools` of `requireAttestedAgent`), before the server sees the request, and inside a tool
 * ({@link requireForTool}). The gate answers over HTTP, as MCP's authorization chapter does for scopes: what an agent can mend
 * by itself is 401 `use_fresh_attestation`; what it cannot is 403 `access_denied`, without a `WWW-Authenticate` that would
 * send clients off for another token. The guard inside answers with a tool result, which the model reads.
 */
import { isJsonObject } from '../core/json.ts';
import type { KeyEvidence, KeyStorage } from '../core/storage.ts';
import { AttestedError } from '../errors.ts';
import { checkRequirements, resolvePolicy } from '../verifier/policy.ts';
import type { AttestedClient } from '../verifier/verifier.ts';
import { attestationOf, type ToolContext } from './transport.ts';

export interface ToolDemand {
  /** The weakest acceptable storage of the instance key. */
  keyStorage?: KeyStorage;
  keyEvidence?: KeyEvidence;
  /** Claims of the attestation that must be there; a value other than `true` must be equal to the claim. */
  claims?: Readonly<Record<string, string | number | boolean>>;
  /** Seconds since the attestation was issued, at most. Agents of this package get a fresh one when asked. */
  maxAge?: number;
}

/** By the tool's name; what `*` demands holds for every tool, except where the tool's own row says otherwise. */
export type ToolDemands = Readonly<Record<string, ToolDemand>>;

type Check = (client: AttestedClient | undefined) => AttestedError | undefined;

/**
 * @returns a function that names what the tool calls in a message, or in a batch of them, leave unmet
 * @throws AttestedError `invalid_argument` for a demand that means nothing
 */
export function toolJudge(
  tools: ToolDemands,
  now: () => number,
): (messages: unknown, client: AttestedClient | undefined) => AttestedError | undefined {
  const all = tools['*'] ?? {};
  const rows = new Map(Object.entries(tools).map(([name, own]) => [name, compile({ ...all, ...own }, now)]));
  const others = rows.get('*') ?? (() => undefined);
  return (messages, client) => {
    for (const name of toolsCalled(messages)) {
      const unmet = (rows.get(name) ?? others)(client);
      if (unmet !== undefined) return unmet;
    }
    return undefined;
  };
}

/** A server that is not exact about the method's name must not be a way around; a name that is no text is no tool's. */
function toolsCalled(messages: unknown): string[] {
  return [messages].flat().flatMap((message) => {
    if (!isJsonObject(message) || typeof message.method !== 'string') return [];
    if (message.method.trim().toLowerCase() !== 'tools/call') return [];
    const name = isJsonObject(message.params) ? message.params.name : undefined;
    return typeof name === 'string' ? name : '*';
  });
}

function compile(demand: ToolDemand, now: () => number): Check {
  if (!isJsonObject(demand)) throw new AttestedError('invalid_argument', 'what a tool demands is an object');
  const { maxAge, ...require } = demand;
  if (maxAge !== undefined && !(typeof maxAge === 'number' && maxAge >= 0)) {
    throw new AttestedError('invalid_argument', 'maxAge of a tool is a number of seconds');
  }
  if ('status' in require)
    throw new AttestedError('invalid_argument', 'status is demanded of all requests, by the policy');
  const policy = policyOf(require);
  if (maxAge === undefined && Object.keys(require).length === 0) return () => undefined;
  return (client) => {
    if (client === undefined) {
      return new AttestedError('invalid_client_attestation', 'this tool requires a Client Attestation', {
        rule: 'VER-5',
      });
    }
    try {
      checkRequirements(policy, { storage: client.keyStorage, evidence: client.keyEvidence }, client.claims);
    } catch (error) {
      // not 401: no new token and no new proof would change it
      const what = (error as Error).message.replace('this server', 'this tool');
      return new AttestedError('access_denied', what, { rule: 'VER-5', cause: error });
    }
    if (maxAge === undefined) return undefined;
    const { iat } = client.claims;
    if (typeof iat === 'number' && now() / 1000 - iat <= maxAge) return undefined;
    return new AttestedError('use_fresh_attestation', 'this tool requires a more recent attestation', {
      rule: 'VER-5',
    });
  };
}

function policyOf(require: Omit<ToolDemand, 'maxAge'>): ReturnType<typeof resolvePolicy> {
  try {
    return resolvePolicy({ require });
  } catch (error) {
    throw new AttestedError(
      'invalid_argument',
      (error as Error).message.replace('policy.require.', 'what a tool demands: '),
    );
  }
}

/** A tool's result that says no, for MCP SDK v1 and v2. */
export interface ToolRefusal {
  isError: true;
  content: { type: 'text'; text: string }[];
  /** The error code under {@link ERROR_META_KEY}. */
  _meta: Record<string, unknown>;
  [member: string]: unknown;
}

export const ERROR_META_KEY = 'oauth-client-attestation-error';

const compiled = new WeakMap<ToolDemand, Check>();

/**
 * Inside a tool: what to return instead, when the caller does not meet the demand; undefined when it does.
 *
 * @param context the tool's last argument: v1 `extra`, v2 `ctx`; an `AuthInfo` will do, such as FastMCP's `context.session`
 * @throws AttestedError `invalid_argument` for a demand that means nothing
 */
export function requireForTool(
  context: ToolContext | ToolContext['authInfo'],
  demand: ToolDemand,
): ToolRefusal | undefined {
  const check = compiled.get(demand) ?? compile(demand, Date.now);
  compiled.set(demand, check);
  const isAuthInfo = context !== undefined && 'extra' in context;
  const unmet = check(attestationOf(isAuthInfo ? { authInfo: context } : (context as ToolContext | undefined)));
  if (unmet === undefined) return undefined;
  return {
    isError: true,
    content: [{ type: 'text', text: unmet.message }],
    _meta: { [ERROR_META_KEY]: unmet.code },
  };
}
