/** The authorization server's process: oidc-provider, which checks possession itself and asks us about attestations. */
import { randomBytes } from 'node:crypto';
import { exportJWK, generateKeyPair } from 'jose';
import Provider, { type Configuration } from 'oidc-provider';
import { attestationMiddleware, attestClientAuth, clientInstanceClaim } from '../../integrations/oidc-provider.ts';
import { remoteJwks } from '../../verifier/index.ts';
import { memoryAdapter } from './memory-adapter.ts';
import { CLIENTS, type LoggedRefusal, SCOPE, type ServerRole, type World } from './protocol.ts';
import { listen } from './serve.ts';

export async function authorizationServerRole(): Promise<ServerRole> {
  const http = await listen();
  let refusals: LoggedRefusal[] = [];
  return {
    listen: async () => http.origin,
    async configure(world) {
      const log = (refusal: LoggedRefusal) => void refusals.push(refusal);
      const provider = new Provider(http.origin, await configuration(http.origin, world, log));
      provider.use(attestationMiddleware);
      provider.on('server_error', (_ctx, error) => console.error(error));
      provider.on('grant.error', (_ctx, error) => log(refusalOf(error)));
      http.answerWith(provider.callback());
    },
    async takeRefusals() {
      const taken = refusals;
      refusals = [];
      return taken;
    },
  };
}

async function configuration(
  issuer: string,
  { attester, mcp, otherMcp }: World,
  log: (refusal: LoggedRefusal) => void,
): Promise<Configuration> {
  const attestation = attestClientAuth({
    issuer,
    trust: remoteJwks(`${attester}/jwks`, { clients: Object.values(CLIENTS), attester }),
    status: { maxTtl: 1 },
    policy: { require: { status: true } },
    onRefusal: ({ code, rule, message }) => log({ code, rule, message }),
  });
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  const client = {
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: 'ES256',
    scope: SCOPE,
  };
  const configured = {
    adapter: memoryAdapter(),
    jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: 'ES256', use: 'sig', kid: 'as-1' }] },
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    clientAuthMethods: ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    clients: [
      { client_id: CLIENTS.dpop_combined, token_endpoint_auth_method: 'attest_jwt_client_auth_dpop', ...client },
      { client_id: CLIENTS.attestation_pop_jwt, token_endpoint_auth_method: 'attest_jwt_client_auth', ...client },
    ],
    scopes: [SCOPE],
    ttl: { ClientCredentials: 300 },
    features: {
      attestClientAuth: attestation,
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, nonceSecret: randomBytes(32) },
      introspection: { enabled: true },
      pushedAuthorizationRequests: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx: unknown, resource: string) => {
          if (resource !== mcp && resource !== otherMcp) throw new Error('no such resource');
          return {
            scope: SCOPE,
            audience: resource,
            accessTokenFormat: 'jwt',
            accessTokenTTL: 300,
            jwt: { sign: { alg: 'ES256' } },
          };
        },
      },
      revocation: { enabled: true },
      userinfo: { enabled: false },
    },
    extraTokenClaims: clientInstanceClaim,
  };
  // the published types know neither the attestation feature nor its methods yet
  return configured as unknown as Configuration;
}

/** The wire says `client authentication failed` whatever the reason; the reason is in the event. */
function refusalOf(error: Error): LoggedRefusal {
  const { error: code, error_detail, error_description, cause } = error as Error & Record<string, unknown>;
  const reason = error_detail ?? (cause instanceof Error ? cause.message : undefined) ?? error_description;
  return { code: String(code), rule: undefined, message: String(reason ?? error.message) };
}
