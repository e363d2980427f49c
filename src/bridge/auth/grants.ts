/** Token requests, by oauth4webapi, authenticated by the agent. */
import * as oauth from 'oauth4webapi';
import type { Agent } from '../../agent/agent.ts';
import { AttestedError, type ErrorCode } from '../../errors.ts';
import { type FetchLike, fetchText } from '../../platform/http.ts';
import { type Discovered, textsOf } from './discovery.ts';
import { type LoginOptions, type OAuthOptions, signIn } from './login.ts';
import type { Tokens } from './tokens.ts';

export type Grant = 'client_credentials' | 'authorization_code';

export interface GrantInput {
  agent: Agent;
  at: Discovered;
  /** Space-separated. */
  scope: string | undefined;
  login: LoginOptions;
  /** Milliseconds since the epoch. */
  now: () => number;
}

/** The AS said no. */
export class GrantRefused extends AttestedError {
  /** OAuth error code, as the server wrote it. */
  readonly oauthError: string;

  constructor(oauthError: string, rule: string, cause: unknown) {
    const ours = KNOWN[oauthError] ?? 'authorization_failed';
    super(ours, `the authorization server gave no token${SHOWN.test(oauthError) ? `: ${oauthError}` : ''}`, {
      rule,
      cause,
    });
    this.oauthError = oauthError;
  }
}

/** Codes that mean for our callers what they mean on the wire. */
const KNOWN: Readonly<Record<string, ErrorCode>> = {
  invalid_client: 'invalid_client',
  invalid_client_attestation: 'invalid_client_attestation',
  access_denied: 'access_denied',
};
const SHOWN = /^[a-z_]{1,64}$/;

/** Milliseconds and bytes for one answer. */
const TIMEOUT = 15_000;
const MAX_BYTES = 256 * 1024;

export const grants: Readonly<Record<Grant, (input: GrantInput) => Promise<Tokens>>> = {
  client_credentials: (input) =>
    tokensFrom(input, 'RFC 6749 §4.4', async (as, client, options) => {
      const { agent, at, scope } = input;
      const parameters = { resource: at.resource, ...(scope !== undefined && { scope }) };
      const response = await oauth.clientCredentialsGrantRequest(as, client, agent.clientAuth, parameters, options);
      return oauth.processClientCredentialsResponse(as, client, response);
    }),
  authorization_code: (input) =>
    tokensFrom(input, 'RFC 6749 §4.1', async (as, client, options) => {
      const { agent, at, login } = input;
      const offline = textsOf(at.metadata.scopes_supported).includes('offline_access');
      const scope = union(input.scope, offline ? 'offline_access' : undefined);
      const parameters = {
        resource: at.resource,
        ...(scope !== undefined && { scope }),
        ...(offline && { prompt: 'consent' }), // without it no offline access (OpenID Connect Core §11)
      };
      const { answer, redirectUri, verifier } = await signIn({ as, client, agent, options, parameters, login });
      const response = await oauth.authorizationCodeGrantRequest(
        as,
        client,
        agent.clientAuth,
        answer,
        redirectUri,
        verifier,
        { ...options, additionalParameters: { resource: at.resource } },
      );
      return oauth.processAuthorizationCodeResponse(as, client, response);
    }),
};

export function refresh(input: Omit<GrantInput, 'login'>, tokens: Tokens & { refreshToken: string }): Promise<Tokens> {
  return tokensFrom(
    input,
    'RFC 6749 §6',
    async (as, client, options) => {
      const { agent, at } = input;
      const additionalParameters = { resource: at.resource };
      const response = await oauth.refreshTokenGrantRequest(as, client, agent.clientAuth, tokens.refreshToken, {
        ...options,
        additionalParameters,
      });
      return oauth.processRefreshTokenResponse(as, client, response);
    },
    tokens,
  );
}

async function tokensFrom(
  { agent, at, scope, now }: Omit<GrantInput, 'login'>,
  rule: string,
  ask: (
    as: oauth.AuthorizationServer,
    client: oauth.Client,
    options: OAuthOptions,
  ) => Promise<oauth.TokenEndpointResponse>,
  before?: Tokens,
): Promise<Tokens> {
  const as = at.metadata as unknown as oauth.AuthorizationServer;
  const options: OAuthOptions = {
    [oauth.customFetch]: bounded(agent.fetch as FetchLike) as OAuthOptions[typeof oauth.customFetch],
    // http is for this machine only, and what is neither is refused by our fetch
    [oauth.allowInsecureRequests]: true,
  };
  try {
    const answer = await ask(as, { client_id: agent.clientId }, options);
    const receivedAt = now();
    // it is kept, and goes into a header field with each request (RFC 6749 §A.12)
    if (!/^[\x20-\x7e]+$/.test(answer.access_token)) {
      throw new AttestedError('authorization_failed', 'the access token is none that could be sent', { rule });
    }
    return {
      accessToken: answer.access_token,
      tokenType: answer.token_type,
      refreshToken: answer.refresh_token ?? before?.refreshToken,
      expiresAt: answer.expires_in === undefined ? undefined : receivedAt + answer.expires_in * 1000,
      receivedAt,
      scope: answer.scope ?? before?.scope ?? scope,
      resource: at.resource,
      issuer: at.issuer,
    };
  } catch (error) {
    throw refusalOf(error, rule);
  }
}

function refusalOf(error: unknown, rule: string): unknown {
  if (error instanceof AttestedError) return error;
  if (error instanceof oauth.ResponseBodyError || error instanceof oauth.AuthorizationResponseError) {
    return new GrantRefused(error.error, rule, error);
  }
  if (error instanceof oauth.WWWAuthenticateChallengeError) return new GrantRefused('invalid_client', rule, error);
  return new AttestedError('authorization_failed', "the authorization server's answer cannot be used", {
    rule,
    cause: error,
  });
}

/** Whoever answers for the authorization server gets so much time and memory of ours, and no redirect. */
function bounded(fetch: FetchLike): FetchLike {
  return async (input, init = {}) => {
    const answer = await fetchText(String(input), init, { fetch, timeout: TIMEOUT, maxBytes: MAX_BYTES });
    const empty = [204, 205, 304].includes(answer.status);
    return new Response(empty ? null : answer.text, { status: answer.status, headers: answer.headers });
  };
}

export function union(...scopes: readonly (string | undefined)[]): string | undefined {
  const all = new Set(scopes.flatMap((scope) => scope?.split(' ') ?? []).filter((name) => name !== ''));
  return all.size === 0 ? undefined : [...all].join(' ');
}
