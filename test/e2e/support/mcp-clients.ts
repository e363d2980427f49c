/** The clients of both MCP SDKs in one shape, and a provider with a person behind it. */
import { Client as ClientV2, StreamableHTTPClientTransport as TransportV2 } from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ToolListChangedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { onTestFinished } from 'vitest';
import type { Agent } from '../../../src/agent/index.ts';
import { type ProviderTokens, pushAuthorizationRequest } from '../../../src/mcp/index.ts';
import { CALLBACK, SCOPE } from './authorization-server.ts';
import { visit } from './browser.ts';
import type { Caller } from './mcp-servers.ts';

export type Sdk = 'v1' | 'v2';
export const SDKS: readonly Sdk[] = ['v1', 'v2'];

export interface McpClient {
  tools(): Promise<string[]>;
  whoami(): Promise<Caller>;
  /** Calls the tool that reports its progress. */
  count(): Promise<number[]>;
  /** Resolves when the server says that its tools have changed. */
  toolsChanged(): Promise<void>;
}

interface Connecting {
  agent: Agent;
  url: URL;
  authProvider: object;
}

/** Connects, through the authorization page where the provider sends somebody there. */
export async function connect(sdk: Sdk, { agent, url, authProvider }: Connecting): Promise<McpClient> {
  const options = { authProvider: authProvider as never, fetch: agent.fetch };
  const begin = sdk === 'v1' ? beginV1 : beginV2;
  const first = begin(url, options);
  try {
    return await first();
  } catch (error) {
    if (!(authProvider instanceof Person) || authProvider.callback === undefined) throw error;
    await first.finish(authProvider.callback);
    return begin(url, options)();
  }
}

type Begin = (
  url: URL,
  options: { authProvider: never; fetch: Agent['fetch'] },
) => (() => Promise<McpClient>) & { finish(callback: URL): Promise<void> };

const info = { name: 'e2e', version: '1.0.0' };
const namesOf = ({ tools }: { tools: { name: string }[] }) => tools.map(({ name }) => name);
const jsonOf = (result: unknown) => JSON.parse((result as { content: { text: string }[] }).content[0]?.text ?? '');

const beginV1: Begin = (url, options) => {
  const client = new ClientV1(info);
  const transport = new TransportV1(url, options);
  onTestFinished(() => client.close());
  const start = async (): Promise<McpClient> => {
    await client.connect(transport as never);
    return {
      tools: async () => namesOf(await client.listTools()),
      whoami: async () => jsonOf(await client.callTool({ name: 'whoami' })),
      async count() {
        const reports: number[] = [];
        const onprogress = ({ progress }: { progress: number }) => void reports.push(progress);
        await client.callTool({ name: 'count' }, undefined, { onprogress });
        return reports;
      },
      toolsChanged: () =>
        new Promise((resolve) => client.setNotificationHandler(ToolListChangedNotificationSchema, () => resolve())),
    };
  };
  return Object.assign(start, {
    finish: (callback: URL) => transport.finishAuth(callback.searchParams.get('code') as string),
  });
};

const beginV2: Begin = (url, options) => {
  const client = new ClientV2(info);
  const transport = new TransportV2(url, options);
  onTestFinished(() => client.close());
  const start = async (): Promise<McpClient> => {
    await client.connect(transport);
    return {
      tools: async () => namesOf(await client.listTools()),
      whoami: async () => jsonOf(await client.callTool({ name: 'whoami' })),
      async count() {
        const reports: number[] = [];
        await client.callTool({ name: 'count' }, { onprogress: ({ progress }) => void reports.push(progress) });
        return reports;
      },
      toolsChanged: () =>
        new Promise((resolve) => client.setNotificationHandler('notifications/tools/list_changed', () => resolve())),
    };
  };
  return Object.assign(start, { finish: (callback: URL) => transport.finishAuth(callback.searchParams) });
};

/** An OAuthClientProvider, as an application writes it, whose person agrees at once. */
export class Person {
  readonly redirectUrl = CALLBACK;
  readonly #agent: Agent;
  readonly #issuer: string;
  #tokens: ProviderTokens | undefined;
  #verifier = '';
  #discovered: unknown;
  /** Where the authorization page sent the person. */
  callback: URL | undefined;
  /** How often the person was asked. */
  asked = 0;

  constructor(agent: Agent, issuer: string) {
    this.#agent = agent;
    this.#issuer = issuer;
  }
  get clientMetadata() {
    return { redirect_uris: [CALLBACK], grant_types: ['authorization_code', 'refresh_token'], scope: SCOPE };
  }
  clientInformation() {
    return undefined;
  }
  tokens() {
    return this.#tokens;
  }
  saveTokens(tokens: ProviderTokens) {
    this.#tokens = tokens;
  }
  async redirectToAuthorization(url: URL) {
    this.asked++;
    this.callback = await visit(await pushAuthorizationRequest(this.#agent, this.#issuer, url), CALLBACK);
  }
  saveCodeVerifier(verifier: string) {
    this.#verifier = verifier;
  }
  codeVerifier() {
    return this.#verifier;
  }
  discoveryState() {
    return this.#discovered;
  }
  saveDiscoveryState(state: unknown) {
    this.#discovered = state;
  }
  invalidateCredentials() {
    this.#tokens = undefined;
  }
}
