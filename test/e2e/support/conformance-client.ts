/**
 * The client that the MCP conformance suite runs, once per scenario: an ordinary program with SDK v1 or v2 (`CONFORMANCE_SDK`),
 * whose provider is wrapped by `withAttestation` if `CONFORMANCE_ATTESTED` is 1. The suite's authorization servers know nothing
 * of attestation: what is shown is that nothing else suffers.
 */
import {
  ClientCredentialsProvider,
  Client as ClientV2,
  DpopSession,
  PrivateKeyJwtProvider,
  StreamableHTTPClientTransport as TransportV2,
} from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { createAgent } from '../../../src/agent/index.ts';
import { selfAttester } from '../../../src/attester/index.ts';
import { generateSigner, openKeys } from '../../../src/keys/index.ts';
import { withAttestation } from '../../../src/mcp/index.ts';

const url = new URL(process.argv[2] as string);
const {
  MCP_CONFORMANCE_SCENARIO: scenario = '',
  MCP_CONFORMANCE_CONTEXT,
  CONFORMANCE_SDK,
  CONFORMANCE_ATTESTED,
} = process.env;
const context = JSON.parse(MCP_CONFORMANCE_CONTEXT ?? '{}') as Record<string, string | undefined>;
const callback = 'http://127.0.0.1:3000/callback';
const info = { name: 'attested-conformance', version: '1.0.0' };

/** A person who agrees at once to everything. */
class Person {
  readonly redirectUrl = callback;
  readonly clientMetadata = { client_name: 'conformance', redirect_uris: [callback], application_type: 'native' };
  readonly clientMetadataUrl = 'https://conformance-test.local/client-metadata.json';
  /** What the authorization page sent back. */
  answer: URL | undefined;
  readonly #dpop = scenario.startsWith('auth/dpop') ? DpopSession.create() : undefined;
  readonly #kept = new Map<string, unknown>();

  async redirectToAuthorization(page: URL) {
    const response = await fetch(page, { redirect: 'manual' });
    this.answer = new URL(response.headers.get('location') as string);
  }
  clientInformation = (about?: { issuer: string }) => {
    if (context.client_id === undefined) return this.#kept.get(`client ${about?.issuer}`);
    return { client_id: context.client_id, client_secret: context.client_secret };
  };
  saveClientInformation = (value: unknown, about?: { issuer: string }) => this.#keep(`client ${about?.issuer}`, value);
  tokens = () => this.#kept.get('tokens');
  saveTokens = (value: unknown) => this.#keep('tokens', value);
  codeVerifier = () => this.#kept.get('verifier');
  saveCodeVerifier = (value: unknown) => this.#keep('verifier', value);
  dpop = () => this.#dpop;
  #keep(name: string, value: unknown) {
    this.#kept.set(name, value);
  }
}

const own: Record<string, () => object> = {
  'auth/client-credentials-jwt': () =>
    new PrivateKeyJwtProvider({
      clientId: context.client_id as string,
      privateKey: context.private_key_pem as string,
      algorithm: context.signing_algorithm ?? 'ES256',
    }),
  'auth/client-credentials-basic': () =>
    new ClientCredentialsProvider({
      clientId: context.client_id as string,
      clientSecret: context.client_secret as string,
    }),
};
const provider = own[scenario]?.() ?? new Person();
const options: { authProvider: never; fetch?: typeof fetch } = { authProvider: provider as never };

if (CONFORMANCE_ATTESTED === '1') {
  const clientId = 'https://conformance-test.local/client-metadata.json';
  const attester = selfAttester({ clientId, signer: generateSigner('ES256') });
  const agent = await createAgent({ clientId, keys: await openKeys('software'), attester });
  const choice = { clientId: 'provider', unattested: 'usual' } as const;
  options.authProvider = withAttestation(provider as never, agent, choice) as never;
  options.fetch = agent.fetch as typeof fetch;
}

/** What both SDKs' clients have, so far as it is used here. */
interface Session {
  client: {
    connect(transport: never): Promise<void>;
    listTools(): Promise<{ tools: { name: string }[] }>;
    callTool(call: { name: string; arguments: object }): Promise<unknown>;
    close(): Promise<void>;
  };
  transport: unknown;
  finish(answer: URL): Promise<void>;
}
const make: Record<string, () => Session> = {
  v1: () => {
    const transport = new TransportV1(url, options);
    return {
      client: new ClientV1(info, { capabilities: {} }) as Session['client'],
      transport,
      finish: (answer: URL) => transport.finishAuth(answer.searchParams.get('code') as string),
    };
  },
  v2: () => {
    const transport = new TransportV2(url, options);
    return {
      client: new ClientV2(info, { capabilities: {}, versionNegotiation: { mode: 'auto' } }) as Session['client'],
      transport,
      finish: (answer: URL) => transport.finishAuth(answer.searchParams),
    };
  },
};
let { client, transport, finish } = make[CONFORMANCE_SDK as string]!();

/** Does something again after each sign-in that it leads to. */
async function signedIn<T>(work: () => Promise<T>, restart = () => {}): Promise<T> {
  for (let left = 2; ; left--) {
    try {
      return await work();
    } catch (error) {
      const { answer } = provider as { answer?: URL | undefined };
      if (answer === undefined || left === 0) throw error;
      Object.assign(provider, { answer: undefined });
      await finish(answer);
      restart();
    }
  }
}

await signedIn(
  () => client.connect(transport as never),
  () => {
    ({ client, transport, finish } = make[CONFORMANCE_SDK as string]!());
  },
);
const { tools } = await signedIn(() => client.listTools());
for (const { name } of tools) {
  const args = name === 'add_numbers' ? { a: 5, b: 3 } : {};
  await signedIn(() => client.callTool({ name, arguments: args }));
}
await client.close();
process.exit(0);
