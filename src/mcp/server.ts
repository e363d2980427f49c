/** An MCP server's gate: access token and client attestation of every request, and that both belong together. */
import type { HeadersInput } from '../core/headers.ts';
import { readAttestationFields } from '../core/headers.ts';
import { AttestedError } from '../errors.ts';
import { assertTokenBoundTo } from '../verifier/binding.ts';
import type { AttestedClient, Verifier } from '../verifier/verifier.ts';
import type { AccessToken, VerifyAccessToken } from './access-tokens.ts';

/** What the gate reads of a request: a web `Request` is one; so is `{ method, url, headers: req.rawHeaders }`. */
export interface GateRequest {
  method: string;
  url: string;
  headers: HeadersInput;
}

/** The MCP SDKs' `AuthInfo`, with what is known of the calling instance in `extra.attestation`. */
export interface AuthInfo {
  token: string;
  clientId: string;
  scopes: string[];
  expiresAt?: number;
  resource?: URL;
  resourceMetadataUrl?: string;
  extra: Record<string, unknown> & { attestation?: AttestedClient };
}

export interface RequireAttestedAgentOptions {
  /** Of role `rs`, with this server's resource identifier as audience. */
  verifier: Verifier;
  /** Validates access tokens; a function, or the SDK's `OAuthTokenVerifier`. */
  verifyAccessToken: VerifyAccessToken | { verifyAccessToken: VerifyAccessToken };
  /** Scopes that every request needs. */
  requiredScopes?: readonly string[];
  /**
   * What ties a token to the instance that presents it. `instance` (default): the token names the attested key (`cnf.jkt`, or
   * a claim of the AS). `client`: the same client_id will do, so that another instance of this client could use it.
   */
  binding?: 'instance' | 'client';
  /** URL of this server's metadata document (RFC 9728), for refusals and for tools. */
  resourceMetadataUrl?: string;
  /**
   * The URL as the client sees it, for DPoP. Default: path and query of the request under the origin of the verifier's
   * audience, so that nothing depends on the Host header or on a proxy.
   */
  publicUrl?: (request: GateRequest) => string;
  /** Every refusal, for the operator's log: `error.code`, `error.rule` and `error.message` hold no secrets. */
  onRefusal?: (error: AttestedError, request: GateRequest) => void;
}

/**
 * Makes the gate of an MCP server. Gives the `AuthInfo` for the SDK's handler, or the `Response` to send instead.
 *
 * Checks, in this order: an access token is there; attestation and proof of possession (ABCA §7); the token itself; token and
 * instance belong together; scopes.
 */
