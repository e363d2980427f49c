/** node-oidc-provider with our trust and policy, JWT access tokens for MCP servers, and a person who always agrees. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import Provider, { type Configuration } from 'oidc-provider';
import { memoryAdapter } from '../../../src/cli/demo/memory-adapter.ts';
import type { AttestedError } from '../../../src/errors.ts';
import {
  type AttestClientAuthOptions,
  attestationMiddleware,
  attestClientAuth,
  clientInstanceClaim,
} from '../../../src/integrations/oidc-provider.ts';
import { generatePrivateKey } from '../../../src/platform/crypto.ts';
import { remoteJwks } from '../../../src/verifier/index.ts';
import { listenForTest } from './http.ts';

export const CALLBACK = 'https://agent.example/callback';
/** For programs on the person's machine, which add their port (RFC 8252 §7.3). */
export const LOOPBACK_CALLBACK = 'http://127.0.0.1/callback';
export const SCOPE = 'mcp';

/** One client per authentication method; they share nothing. */
export const CLIENTS = {
  attestation_pop_jwt: 'https://agent.example/pop',
  dpop_combined: 'https://agent.example/dpop',
} as const;
export type Method = keyof typeof CLIENTS;
export const METHODS: readonly Method[] = ['attestation_pop_jwt', 'dpop_combined'];
export const AUTH_METHODS = {
  attestation_pop_jwt: 'attest_jwt_client_auth',
  dpop_combined: 'attest_jwt_client_auth_dpop',
} as const;

export interface AuthorizationServer {
  issuer: string;
  provider: Provider;
  refusals: AttestedError[];
  /** Seconds; for tokens issued from now on. */
  tokens: { lifetime: number };
}

export async function startAuthorizationServer(
  attester: string,
  options: Partial<AttestClientAuthOptions> = {},
): Promise<AuthorizationServer> {
  const http = await listenForTest();
  const issuer = http.origin;
  const refusals: AttestedError[] = [];
  const tokens = { lifetime: 300 };
  const client = {
    grant_types: ['client_credentials', 'authorization_code', 'refresh_token'],
    application_type: 'native',
    redirect_uris: [CALLBACK, LOOPBACK_CALLBACK],
    response_types: ['code'],
    scope: `openid offline_access ${SCOPE}`,
  };
  const configuration = {
    adapter: memoryAdapter(),
    jwks: {
      keys: [{ ...generatePrivateKey('ES256').export({ format: 'jwk' }), alg: 'ES256', use: 'sig', kid: 'as-1' }],
    },
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    clientAuthMethods: Object.values(AUTH_METHODS),
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    clients: METHODS.map((method) => ({
      client_id: CLIENTS[method],
      token_endpoint_auth_method: AUTH_METHODS[method],
      ...client,
    })),
    scopes: ['openid', 'offline_access', SCOPE],
    findAccount: (_ctx: unknown, accountId: string) => ({ accountId, claims: () => ({ sub: accountId }) }),
    interactions: { url: (_ctx: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
    issueRefreshToken: () => true,
    rotateRefreshToken: true,
    ttl: {
      ClientCredentials: () => tokens.lifetime,
      AccessToken: () => tokens.lifetime,
      IdToken: 300,
      RefreshToken: 3600,
      Interaction: 300,
      Grant: 3600,
      Session: 3600,
    },
    extraTokenClaims: clientInstanceClaim,
    features: {
      attestClientAuth: attestClientAuth({
        issuer,
        trust: remoteJwks(`${attester}/jwks`, { clients: Object.values(CLIENTS), attester }),
        policy: { require: { status: true } },
        onRefusal: (error) => refusals.push(error),
        ...options,
      }),
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, nonceSecret: randomBytes(32) },
      introspection: { enabled: true, allowedPolicy: sameClient },
      pushedAuthorizationRequests: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => [],
        getResourceServerInfo: (_ctx: unknown, resource: string) => ({
          scope: SCOPE,
          audience: resource,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        }),
        useGrantedResource: () => true,
      },
      revocation: { enabled: true, allowedPolicy: sameClient },
    },
  };
  // the published types know neither the attestation feature nor its methods yet
  const provider = new Provider(issuer, configuration as unknown as Configuration);
  provider.use(attestationMiddleware);
  provider.on('server_error', (_ctx, error) => console.error(error));
  const callback = provider.callback();
  http.answerWith((request, response) => {
    if (request.url?.startsWith('/interaction/')) void agree(provider, request, response);
    else void callback(request, response);
  });
  return { issuer, provider, refusals, tokens };
}

const sameClient = (_ctx: unknown, client: { clientId: string }, token: { clientId: string }) =>
  client.clientId === token.clientId;

/** Signs a fixed person in and grants everything that was asked for. */
async function agree(provider: Provider, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { params, session } = await provider.interactionDetails(request, response);
  const accountId = session?.accountId ?? 'alice';
  const grant = new provider.Grant({ accountId, clientId: params.client_id as string });
  grant.addOIDCScope(params.scope as string);
  for (const resource of [params.resource ?? []].flat() as string[]) grant.addResourceScope(resource, SCOPE);
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}
