/** An authorization server of the MCP SDK v1 with a provider as an application writes one, and our router around it. */
import { randomUUID } from 'node:crypto';
import { InvalidGrantError, InvalidTokenError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import type { OAuthServerProvider } from '@modelcontextprotocol/sdk/server/auth/provider.js';
import { type AuthRouterOptions, mcpAuthRouter } from '@modelcontextprotocol/sdk/server/auth/router.js';
import type { OAuthClientInformationFull } from '@modelcontextprotocol/sdk/shared/auth.js';
import express from 'express';
import type { AttestedError } from '../../src/errors.ts';
import { attestedAuthRouter, attestedClient, type FrontOptions } from '../../src/integrations/mcp-auth-router.ts';
import { createVerifier, type VerifierOptions } from '../../src/verifier/index.ts';
import { listenForTest } from '../e2e/support/http.ts';

export interface Issued {
  clientId: string;
  instance: string | undefined;
}

export interface McpAuthServer {
  origin: string;
  /** As the SDK writes it: with a slash. */
  issuer: string;
  clients: Map<string, OAuthClientInformationFull>;
  codes: Map<string, { clientId: string; challenge: string }>;
  /** The refresh tokens as the provider knows them. */
  refreshTokens: Map<string, string>;
  accessTokens: Map<string, Issued>;
  /** What reached the provider, in order. */
  calls: string[];
  refusals: AttestedError[];
  url(path: string): string;
}

export interface Setup extends Partial<Omit<FrontOptions, 'verifier'>> {
  trust: VerifierOptions['trust'];
  policy?: VerifierOptions['policy'];
  now?: () => number;
  /** Middleware of the application, in front. */
  before?: (app: express.Express) => void;
}

export async function startMcpAuthServer({
  trust,
  policy,
  now = Date.now,
  before,
  ...front
}: Setup): Promise<McpAuthServer> {
  const http = await listenForTest();
  const issuerUrl = new URL(http.origin);
  const server: McpAuthServer = {
    origin: http.origin,
    issuer: issuerUrl.href,
    clients: new Map(),
    codes: new Map(),
    refreshTokens: new Map(),
    accessTokens: new Map(),
    calls: [],
    refusals: [],
    url: (path) => http.origin + path,
  };
  const verifier = createVerifier({ role: 'as', audience: issuerUrl.href, trust, policy: policy ?? {}, now });
  const options: AuthRouterOptions = {
    provider: new Provider(server),
    issuerUrl,
    // limits per address would count all tests together
    tokenOptions: { rateLimit: false },
    authorizationOptions: { rateLimit: false },
    clientRegistrationOptions: { rateLimit: false },
    revocationOptions: { rateLimit: false },
  };
  const app = express();
  before?.(app);
  app.use(
    attestedAuthRouter(mcpAuthRouter, options, {
      verifier,
      keys: [new Uint8Array(32).fill(1)],
      onRefusal: (error) => server.refusals.push(error),
      ...front,
    }),
  );
  http.answerWith(app);
  return server;
}

/** Knows nothing of attestation but where it writes down whom a token belongs to. Its store is a private member. */
class Provider implements OAuthServerProvider {
  readonly #server: McpAuthServer;

  constructor(server: McpAuthServer) {
    this.#server = server;
  }
  get clientsStore() {
    const { clients } = this.#server;
    return {
      getClient: (clientId: string) => clients.get(clientId),
      registerClient(client: Omit<OAuthClientInformationFull, 'client_id' | 'client_id_issued_at'>) {
        clients.set((client as OAuthClientInformationFull).client_id, client as OAuthClientInformationFull);
        return client as OAuthClientInformationFull;
      },
    };
  }
  async authorize(...[client, params, response]: Parameters<OAuthServerProvider['authorize']>) {
    const code = randomUUID();
    this.#server.codes.set(code, { clientId: client.client_id, challenge: params.codeChallenge });
    const to = new URL(params.redirectUri);
    to.searchParams.set('code', code);
    if (params.state !== undefined) to.searchParams.set('state', params.state);
    response.redirect(to.href);
  }
  async challengeForAuthorizationCode(client: OAuthClientInformationFull, code: string) {
    const known = this.#server.codes.get(code);
    if (known?.clientId !== client.client_id) throw new InvalidGrantError('unknown code');
    return known.challenge;
  }
  async exchangeAuthorizationCode(client: OAuthClientInformationFull, code: string) {
    this.#server.calls.push('code');
    this.#server.codes.delete(code);
    return this.#issue(client);
  }
  async exchangeRefreshToken(client: OAuthClientInformationFull, refreshToken: string) {
    this.#server.calls.push('refresh');
    if (this.#server.refreshTokens.get(refreshToken) !== client.client_id) throw new InvalidGrantError('unknown');
    this.#server.refreshTokens.delete(refreshToken);
    return this.#issue(client);
  }
  async revokeToken(client: OAuthClientInformationFull, { token }: { token: string }) {
    this.#server.calls.push('revoke');
    if (this.#server.refreshTokens.get(token) === client.client_id) this.#server.refreshTokens.delete(token);
  }
  async verifyAccessToken(token: string) {
    const known = this.#server.accessTokens.get(token);
    if (known === undefined) throw new InvalidTokenError('unknown');
    return { token, scopes: ['mcp'], expiresAt: Math.floor(Date.now() / 1000) + 300, ...known };
  }
  #issue(client: OAuthClientInformationFull) {
    const [access_token, refresh_token] = [randomUUID(), randomUUID()];
    const { client_id: clientId } = client;
    this.#server.accessTokens.set(access_token, { clientId, instance: attestedClient()?.thumbprint });
    this.#server.refreshTokens.set(refresh_token, clientId);
    return { access_token, refresh_token, token_type: 'bearer', expires_in: 300 };
  }
}
