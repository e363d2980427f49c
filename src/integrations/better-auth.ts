/**
 * `attested/integrations/better-auth`: `@better-auth/oauth-provider`, whose clients authenticate by attestation. Structural
 * types, no import.
 */
import { authMethodOf } from '../core/metadata.ts';
import { AttestedError } from '../errors.ts';
import { attestedClient } from './authorization-server/current.ts';
import { behindFront, rewritten } from './authorization-server/fetch.ts';
import { createFront, type FrontOptions } from './authorization-server/front.ts';
import { isAttestedMethod } from './authorization-server/metadata.ts';

export { attestedClient } from './authorization-server/current.ts';
export type { FrontOptions } from './authorization-server/front.ts';

/** The part of what `betterAuth(options)` gives that is used. */
export interface BetterAuthLike {
  handler(request: Request): Promise<Response>;
  $context: Promise<{ adapter: ClientFinder }>;
  api: { getOAuthServerConfig(input: { request: Request; asResponse: false }): Promise<unknown> };
}

interface ClientFinder {
  findOne(query: { model: string; where: { field: string; value: string }[] }): Promise<unknown>;
}

/** An item of oauthProvider's `extensions`. */
export interface AttestationExtension {
  id: string;
  clientAuthentication: Record<
    string,
    { assertionTypes: string[]; authenticate(input: unknown): Promise<{ clientId: string }> }
  >;
}

const METHODS: readonly string[] = Object.values(authMethodOf);
const assertionType = (method: string) => `urn:attested:client-authentication:${method}`;

/**
 * Makes our methods known to the provider: `oauthProvider({ …, extensions: [attestationExtension()] })`. Clients can then be
 * registered with them, get no secret, and authenticate through {@link attestedAuthHandler} and in no other way: asked without
 * it, this extension refuses everybody.
 */
export function attestationExtension(): AttestationExtension {
  // the provider asks extensions for requests with a client_assertion only, so the handler puts one in. Its text proves
  // nothing: what counts is that the handler has verified the very request that this runs in.
  const authenticate = async (): Promise<{ clientId: string }> => {
    const client = attestedClient();
    if (client === undefined) {
      throw new AttestedError('invalid_client', 'the request did not come through attestedAuthHandler');
    }
    return { clientId: client.clientId };
  };
  return {
    id: 'attested',
    clientAuthentication: Object.fromEntries(
      METHODS.map((method) => [method, { assertionTypes: [assertionType(method)], authenticate }]),
    ),
  };
}

/**
 * The handler to mount in the place of `auth.handler`, and for the metadata document, whose place is outside of better-auth's
 * base path: `/.well-known/oauth-authorization-server` and the issuer's path behind it.
 *
 * The verifier's audience is the provider's issuer: `baseURL` with the base path, `https://as.example/api/auth`.
 *
 * @throws AttestedError `invalid_argument`
 */
export function attestedAuthHandler(
  auth: BetterAuthLike,
  options: FrontOptions,
): (request: Request) => Promise<Response> {
  const issuer = new URL(options.verifier?.audience);
  const base = issuer.pathname.replace(/\/$/, '');
  const wellKnown = `/.well-known/oauth-authorization-server${base}`;

  async function methodOf(clientId: string): Promise<unknown> {
    const { adapter } = await auth.$context;
    const where = [{ field: 'clientId', value: clientId }];
    const client = (await adapter.findOne({ model: 'oauthClient', where })) as { tokenEndpointAuthMethod?: unknown };
    return client?.tokenEndpointAuthMethod;
  }

  const front = createFront(
    options,
    {
      // OpenID Connect's document says the same, where there is one
      metadata: [wellKnown, `${base}/.well-known/openid-configuration`],
      authorize: `${base}/oauth2/authorize`,
      token: `${base}/oauth2/token`,
      revoke: `${base}/oauth2/revoke`,
      introspect: `${base}/oauth2/introspect`,
      register: `${base}/oauth2/register`,
    },
    async (clientId) => isAttestedMethod(await methodOf(clientId)),
    async (form, { clientId }) => {
      form.set('client_assertion_type', assertionType(String(await methodOf(clientId))));
      form.set('client_assertion', 'attested');
    },
  );

  async function handle(request: Request): Promise<Response> {
    if (new URL(request.url).pathname !== wellKnown) return auth.handler(request);
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return new Response(null, { status: 405, headers: { Allow: 'GET, HEAD' } });
    }
    return Response.json(await auth.api.getOAuthServerConfig({ request, asResponse: false }));
  }
  const fronted = behindFront(front, handle);
  return async (request) => {
    const response = await fronted(request);
    return request.method === 'HEAD' ? new Response(null, await rewritten(response, (body) => body)) : response;
  };
}
