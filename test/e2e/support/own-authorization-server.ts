/** A token endpoint on our verifier, as small as one can be: what an AS without oidc-provider does with `assertBoundTo`. */
import type { Agent } from '../../../src/agent/index.ts';
import { AttestedError } from '../../../src/errors.ts';
import { toNodeListener } from '../../../src/integrations/node.ts';
import { randomId } from '../../../src/platform/crypto.ts';
import { assertBoundTo, bindingOf, createVerifier, remoteJwks } from '../../../src/verifier/index.ts';
import { CLIENTS } from './authorization-server.ts';
import { listenForTest } from './http.ts';

export interface OwnAuthorizationServer {
  issuer: string;
  /** Thumbprints of the instances that got tokens, in order. */
  instances: string[];
  ask(agent: Agent, params: Record<string, string>): Promise<{ status: number; body: Record<string, unknown> }>;
}

export async function startOwnAuthorizationServer(attester: string): Promise<OwnAuthorizationServer> {
  const http = await listenForTest();
  const issuer = http.origin;
  const verifier = createVerifier({
    role: 'as',
    audience: issuer,
    trust: remoteJwks(`${attester}/jwks`, { clients: Object.values(CLIENTS), attester }),
  });
  const refreshTokens = new Map<string, ReturnType<typeof bindingOf>>();
  const instances: string[] = [];

  async function token(request: Request): Promise<Response> {
    const form = new URLSearchParams(await request.text());
    const { headers, method, url } = request;
    const client = await verifier.verify({ headers, method, url, clientId: form.get('client_id') ?? undefined });
    const presented = form.get('refresh_token');
    if (presented !== null) {
      const binding = refreshTokens.get(presented);
      if (binding === undefined) throw new AttestedError('invalid_grant', 'the refresh token is not known');
      assertBoundTo(binding, client);
      refreshTokens.delete(presented);
    }
    const refreshToken = randomId();
    refreshTokens.set(refreshToken, bindingOf(client));
    instances.push(client.thumbprint);
    return Response.json({ access_token: randomId(), token_type: 'Bearer', refresh_token: refreshToken });
  }

  const document = {
    issuer,
    token_endpoint: `${issuer}/token`,
    authorization_endpoint: `${issuer}/auth`,
    ...verifier.metadata({ challengeEndpoint: `${issuer}/challenge` }),
  };
  const routes: Record<string, (request: Request) => Response | Promise<Response>> = {
    '/.well-known/oauth-authorization-server': () => Response.json(document),
    '/challenge': verifier.challengeHandler,
    '/token': (request) => token(request).catch(verifier.respond),
  };
  http.answerWith(
    toNodeListener(
      (request) => routes[new URL(request.url).pathname]?.(request) ?? new Response(null, { status: 404 }),
      { url: issuer },
    ),
  );
  return {
    issuer,
    instances,
    async ask(agent, params) {
      const [headers, body] = [new Headers(), new URLSearchParams(params)];
      await agent.clientAuth({ issuer }, {}, body, headers);
      const response = await agent.fetch(`${issuer}/token`, { method: 'POST', headers, body });
      return { status: response.status, body: (await response.json()) as Record<string, unknown> };
    },
  };
}
