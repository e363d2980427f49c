// Authorization servers that know nothing of attestation, and ours in front of them. What runs of this is in the tests.
import type { OAuthServerProvider } from '@modelcontextprotocol/sdk/server/auth/provider.js';
// #region mcp-auth-router
import { mcpAuthRouter } from '@modelcontextprotocol/sdk/server/auth/router.js';
import { attestedAuthRouter } from 'attested/integrations/mcp-auth-router';
import { createVerifier, remoteJwks } from 'attested/verifier';
import type { Express } from 'express';

export function mount(app: Express, provider: OAuthServerProvider, secret: Uint8Array): void {
  const issuerUrl = new URL('https://as.example');
  const trust = remoteJwks('https://attester.example/jwks', { clients: ['weather-agent'] });
  const verifier = createVerifier({ role: 'as', audience: issuerUrl.href, trust }); // with its slash: so the SDK writes it
  app.use(attestedAuthRouter(mcpAuthRouter, { provider, issuerUrl }, { verifier, keys: [secret] }));
}

// #endregion

import type { KvNamespace, OAuthProviderLike } from 'attested/integrations/workers-oauth-provider';

interface Env {
  OAUTH_KV: KvNamespace;
  ATTESTATION_SECRET: string;
}

// #region workers
import { attestedOAuthProvider } from 'attested/integrations/workers-oauth-provider';
import { sealedChallenges } from 'attested/verifier';

/** `export default worker(new OAuthProvider({ … }))` */
export function worker(provider: OAuthProviderLike<Env, unknown>): { fetch: unknown } {
  return attestedOAuthProvider(provider, (env: Env) => ({
    keys: [env.ATTESTATION_SECRET],
    verifier: createVerifier({
      role: 'as',
      audience: 'https://mcp.example',
      trust: remoteJwks('https://attester.example/jwks', { clients: ['weather-agent'] }),
      challenges: sealedChallenges({ keys: [env.ATTESTATION_SECRET] }),
    }),
  }));
}

// #endregion

import { attestationExtension, attestedAuthHandler, type BetterAuthLike } from 'attested/integrations/better-auth';

/** What you pass to oauthProvider, beside your own options. */
export const extensions: unknown[] = [attestationExtension()];

// #region better-auth
/** `auth`: betterAuth({ …, plugins: [jwt(), oauthProvider({ …, extensions: [attestationExtension()] })] }) */
export function handlerOf(auth: BetterAuthLike, secret: Uint8Array): (request: Request) => Promise<Response> {
  const trust = remoteJwks('https://attester.example/jwks', { clients: ['weather-agent'] });
  const verifier = createVerifier({ role: 'as', audience: 'https://as.example/api/auth', trust });
  return attestedAuthHandler(auth, { verifier, keys: [secret] });
}

// #endregion

import type { AttestedClient } from 'attested/verifier';

// #region binding
import { type GrantStore, pushedRequests, sealedTokens } from 'attested/verifier';

export function bindings(store: GrantStore, secret: Uint8Array) {
  const requests = pushedRequests({ store });
  const refreshTokens = sealedTokens({ keys: [secret] });
  return {
    /** POST /par, once the client is verified. */
    push: (form: URLSearchParams, client: AttestedClient) => requests.push(form, client),
    /** The authorization page: what the request_uri stands for. */
    expand: (query: URLSearchParams) => requests.take(query.get('request_uri') ?? '', query.get('client_id') ?? ''),
    /** The token endpoint, before the code or token is looked up. */
    async check(form: URLSearchParams, client: AttestedClient) {
      if (form.has('code')) await requests.assertBound(form.get('code_verifier') ?? '', client);
      const presented = form.get('refresh_token');
      return presented === null ? undefined : refreshTokens.open(presented, client);
    },
    /** In the token answer, in the place of the refresh token. */
    issue: (refreshToken: string, client: AttestedClient) => refreshTokens.seal(refreshToken, client),
  };
}

// #endregion

// #region cimd
import { cimd } from 'attested/verifier';

export const endorsed = createVerifier({
  role: 'as',
  audience: 'https://as.example',
  trust: cimd({
    // these publishers choose the attesters of their own clients, and where the keys are
    allow: ['https://agents.example/'],
    // this attester you know yourself: its keys come from here, whatever a document says
    attesters: [{ issuer: 'https://attester.example', jwksUri: 'https://attester.example/jwks' }],
    // clients of these publishers may only endorse the attesters above
    documents: ['https://hosting.example/team-a/'],
  }),
});
// #endregion
