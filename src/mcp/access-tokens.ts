/** Access tokens as an MCP server sees them: what it must learn from each, and a ready verifier for JWTs (RFC 9068). */
import { createRemoteJWKSet, customFetch, errors, jwtVerify } from 'jose';
import { signatureAlgorithms } from '../core/algorithms.ts';
import { isJsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import { assertSafeUrl, type FetchLike, fetchText } from '../platform/http.ts';

/** The claim by which an AS of ours ties an access token to a client instance; its value is the key's thumbprint. */
export const INSTANCE_CLAIM = 'client_instance_jkt';

/** A valid access token. A superset of the MCP SDKs' `AuthInfo` (v1 and v2). */
export interface AccessToken {
  token: string;
  clientId: string;
  scopes: string[];
  /** Seconds since the epoch. A token without it is refused. */
  expiresAt?: number;
  /** The resource the token was issued for (RFC 8707), compared with the server's own. Without it that is your check to make. */
  resource?: URL | string;
  /** `cnf.jkt`: thumbprint of the key that the token is bound to (RFC 9449 §6.1). */
  jkt?: string;
  /** The same as tokens and introspection answers write it; read here, and in `extra`, where `jkt` is absent. */
  cnf?: { jkt?: string };
  /** Thumbprint of the client instance that the token was issued to, where the AS says so by a claim of its own. */
  instance?: string;
  extra?: Record<string, unknown>;
}

/**
 * Validates an access token. Throws to refuse it; the reason goes to the log, not to the caller. Where the token could not be
 * judged, throw an AttestedError `temporarily_unavailable`: any other error tells the client to throw its token away.
 */
export type VerifyAccessToken = (token: string) => Promise<AccessToken>;

export interface JwtAccessTokenOptions {
  /** Issuer identifier of the AS. */
  issuer: string;
  /** What the tokens' `aud` must be: this server's resource identifier. */
  audience: string;
  /** URL of the AS's JWK Set. */
  jwksUri: string;
  /** Accepted signature algorithms. Default: the usual asymmetric ones. */
  algorithms?: string[];
  /** Name of a claim that holds the client instance's thumbprint. Default `client_instance_jkt`. */
  instanceClaim?: string;
  /** For the keys. Default `globalThis.fetch`. */
  fetch?: FetchLike;
  /** Milliseconds for fetching the keys. Default 5000. */
  timeout?: number;
  /** Milliseconds since the epoch. Default `Date.now`. */
  now?: () => number;
}

/** What jose says when the key set cannot be had: a status other than 200 or no JSON, a time-out, JSON that is no key set. */
const KEY_SET_FAULTS = new Set(['ERR_JOSE_GENERIC', 'ERR_JWKS_TIMEOUT', 'ERR_JWKS_INVALID']);

/**
 * Validates JWT access tokens of one AS against its published keys (RFC 9068 §4).
 *
 * @throws AttestedError `invalid_argument` for an unsafe URL; the returned function throws `invalid_token`, or
 *   `temporarily_unavailable` when the keys cannot be fetched
 */
export function jwtAccessTokens(options: JwtAccessTokenOptions): VerifyAccessToken {
  const { issuer, audience, instanceClaim = INSTANCE_CLAIM, fetch, timeout, now = Date.now } = options;
  if (!URL.canParse(audience)) {
    throw new AttestedError('invalid_argument', 'the audience must be a resource identifier, a URL (RFC 9728 §1.2)');
  }
  const algorithms = options.algorithms ?? [...signatureAlgorithms];
  const keys = createRemoteJWKSet(assertSafeUrl(options.jwksUri), {
    cooldownDuration: 30_000,
    // bounded in time and size
    [customFetch]: async (url: string) => {
      const { status, text } = await fetchText(url, {}, { fetch, timeout });
      return new Response(text, { status });
    },
  });
  const resource = new URL(audience);
  // clients ask for the resource as URL parsers write it, with a slash for an empty path
  const names = [...new Set([audience, resource.href])];
  return async (token) => {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience: names,
      algorithms,
      typ: 'at+jwt',
      requiredClaims: ['exp', 'client_id'],
      clockTolerance: 5,
      currentDate: new Date(now()),
    }).catch((error: unknown) => {
      // a failure to get the keys says nothing about the token
      const faulty = error instanceof errors.JOSEError && !KEY_SET_FAULTS.has(error.code);
      throw faulty
        ? new AttestedError('invalid_token', 'the access token is not valid here', {
            rule: 'RFC 9068 §4',
            cause: error,
          })
        : new AttestedError('temporarily_unavailable', 'the keys of the authorization server cannot be fetched', {
            cause: error,
          });
    });
    const { client_id: clientId, scope, cnf, exp, [instanceClaim]: instance } = payload;
    if (typeof clientId !== 'string') throw malformed('names no client', 'RFC 9068 §2.2');
    if (cnf !== undefined && !(isJsonObject(cnf) && typeof cnf.jkt === 'string' && Object.keys(cnf).length === 1)) {
      throw malformed('is bound in a way that this server cannot check', 'RFC 7800 §3.1');
    }
    if (instance !== undefined && typeof instance !== 'string') throw malformed('names no client instance', 'BIND-1');
    const jkt = cnf?.jkt as string | undefined;
    return {
      token,
      clientId,
      scopes: typeof scope === 'string' && scope !== '' ? scope.split(' ') : [],
      resource,
      extra: { ...(typeof payload.sub === 'string' && { subject: payload.sub }) },
      ...(exp !== undefined && { expiresAt: exp }),
      ...(jkt !== undefined && { jkt }),
      ...(instance !== undefined && { instance }),
    };
  };
}

function malformed(why: string, rule: string): AttestedError {
  return new AttestedError('invalid_token', `the access token ${why}`, { rule });
}