export function requireAttestedAgent(
  options: RequireAttestedAgentOptions,
): (request: GateRequest) => Promise<AuthInfo | Response> {
  const { verifier, requiredScopes = [], binding = 'instance', resourceMetadataUrl, onRefusal } = options;
  const verifyToken =
    typeof options.verifyAccessToken === 'function'
      ? options.verifyAccessToken
      : options.verifyAccessToken.verifyAccessToken.bind(options.verifyAccessToken);
  const optional = verifier.policy.popMethods.includes('none');

  async function admit(request: GateRequest): Promise<AuthInfo> {
    const fields = readAttestationFields(request.headers);
    const [, scheme, token] = /^(\S+) +(\S+)$/.exec(fields.authorization ?? '') ?? [];
    const isDpop = scheme?.toLowerCase() === 'dpop';
    if (token === undefined || (!isDpop && scheme?.toLowerCase() !== 'bearer')) throw new NoToken();
    const seen = { headers: request.headers, method: request.method, url: publicUrlOf(request) };
    const anonymous = optional && fields.attestation === undefined && fields.pop === undefined;
    const client = anonymous ? undefined : await verifier.verify(seen);
    const access = await checkedToken(token);
    if (access.jkt !== undefined && !isDpop) throw invalidToken('is bound to a key and must come with the DPoP scheme');
    if (isDpop) {
      // in combined mode the proof was verified as the attestation's; else it stands for itself (DPOP-1)
      const proven = client?.method === 'dpop_combined' ? client.thumbprint : await verifier.verifyDpop(seen);
      if (access.jkt !== proven) throw invalidToken('is not bound to the key of the DPoP proof');
    }
    if (client !== undefined) checkBinding(access, client);
    if (!requiredScopes.every((scope) => access.scopes.includes(scope))) throw new InsufficientScope();
    return authInfo(access, client);
  }

  async function checkedToken(token: string): Promise<AccessToken> {
    let access: AccessToken;
    try {
      access = await verifyToken(token);
    } catch (cause) {
      if (cause instanceof AttestedError) throw cause;
      throw new AttestedError('invalid_token', 'the access token is not valid here', { rule: 'RFC 6750 §3.1', cause });
    }
    if (access.expiresAt !== undefined && access.expiresAt * 1000 <= Date.now()) throw invalidToken('has expired');
    if (access.resource !== undefined && !sameResource(access.resource.href, verifier.audience)) {
      throw invalidToken('was issued for another resource');
    }
    return access;
  }

  function checkBinding(access: AccessToken, client: AttestedClient): void {
    assertTokenBoundTo({ clientId: access.clientId }, client);
    if (binding === 'client') return;
    const bound = access.instance ?? access.jkt;
    if (bound === undefined) throw invalidToken('is not bound to a client instance');
    if (bound !== client.thumbprint) throw invalidToken('belongs to another client instance');
  }

  function authInfo(access: AccessToken, client: AttestedClient | undefined): AuthInfo {
    const { token, clientId, scopes, expiresAt, resource, extra } = access;
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
    if (options.publicUrl !== undefined) return options.publicUrl(request);
    const { pathname, search } = new URL(request.url, verifier.audience);
    return new URL(pathname + search, verifier.audience).href;
  }

  async function refuse(error: unknown, request: GateRequest): Promise<Response> {
    if (error instanceof NoToken || error instanceof InsufficientScope) {
      const metadata = resourceMetadataUrl === undefined ? '' : `resource_metadata="${resourceMetadataUrl}"`;
      const headers = new Headers({ 'Cache-Control': 'no-store' });
      if (error instanceof InsufficientScope) {
        const parts = ['error="insufficient_scope"', `scope="${requiredScopes.join(' ')}"`, metadata].filter(Boolean);
        headers.set('WWW-Authenticate', `Bearer ${parts.join(', ')}`);
        return Response.json({ error: 'insufficient_scope' }, { status: 403, headers });
      }
      // no error code without credentials (RFC 6750 §3); fresh values save the client a round trip later (CHA-3)
      headers.set('WWW-Authenticate', `Bearer ${metadata}`.trim());
      for (const [name, value] of Object.entries(await verifier.freshHeaders())) headers.set(name, value);
      return Response.json({ error: 'invalid_token' }, { status: 401, headers });
    }
    if (error instanceof AttestedError) onRefusal?.(error, request);
    else
      onRefusal?.(
        new AttestedError('temporarily_unavailable', 'the request could not be judged', { cause: error }),
        request,
      );
    return verifier.respond(error);
  }

  return (request) => admit(request).catch((error: unknown) => refuse(error, request));
}

/** Headers that hand the client its next challenge and nonce, for the answer to an admitted request (CHA-3, CHA-6). */
export function nextHeaders({ extra: { attestation } }: AuthInfo): Record<string, string> {
  return {
    ...(attestation?.challengeForNext !== undefined && {
      'OAuth-Client-Attestation-Challenge': attestation.challengeForNext,
    }),
    ...(attestation?.dpopNonceForNext !== undefined && { 'DPoP-Nonce': attestation.dpopNonceForNext }),
  };
}

class NoToken extends Error {}
class InsufficientScope extends Error {}

function invalidToken(why: string): AttestedError {
  return new AttestedError('invalid_token', `the access token ${why}`, { rule: 'BIND-1' });
}

/** Resource identifiers are compared as the SDKs do: as strings, one trailing slash and a fragment aside. */
function sameResource(a: string, b: string): boolean {
  const comparable = (text: string) => text.replace(/#.*$/, '').replace(/\/$/, '');
  return comparable(a) === comparable(b);
}
