/**
 * MCP clients: any OAuthClientProvider of the MCP SDKs v1 and v2, with client attestation. The shapes are structural, so
 * that no SDK is imported and both fit.
 *
 * Give the agent's `fetch` to the transport as well: it is what retries challenges and shows tokens that are bound to a key.
 */
import type { Agent } from '../agent/agent.ts';
import { attestationOrUsual } from './usual-authentication.ts';

/** Tokens as the SDKs hand them over. */
export interface ProviderTokens {
  access_token: string;
  token_type: string;
  refresh_token?: string | undefined;
  [member: string]: unknown;
}

/** The part of an OAuthClientProvider that is used here. */
export interface ProviderLike {
  clientInformation(...context: never[]): unknown;
  tokens(...context: never[]): unknown;
  saveTokens(...tokens: never[]): unknown;
  readonly clientMetadata: object;
}

export interface WithAttestationOptions {
  /**
   * `agent` (default): a provider that has no client information uses the agent's client_id, which is the one its
   * attestations name. `provider`: the provider alone decides, so the SDK may register a client dynamically; the attester
   * has to know the client_id that comes of it.
   */
  clientId?: 'agent' | 'provider';
  /**
   * What happens at an authorization server that offers no attestation this agent can use. `refuse` (default): the sign-in
   * fails. `usual`: the provider authenticates as it would by itself, so that one client serves attested and other servers;
   * then such a server gets the provider's secret, if it has one, and whoever holds the tokens can use them.
   */
  unattested?: 'refuse' | 'usual';
}

export interface ClientAuthenticationHook {
  addClientAuthentication: Agent['addClientAuthentication'];
}

/**
 * The same provider, whose client authentication is attestation.
 *
 * It is a proxy, because an object that inherits from a provider could not reach the provider's private members; every
 * method runs on the provider itself.
 */
export function withAttestation<P extends ProviderLike>(
  provider: P,
  agent: Agent,
  { clientId = 'agent', unattested = 'refuse' }: WithAttestationOptions = {},
): P & ClientAuthenticationHook {
  const usual = unattested === 'usual';
  /** SDK v2 says for which issuer it wants a provider's client; v1 does not, and its providers keep one for all. */
  let issuersAreNamed = false;
  async function clientInformation(...context: never[]): Promise<unknown> {
    issuersAreNamed = context[0] !== undefined;
    const own = await provider.clientInformation(...context);
    return own == null && clientId === 'agent' ? { client_id: agent.clientId } : own;
  }
  const clientOf = (issuer: unknown) => clientInformation(...((issuersAreNamed ? [{ issuer }] : []) as never[]));
  const added = {
    addClientAuthentication: usual
      ? attestationOrUsual(agent.addClientAuthentication, provider, clientOf)
      : agent.addClientAuthentication,
    clientInformation,
    async tokens(...context: never[]): Promise<unknown> {
      const tokens = await provider.tokens(...context);
      if (tokens != null) agent.observeTokens(tokens);
      return tokens;
    },
    async saveTokens(...saved: never[]): Promise<unknown> {
      if (saved[0] != null) agent.observeTokens(saved[0]);
      return provider.saveTokens(...saved);
    },
  };
  const bound = new Map<unknown, unknown>();
  return new Proxy(provider, {
    get(target, name) {
      if (name === 'clientMetadata') {
        const [own, ours] = [target.clientMetadata, agent.clientMetadata];
        // the method that a client is registered with is the provider's business where it may have to do without us
        return usual ? { ...ours, ...own } : { ...own, ...ours };
      }
      if (Object.hasOwn(added, name)) return added[name as keyof typeof added];
      // the provider is the receiver: its getters and methods may need private members
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      // one bound function per method, so that it stays equal to itself
      if (!bound.has(value)) bound.set(value, value.bind(target));
      return bound.get(value);
    },
    set: (target, name, value) => Reflect.set(target, name, value, target),
    has: (target, name) => name === 'addClientAuthentication' || name in target,
  }) as P & ClientAuthenticationHook;
}

export interface AttestedProviderOptions {
  scope?: string;
  /** `client_name` of the client's metadata. */
  clientName?: string;
}

/** A complete provider for an agent without a person in front of it (`client_credentials`). */
export interface AttestedProvider extends ClientAuthenticationHook {
  readonly redirectUrl: undefined;
  readonly clientMetadata: {
    redirect_uris: string[];
    grant_types: string[];
    client_name?: string;
    scope?: string;
    [parameter: string]: unknown;
  };
  clientInformation(): Promise<{ client_id: string }>;
  tokens(): Promise<ProviderTokens | undefined>;
  saveTokens(tokens: ProviderTokens): Promise<void>;
  redirectToAuthorization(): never;
  saveCodeVerifier(): void;
  codeVerifier(): string;
  prepareTokenRequest(scope?: string): URLSearchParams;
  invalidateCredentials(): void;
}

/**
 * A ready provider: `authProvider: attestedProvider(agent), fetch: agent.fetch` is all that an MCP transport needs. Use one
 * per MCP server; it keeps that server's tokens, in memory.
 */
export function attestedProvider(agent: Agent, options: AttestedProviderOptions = {}): AttestedProvider {
  const { scope, clientName } = options;
  let current: ProviderTokens | undefined;
  const provider = {
    redirectUrl: undefined,
    clientMetadata: {
      redirect_uris: [],
      grant_types: ['client_credentials'],
      ...(clientName !== undefined && { client_name: clientName }),
      ...(scope !== undefined && { scope }),
    },
    clientInformation: () => ({ client_id: agent.clientId }),
    tokens: () => current,
    saveTokens: (tokens: ProviderTokens) => {
      current = tokens;
    },
    redirectToAuthorization: () => {
      throw new Error('a client_credentials client sends nobody to an authorization page');
    },
    saveCodeVerifier: () => undefined,
    codeVerifier: () => '',
    prepareTokenRequest: (asked = scope) =>
      new URLSearchParams({ grant_type: 'client_credentials', ...(asked !== undefined && { scope: asked }) }),
    invalidateCredentials: () => {
      current = undefined;
    },
  };
  // what the wrapper answers for these methods is a promise, which every SDK awaits
  return withAttestation(provider, agent) as unknown as AttestedProvider;
}
