/** Which token a request gets: the kept one, a refreshed one, or a new one, by whatever grant the server has. */
import type { Agent } from '../../agent/agent.ts';
import { AttestedError } from '../../errors.ts';
import type { KeyProvider } from '../../keys/provider.ts';
import { type Challenge, type Discovered, discover, textsOf } from './discovery.ts';
import { type Grant, type GrantInput, GrantRefused, grants, refresh, union } from './grants.ts';
import type { LoginOptions } from './login.ts';
import { openTokenStore, type Tokens } from './tokens.ts';

export interface AuthorizationOptions {
  agent: Agent;
  keys: KeyProvider;
  /** The MCP server. */
  server: URL;
  /** `auto`: without a person where the authorization server lets us, else with one. */
  grant: Grant | 'auto';
  /** Space-separated; in place of what the server's metadata and refusals name. */
  scope: string | undefined;
  /** The only authorization server to be used. */
  issuer: string | undefined;
  login: LoginOptions;
  log: (text: string) => void;
  /** Milliseconds since the epoch. */
  now: () => number;
}

export interface Authorization {
  /** What to try; undefined while nothing is known of the server. */
  current(): Promise<Tokens | undefined>;
  /** Other tokens in place of those that were refused. @throws AttestedError when there are none to be had */
  renew(refused: Tokens | undefined, challenge: Challenge): Promise<Tokens>;
}

/** Milliseconds before its end in which a token is not used any more, or a tenth of its life where that is less. */
const MARGIN = 10_000;
/**
 * A server could send a person to sign in for ever. After a sign-in that failed, or one for the same scope, nobody is asked
 * again for `pause` milliseconds, and in `window` milliseconds nobody is asked more than `most` times.
 */
const SIGN_INS = { pause: 60_000, window: 600_000, most: 3 } as const;
const NO_CHALLENGE: Challenge = { error: undefined, scope: undefined, resourceMetadata: undefined };

/** Refusals of `auto`'s first grant after which the other is tried: this client has no right to it. */
const NOT_FOR_US: readonly string[] = ['unauthorized_client', 'unsupported_grant_type', 'invalid_scope'];

interface SignIn {
  /** Milliseconds since the epoch. */
  at: number;
  scope: string | undefined;
  error: unknown;
}

export function openAuthorization(options: AuthorizationOptions): Authorization {
  const { agent, keys, server, now, log } = options;
  const store = openTokenStore(keys, agent.clientId, server, options.login.timeout + 15_000);
  let known: Tokens | undefined;
  /** Where the server said that its metadata is; it says so in refusals only. */
  let location: string | undefined;
  let signIns: SignIn[] = [];
  let renewing: Promise<Tokens> | undefined;

  function adopt(tokens: Tokens): Tokens {
    const { accessToken, refreshToken, tokenType, issuer } = tokens;
    // the agent knows what came through it, unless its state was lost
    agent.observeTokens({ access_token: accessToken, refresh_token: refreshToken, token_type: tokenType, issuer });
    known = tokens;
    return tokens;
  }

  function isFresh({ expiresAt, receivedAt }: Tokens): boolean {
    if (expiresAt === undefined) return true;
    return now() < expiresAt - Math.min(MARGIN, (expiresAt - receivedAt) / 10);
  }

  async function newTokens(refused: Tokens | undefined, challenge: Challenge): Promise<Tokens> {
    location = challenge.resourceMetadata ?? location;
    const at = await discover(agent, server, { ...challenge, resourceMetadata: location }, options.issuer);
    const kept = await store.read();
    const wanted = options.scope ?? challenge.scope ?? kept?.scope ?? union(...at.scopesSupported);
    const stepUp = challenge.error === 'insufficient_scope';
    // another process may have been at it while we waited for our turn
    const isOther = kept !== undefined && kept.accessToken !== refused?.accessToken;
    if (isOther && kept.issuer === at.issuer && isFresh(kept) && has(kept.scope, challenge.scope)) return kept;
    if (kept?.refreshToken !== undefined && kept.issuer !== at.issuer) {
      log(`${server.origin} now names another authorization server; what the former gave is not used there`);
    }
    if (kept?.refreshToken !== undefined && kept.issuer === at.issuer && !stepUp) {
      try {
        return await refresh({ agent, at, scope: wanted, now }, { ...kept, refreshToken: kept.refreshToken });
      } catch (error) {
        // an outage is no reason to send somebody to a login page
        if (!(error instanceof GrantRefused) || error.oauthError !== 'invalid_grant') throw error;
        log('the sign-in has ended; a new one is needed');
      }
    }
    return granted(at, stepUp ? union(kept?.scope, wanted) : wanted);
  }

  async function granted(at: Discovered, scope: string | undefined): Promise<Tokens> {
    const input = { agent, at, scope, login: options.login, now };
    if (options.grant === 'client_credentials') return grants.client_credentials(input);
    const headless =
      options.grant === 'auto' && textsOf(at.metadata.grant_types_supported).includes('client_credentials');
    if (headless) {
      try {
        return await grants.client_credentials(input);
      } catch (error) {
        const next = error instanceof GrantRefused && NOT_FOR_US.includes(error.oauthError);
        if (!next || at.metadata.authorization_endpoint === undefined) throw error;
      }
    }
    return signedIn(input);
  }

  async function signedIn(input: GrantInput): Promise<Tokens> {
    signIns = signIns.filter(({ at }) => now() - at < SIGN_INS.window);
    const last = signIns.at(-1);
    const again = last !== undefined && (last.error !== undefined || has(last.scope, input.scope));
    if ((again && now() - last.at < SIGN_INS.pause) || signIns.length >= SIGN_INS.most) {
      throw last?.error ?? new AttestedError('authorization_failed', 'the server refuses the token of a fresh sign-in');
    }
    const outcome: SignIn = { at: now(), scope: input.scope, error: undefined };
    signIns.push(outcome);
    try {
      return await grants.authorization_code(input);
    } catch (error) {
      outcome.error = error;
      throw error;
    } finally {
      outcome.at = now();
    }
  }

  async function renew(refused: Tokens | undefined, challenge: Challenge): Promise<Tokens> {
    if (known !== undefined && known !== refused && has(known.scope, challenge.scope)) return known;
    renewing ??= store
      .inTurn(async () => {
        const tokens = await newTokens(refused, challenge);
        await store.write(tokens);
        return adopt(tokens);
      })
      .finally(() => {
        renewing = undefined;
      });
    return renewing;
  }

  return {
    renew,
    async current() {
      if (known === undefined) {
        const kept = await store.read();
        if (kept !== undefined) adopt(kept);
      }
      if (known === undefined || isFresh(known)) return known;
      const expired = known;
      return renew(expired, NO_CHALLENGE).catch((error: unknown) => {
        // the server's refusal will say where its metadata is
        if (error instanceof AttestedError && error.code === 'server_unsupported') return expired;
        throw error;
      });
    },
  };
}

function has(scope: string | undefined, wanted: string | undefined): boolean {
  const held = new Set(scope?.split(' '));
  return (
    wanted === undefined || scope === undefined || wanted.split(' ').every((name) => name === '' || held.has(name))
  );
}
