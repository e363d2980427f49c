/** An MCP server's gate: access token and client attestation of every request, and that both belong together. */
import { CHALLENGE_HEADER, DPOP_NONCE_HEADER, readAttestationFields } from '../core/headers.ts';
import { AttestedError } from '../errors.ts';
import { assertTokenBoundTo } from '../verifier/binding.ts';
import type { AttestedClient } from '../verifier/verifier.ts';
import type { AccessToken } from './access-tokens.ts';
import type { AuthInfo, GateRequest, RequireAttestedAgentOptions } from './gate.ts';
import { assertUsable } from './gate-options.ts';
import { readMessages } from './messages.ts';
import { urlUnder } from './request-target.ts';
import { openSessions } from './sessions.ts';
import { toolJudge } from './tools.ts';

export type { AuthInfo, GateRequest, RequireAttestedAgentOptions } from './gate.ts';

/**
 * Makes the gate of an MCP server. Gives the `AuthInfo` for the SDK's handler, or the `Response` to send instead.
 *
 * Checks, in this order: an access token is there; attestation and proof of possession (ABCA §7); the token itself; token and
 * instance belong together; scopes; what the tools called demand; that an MCP session (`Mcp-Session-Id`) is used by the instance
 * that was seen first in it, as far as this process remembers: to others it does not exist (404). Left to the caller: what the
 * caller may do.
 *
 * @throws AttestedError `invalid_argument` for a verifier of another role, and for options that mean nothing
 */
export function requireAttestedAgent(
  options: RequireAttestedAgentOptions,
): (request: GateRequest) => Promise<AuthInfo | Response> {
  assertUsable(options);
  const { verifier, requiredScopes = [], binding = 'when-bound', resourceMetadataUrl, now = Date.now } = options;
  const verifyToken =
    typeof options.verifyAccessToken === 'function'
      ? options.verifyAccessToken
      : options.verifyAccessToken.verifyAccessToken.bind(options.verifyAccessToken);
  const optional = verifier.policy.popMethods.includes('none');
  const { origin } = new URL(verifier.audience);
  const judge = options.tools === undefined ? undefined : toolJudge(options.tools, now);

  const sessions = openSessions();

  async function admit(request: GateRequest, attempt: Attempt): Promise<AuthInfo> {
    const fields = readAttestationFields(request.headers);
    const [, scheme, token] = /^(\S+) +(\S+)$/.exec(fields.authorization ?? '') ?? [];
    const isDpop = scheme?.toLowerCase() === 'dpop';
    if (token === undefined || (!isDpop && scheme?.toLowerCase() !== 'bearer')) {
      attempt.withoutToken = true;
      throw new AttestedError('invalid_token', 'the request has no access token', { rule: 'RFC 6750 §3' });
    }
    const seen = { headers: request.headers, method: request.method, url: publicUrlOf(request) };
    const anonymous = optional && fields.attestation === undefined && fields.pop === undefined;
    const client = anonymous ? undefined : await verifier.verify(seen);
    attempt.client = client;
    const access = await checkedToken(token);
    if (access.jkt !== undefined && !isDpop) throw invalidToken('is bound to a key and must come with the DPoP scheme');
    if (isDpop) {
      // in combined mode the proof was verified as the attestation's; else it stands for itself (DPOP-1)
      const proven = client?.method === 'dpop_combined' ? client.thumbprint : await verifier.verifyDpop(seen);
      if (access.jkt !== proven) throw invalidToken('is not bound to the key of the DPoP proof');
    }
    checkBinding(access, client);
    if (!requiredScopes.every((scope) => access.scopes.includes(scope))) {
      throw new AttestedError('insufficient_scope', 'the access token lacks a scope', { rule: 'RFC 6750 §3.1' });
    }
    if (judge !== undefined) {
      const unmet = judge(await readMessages(request), client);
      if (unmet !== undefined) throw unmet;
    }
    if (!sessions.belongsTo(request.headers, client?.thumbprint)) {
      attempt.foreignSession = true;
      throw new AttestedError('access_denied', 'the MCP session belongs to another client instance', {
        rule: 'BIND-1',
      });
    }
    return authInfo(access, client);
  }

  async function checkedToken(token: string): Promise<CheckedToken> {
    let access: AccessToken;
    try {
      access = await verifyToken(token);
    } catch (cause) {
      if (cause instanceof AttestedError) throw cause;
      throw new AttestedError('invalid_token', 'the access token is not valid here', { rule: 'RFC 6750 §3.1', cause });
    }
    // what is not stated was not checked: the SDKs' own gates refuse a token without an end, too
    if (!Number.isFinite(access.expiresAt)) throw invalidToken('has no known end', 'RFC 6750 §3.1');
    if ((access.expiresAt as number) * 1000 <= now()) throw invalidToken('has expired', 'RFC 6750 §3.1');
    const { resource: named, ...rest } = access;
    const jkt = boundKeyOf(access);
    return {
      ...rest,
      ...(named !== undefined && { resource: ownResource(named) }),
      ...(jkt !== undefined && { jkt }),
    };
  }

  function ownResource(named: string | URL): URL {
    const resource = URL.canParse(`${named}`) ? new URL(named) : undefined;
    if (resource !== undefined && sameResource(resource.href, new URL(verifier.audience).href)) return resource;
    throw invalidToken('was issued for another resource', 'RFC 8707 §2');
  }

  function checkBinding({ clientId, instance, jkt }: CheckedToken, client: AttestedClient | undefined): void {
    if (client === undefined) {
      if (instance === undefined) return;
      // or else a stolen token would be good for whoever leaves the attestation out
      throw new AttestedError(
        'invalid_client_attestation',
        'the access token belongs to a client instance, whose attestation is missing',
        { rule: 'BIND-1' },
      );
    }
    assertTokenBoundTo({ clientId }, client);
    const bound = instance ?? (binding === 'client' ? undefined : jkt);
    if (bound === undefined && binding === 'instance') throw invalidToken('is not bound to a client instance');
    if (bound !== undefined && bound !== client.thumbprint) throw invalidToken('belongs to another client instance');
  }

  function authInfo(access: CheckedToken, client: AttestedClient | undefined): AuthInfo {
    const { token, clientId, scopes, expiresAt, resource } = access;
    // only this gate says who is attested, whatever else a token may claim
    const { attestation: _, ...extra } = access.extra ?? {};
    return {
      token,
      clientId,
      scopes,
      ...(expiresAt !== undefined && { expiresAt }),
      ...(resource !== undefined && { resource }),
      ...(resourceMetadataUrl !== undefined && { resourceMetadataUrl }),
      extra: { ...extra, ...(client !== undefined && { attestation: client }) },
    };
  }

  function publicUrlOf(request: GateRequest): string {
    const url = options.publicUrl === undefined ? urlUnder(origin, request.url)?.href : options.publicUrl(request);
    if (url !== undefined) return url;
    throw new AttestedError('invalid_request', 'the request names no path of this server', { rule: 'RFC 9112 §3.2' });
  }

  async function refuse(error: unknown, request: GateRequest, attempt: Attempt): Promise<Response> {
    const refusal =
      error instanceof AttestedError
        ? error
        : new AttestedError('temporarily_unavailable', 'the request could not be judged', { cause: error });
    try {
      options.onRefusal?.(refusal, request);
    } catch {
      // a log that fails must not change the answer
    }
    const { status, headers, body } = verifier.respond(refusal);
    // MCP's word for a session that is none (for this client), upon which it begins another
    const response = new Response(body, { status: attempt.foreignSession ? 404 : status, headers });
    // no error code without credentials (RFC 6750 §3)
    const said = attempt.withoutToken ? 'Bearer' : headers.get('WWW-Authenticate');
    if (said === null) return response;
    response.headers.set('WWW-Authenticate', withParameters(said, hints));
    for (const [name, value] of Object.entries(await freshValues(attempt.client))) {
      response.headers.set(name, value);
    }
    return response;
  }

  /** What a client needs to do better: the document that explains this server, and the scopes (RFC 9728 §5.1, RFC 6750 §3). */
  const hints: Record<string, string> = {
    ...(requiredScopes.length > 0 && { scope: requiredScopes.join(' ') }),
    ...(resourceMetadataUrl !== undefined && { resource_metadata: new URL(resourceMetadataUrl).href }),
  };

  /** Fresh values with a refusal save the client a round trip later (CHA-3). Without them it is a refusal all the same. */
  async function freshValues(client: AttestedClient | undefined): Promise<Record<string, string>> {
    if (client !== undefined) return nextOf(client);
    return verifier.freshHeaders().catch(() => ({}));
  }

  return async (request) => {
    const attempt: Attempt = { withoutToken: false, foreignSession: false, client: undefined };
    try {
      return await admit(request, attempt);
    } catch (error) {
      return refuse(error, request, attempt);
    }
  };
}

