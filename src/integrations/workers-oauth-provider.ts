/**
 * `attested/integrations/workers-oauth-provider`: Cloudflare's `@cloudflare/workers-oauth-provider`, whose clients authenticate
 * by attestation. Structural types, no import. Needs `nodejs_compat`.
 */
import { AttestedError } from '../errors.ts';
import { behindFront, jsonBody, rewritten, withBody } from './authorization-server/fetch.ts';
import { createFront, type FrontOptions } from './authorization-server/front.ts';
import { isAttestedMethod } from './authorization-server/metadata.ts';

export { attestedClient } from './authorization-server/current.ts';
export type { FrontOptions } from './authorization-server/front.ts';

/** The part of a KV namespace that is used. */
export interface KvNamespace {
  get(key: string): Promise<string | null>;
  put(key: string, value: string): Promise<void>;
}

/** What `new OAuthProvider(options)` gives. */
export interface OAuthProviderLike<Env, Context> {
  fetch(request: Request, env: Env, context: Context): Response | Promise<Response>;
}

export interface WorkersOAuthOptions extends FrontOptions {
  /** The provider's `authorizeEndpoint`, `tokenEndpoint` and `clientRegistrationEndpoint`, as paths. Default `/authorize`, `/token`, `/register`. */
  endpoints?: { authorize?: string; token?: string; register?: string };
  /**
   * Which clients must attest beside those that registered so: the ones you make with `createClient`, or whose client_id is a
   * metadata document. They have to be public clients (`tokenEndpointAuthMethod: 'none'`) for the provider. Default: none.
   */
  clients?: (clientId: string) => boolean | Promise<boolean>;
}

/** Where it is written down that a client registered for attestation: the provider knows it as a public one. */
const MARK = 'attested:client:';

/**
 * Puts attestation before the provider: `export default attestedOAuthProvider(provider, (env) => ({ verifier, keys }))`.
 *
 * Clients attest when they redeem, refresh and revoke (the provider revokes at its token endpoint). They may push their
 * authorization requests, which the provider itself cannot take; refresh tokens and codes of pushed requests belong to the
 * instance. Dynamic registration takes our methods. The verifier's audience is the provider's issuer: its origin.
 *
 * An isolate shares no memory with the next: give the verifier's challenges and `keys` secrets out of `env`, and a `store` and
 * replay memory that all isolates share. KV will not do for these two, it is not atomic; a Durable Object will.
 *
 * @param configure called with the first request of an isolate
 * @throws AttestedError `invalid_argument`, with the first request, for settings that make no sense
 */
export function attestedOAuthProvider<Env extends { OAUTH_KV: KvNamespace }, Context = unknown>(
  provider: OAuthProviderLike<Env, Context>,
  configure: (env: Env) => WorkersOAuthOptions,
): { fetch(request: Request, env: Env, context: Context): Promise<Response> } {
  let prepared: ReturnType<typeof prepare> | undefined;

  function prepare(env: Env) {
    const options = configure(env);
    const { endpoints = {}, clients } = options;
    const { origin, href } = new URL(options.verifier?.audience);
    if (options.verifier.audience !== origin && options.verifier.audience !== href) {
      throw new AttestedError('invalid_argument', "the verifier's audience must be the provider's issuer");
    }
    const register = endpoints.register ?? '/register';
    const isAttested = async (clientId: string) =>
      (await clients?.(clientId)) === true || (await env.OAUTH_KV.get(MARK + clientId)) !== null;
    const front = createFront(
      options,
      {
        metadata: ['/.well-known/oauth-authorization-server'],
        authorize: endpoints.authorize ?? '/authorize',
        token: endpoints.token ?? '/token',
        register,
      },
      isAttested,
    );
    return { front, register };
  }

  return {
    async fetch(request, env, context) {
      prepared ??= prepare(env);
      const { front, register } = prepared;
      const handle = async (next: Request) =>
        next.method === 'POST' && new URL(next.url).pathname === register
          ? registered(next, env, (changed) => provider.fetch(changed, env, context))
          : provider.fetch(next, env, context);
      return behindFront(front, handle)(request);
    },
  };
}

/** A client that registers for attestation becomes a public one of the provider, which knows no such method, and is marked. */
async function registered(
  request: Request,
  { OAUTH_KV }: { OAUTH_KV: KvNamespace },
  handle: (request: Request) => Response | Promise<Response>,
): Promise<Response> {
  const metadata = await jsonBody(request).catch(() => undefined);
  const method = metadata?.token_endpoint_auth_method;
  if (metadata === undefined || !isAttestedMethod(method)) return handle(request);
  const { token_endpoint_auth_methods_supported: _, ...rest } = metadata;
  const answer = await handle(withBody(request, { ...rest, token_endpoint_auth_method: 'none' }));
  if (answer.status !== 201) return answer;
  const body = (await answer.clone().json()) as { client_id: string };
  // the client hears its client_id only once it is marked
  await OAUTH_KV.put(MARK + body.client_id, String(method));
  return rewritten(answer, () => ({ ...body, token_endpoint_auth_method: method }));
}
