/** Access tokens as an MCP server sees them: what it must learn from each, and a ready verifier for JWTs (RFC 9068). */
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';
import { isJsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import { assertSafeUrl } from '../platform/http.ts';

/** A valid access token. A superset of the MCP SDKs' `AuthInfo` (v1 and v2). */
export interface AccessToken {
  token: string;
  clientId: string;
  scopes: string[];
  /** Seconds since the epoch. */
  expiresAt?: number;
  /** The resource the token was issued for (RFC 8707). */
  resource?: URL;
  /** `cnf.jkt`: thumbprint of the key that the token is bound to (RFC 9449 §6.1). */
  jkt?: string;
  /** Thumbprint of the client instance that the token was issued to, where the AS says so by a claim of its own. */
  instance?: string;
  extra?: Record<string, unknown>;
}

/** Validates an access token. Throws to refuse it; the reason goes to the log, not to the caller. */
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
}

/**
 * Validates JWT access tokens of one AS against its published keys (RFC 9068 §4).
 *
 * @throws AttestedError `invalid_argument` for an unsafe URL; the returned function throws `invalid_token`, or
 *   `temporarily_unavailable` when the keys cannot be fetched
 */
export function jwtAccessTokens(options: JwtAccessTokenOptions): VerifyAccessToken {
  const { issuer, audience, instanceClaim = 'client_instance_jkt' } = options;
  const algorithms = options.algorithms ?? [
    'ES256',
    'ES384',
    'ES512',
    'EdDSA',
    'Ed25519',
    'PS256',
    'PS384',
    'PS512',
    'RS256',
    'RS384',
    'RS512',
  ];
  const keys = createRemoteJWKSet(assertSafeUrl(options.jwksUri), { timeoutDuration: 5000, cooldownDuration: 30_000 });
  return async (token) => {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience,
      algorithms,
      typ: 'at+jwt',
      requiredClaims: ['exp', 'client_id'],
      clockTolerance: 5,
    }).catch((error: unknown) => {
      // a failure to fetch the keys says nothing about the token
      const faulty = error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout);
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
    if (typeof clientId !== 'string')
      throw new AttestedError('invalid_token', 'the access token names no client', { rule: 'RFC 9068 §2.2' });
    const jkt = isJsonObject(cnf) && typeof cnf.jkt === 'string' ? cnf.jkt : undefined;
    return {
      token,
      clientId,
      scopes: typeof scope === 'string' && scope !== '' ? scope.split(' ') : [],
      resource: new URL(audience),
      extra: { ...(typeof payload.sub === 'string' && { subject: payload.sub }) },
      ...(exp !== undefined && { expiresAt: exp }),
      ...(jkt !== undefined && { jkt }),
      ...(typeof instance === 'string' && { instance }),
    };
  };
}
