/** Client authentication as the MCP SDKs do it without us, for authorization servers that do not offer attestation. */
import type { Agent } from '../agent/agent.ts';
import { AttestedError } from '../errors.ts';

type Hook = Agent['addClientAuthentication'];

interface ClientCredentials {
  client_id: string;
  client_secret?: string | undefined;
  token_endpoint_auth_method?: unknown;
}

type Apply = (client: ClientCredentials, headers: Headers, params: URLSearchParams) => void;

const none: Apply = ({ client_id }, _headers, params) => params.set('client_id', client_id);

/** RFC 6749 §2.3.1. */
const methods: Readonly<Record<string, Apply>> = {
  client_secret_basic({ client_id, client_secret = '' }, headers) {
    const [user, password] = [client_id, client_secret].map((part) =>
      new URLSearchParams({ '': part }).toString().slice(1),
    );
    headers.set('authorization', `Basic ${btoa(`${user}:${password}`)}`);
  },
  client_secret_post({ client_id, client_secret = '' }, _headers, params) {
    params.set('client_id', client_id);
    params.set('client_secret', client_secret);
  },
  none,
};

/**
 * Attestation where the authorization server offers a method that the agent can use; elsewhere the provider's own hook or,
 * without one, its client secret or just its client_id. A server whose metadata contradicts itself is refused in any case.
 *
 * @param clientOf the client information for an issuer, asked for as the SDK does
 */
export function attestationOrUsual(
  attest: Hook,
  provider: object,
  clientOf: (issuer: unknown) => Promise<unknown>,
): Hook {
  return async (headers, params, url, metadata) => {
    try {
      return await attest(headers, params, url, metadata);
    } catch (error) {
      if (!(error instanceof AttestedError) || error.code !== 'server_unsupported') throw error;
    }
    const own = (provider as { addClientAuthentication?: Hook }).addClientAuthentication;
    if (own !== undefined) return own.call(provider, headers, params, url, metadata);
    const client = (await clientOf(metadata?.issuer)) as ClientCredentials | null | undefined;
    if (client == null) return;
    methodFor(client, metadata)(client, headers, params);
  };
}

/** As registered; else the default of RFC 7591 §2 unless the server lists other methods only. */
function methodFor(client: ClientCredentials, metadata: object | undefined): Apply {
  const listed = (metadata as { token_endpoint_auth_methods_supported?: unknown } | undefined)
    ?.token_endpoint_auth_methods_supported;
  const accepted = Array.isArray(listed) ? Object.keys(methods).filter((name) => listed.includes(name)) : [];
  const { token_endpoint_auth_method: registered } = client;
  const isOpen = (name: string) => accepted.length === 0 || accepted.includes(name);
  if (typeof registered === 'string' && Object.hasOwn(methods, registered) && isOpen(registered)) {
    return methods[registered] as Apply;
  }
  if (client.client_secret === undefined) return none;
  return methods[isOpen('client_secret_basic') ? 'client_secret_basic' : 'client_secret_post'] as Apply;
}