type CheckedToken = Omit<AccessToken, 'resource'> & { resource?: URL };

/** A confirmation that goes unread would make a bound token a bearer token, so it is looked for wherever verifiers put it. */
function boundKeyOf({ jkt, cnf = undefined, extra }: AccessToken): string | undefined {
  if (jkt !== undefined) return jkt;
  const found = cnf ?? extra?.cnf;
  if (found === undefined || found === null) return undefined;
  const named = (found as { jkt?: unknown }).jkt;
  if (typeof named !== 'string') throw invalidToken('is bound in a way that this server cannot check', 'RFC 7800 §3.1');
  return named;
}

/** How far a request came before it was refused. */
interface Attempt {
  withoutToken: boolean;
  foreignSession: boolean;
  client: AttestedClient | undefined;
}

/** Headers that hand the client its next challenge and nonce, for the answer to an admitted request (CHA-3, CHA-6). */
export function nextHeaders({ extra: { attestation } }: AuthInfo): Record<string, string> {
  return attestation === undefined ? {} : nextOf(attestation);
}

function nextOf({ challengeForNext, dpopNonceForNext }: AttestedClient): Record<string, string> {
  return {
    ...(challengeForNext !== undefined && { [CHALLENGE_HEADER]: challengeForNext }),
    ...(dpopNonceForNext !== undefined && { [DPOP_NONCE_HEADER]: dpopNonceForNext }),
  };
}

function withParameters(challenge: string, parameters: Record<string, string>): string {
  const added = Object.entries(parameters)
    .filter(([name]) => !challenge.includes(`${name}="`))
    .map(([name, value]) => `${name}="${value}"`);
  if (added.length === 0) return challenge;
  return `${challenge}${challenge.includes(' ') ? ', ' : ' '}${added.join(', ')}`;
}

function invalidToken(why: string, rule = 'BIND-1'): AttestedError {
  return new AttestedError('invalid_token', `the access token ${why}`, { rule });
}

/** Resource identifiers are compared as the SDKs do: as strings, one trailing slash and a fragment aside. */
function sameResource(a: string, b: string): boolean {
  const comparable = (text: string) => text.replace(/#.*$/, '').replace(/\/$/, '');
  return comparable(a) === comparable(b);
}
