/** MCP hosts of both SDKs that know a remote server only as a command: `attested connect`. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { Client as ClientV2 } from '@modelcontextprotocol/client';
import { StdioClientTransport as StdioV2 } from '@modelcontextprotocol/client/stdio';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as StdioV1 } from '@modelcontextprotocol/sdk/client/stdio.js';
import { onTestFinished } from 'vitest';
import { MAIN } from '../../cli/harness.ts';
import { CLIENTS, type Method } from './authorization-server.ts';
import { visit } from './browser.ts';
import type { Sdk } from './mcp-clients.ts';
import type { LoopbackWorld } from './world.ts';

export interface Place {
  directory: string;
  /** Arguments after the server's URL. */
  args: string[];
  env: Record<string, string>;
}

/** A new machine: a directory of its own, and an enrolment token for the first run. */
export async function newPlace(world: LoopbackWorld, method: Method = 'attestation_pop_jwt'): Promise<Place> {
  const directory = await mkdtemp(join(tmpdir(), 'attested-bridge-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }));
  return {
    directory,
    args: ['--keys', 'software', '--dir', directory, '--method', method, '--no-browser'],
    env: {
      ATTESTED_CLIENT_ID: CLIENTS[method],
      ATTESTED_ATTESTER: world.attester.issuer,
      ATTESTED_ENROLMENT_TOKEN: await world.attester.createEnrolmentToken({ clientId: CLIENTS[method] }),
    },
  };
}

export const commandFor = (url: URL, { args, env }: Place, more: readonly string[] = [], name = 'connect') => ({
  command: process.execPath,
  args: [MAIN, name, url.href, ...args, ...more],
  env: { ...(process.env as Record<string, string>), ...env },
});

export interface Bridged {
  client: ClientV2;
  pid: number;
  /** What the bridge has said to people so far. */
  said(): string;
  close(): Promise<void>;
}

export interface BridgeOptions {
  place: Place;
  args?: readonly string[];
  client?: object;
  setUp?: (client: ClientV2) => void;
  /** Signs in as a browser would, wherever the bridge says. */
  signIn?: boolean;
}

/** The clients of both SDKs have the methods that the tests use in common. */
export async function connectBridge(sdk: Sdk, url: URL, options: BridgeOptions): Promise<Bridged> {
  const info = { name: 'host', version: '1.0.0' };
  const client = (sdk === 'v1' ? new ClientV1(info, options.client) : new ClientV2(info, options.client)) as ClientV2;
  const parameters = {
    ...commandFor(url, options.place, options.args),
    stderr: 'pipe' as const,
    maxBufferSize: 2 ** 28,
  };
  const transport = sdk === 'v1' ? new StdioV1(parameters) : new StdioV2(parameters);
  let said = '';
  let visited = '';
  (transport.stderr as Readable).setEncoding('utf8').on('data', (text: string) => {
    said += text;
    const page = /open this page: (\S+)\n/.exec(said)?.[1];
    if (options.signIn !== true || page === undefined || page === visited) return;
    visited = page;
    void visit(page, 'http://127.0.0.1:0/').catch(() => undefined);
  });
  options.setUp?.(client);
  const bridged: Bridged = {
    client,
    get pid() {
      return (transport as { pid: number | null }).pid ?? -1;
    },
    said: () => said,
    close: () => client.close(),
  };
  onTestFinished(() => client.close());
  await client.connect(transport as never);
  return bridged;
}

export const textOf = (result: unknown): string => (result as { content: { text: string }[] }).content[0]?.text ?? '';
