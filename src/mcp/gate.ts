/** What an MCP server's gate is given, and what it gives. */
import type { HeadersInput } from '../core/headers.ts';
import type { AttestedError } from '../errors.ts';
import type { AttestedClient, Verifier } from '../verifier/verifier.ts';
import type { VerifyAccessToken } from './access-tokens.ts';
import type { ToolDemands } from './tools.ts';

/** What the gate reads of a request: a web `Request` is one; so is `{ method, url, headers: req.rawHeaders }`. */
export interface GateRequest {
  method: string;
  url: string;
  headers: HeadersInput;
  /**
   * The JSON that the body was parsed into, and that is given to the MCP transport. Needed for `tools` where the request is no
   * web `Request`, whose body the gate reads itself.
   */
  parsedBody?: unknown;
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
   * What single tools demand beyond the verifier's policy, judged before the server sees the request. Then the gate has to see
   * the messages: see {@link GateRequest.parsedBody}.
   */
  tools?: ToolDemands;
  /**
   * What ties a token to the instance that presents it. `when-bound` (default): where the token names an instance or a key
   * (`AccessToken.instance`, `cnf.jkt`), it is the attested one; a token that names none is good for every attested instance
   * of its client. `instance`: a token that names none is refused; choose it when your AS binds its tokens. `client`:
   * `cnf.jkt` may be a DPoP key of its own beside the attested one; `AccessToken.instance` is compared all the same.
   */
  binding?: 'when-bound' | 'instance' | 'client';
  /** URL of this server's metadata document (RFC 9728), for refusals and for tools. */
  resourceMetadataUrl?: string;
  /**
   * The URL as the client sees it, for DPoP. Default: path and query of the request under the origin of the verifier's
   * audience, so that nothing depends on the Host header or on a proxy.
   */
  publicUrl?: (request: GateRequest) => string;
  /**
   * Every refusal, for the operator's log: `error.code`, `error.rule` and `error.message` hold no secrets; `error.cause` may.
   * A request without a token is among them (rule `RFC 6750 §3`): that is how a client's first contact looks.
   */
  onRefusal?: (error: AttestedError, request: GateRequest) => void;
  /** Milliseconds since the epoch, for the tokens' end. Default `Date.now`. */
  now?: () => number;
}
