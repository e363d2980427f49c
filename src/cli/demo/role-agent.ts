/** The agent's process: MCP clients of SDK v2, authenticated by attestation. */
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { type Agent, createAgent } from '../../agent/index.ts';
import { createDpopProof, createPop, type Signer } from '../../index.ts';
import { type KeyProvider, openKeys } from '../../keys/index.ts';
import { type AttestedProvider, attestedProvider } from '../../mcp/index.ts';
import { type AgentRole, type Caller, CLIENTS, type Ending, SCOPE, type World } from './protocol.ts';
import { type Recorder, recordingFetch } from './recorder.ts';

interface Connection {
  client: Client;
  provider: AttestedProvider;
}

interface Instance {
  agent: Agent;
  connections: Map<string, Connection>;
}

export async function agentRole(): Promise<AgentRole & Ending> {
  const instances = new Map<string, Instance>();
  const traffic: Recorder = recordingFetch();
  let world: World;
  let keys: KeyProvider | undefined;

  function instanceOf(clientId: string): Instance {
    const found = instances.get(clientId);
    if (found === undefined) throw new Error(`${clientId} is not enrolled`);
    return found;
  }
  function connectionOf(clientId: string, server: string): Connection {
    const found = instanceOf(clientId).connections.get(server);
    if (found === undefined) throw new Error(`${clientId} is not connected to that server`);
    return found;
  }
  function thumbprintAt(agent: Agent, server: string): string {
    const found = agent.identities().find((identity) => identity.server === server && identity.current);
    if (found === undefined) throw new Error('the agent has no identity for that server');
    return found.thumbprint;
  }

  function place(): KeyProvider {
    if (keys === undefined) throw new Error('no place for keys was opened');
    return keys;
  }

  return {
    async configure(given) {
      world = given;
    },
    async openKeys() {
      keys = await openKeys('auto', { directory: join(world.directory, 'agent') });
      const { kind, assurance, why } = keys;
      return { kind, assurance, why };
    },
    async enrol(clientId, enrolmentToken) {
      const method = clientId === CLIENTS.dpop_combined ? 'dpop_combined' : 'attestation_pop_jwt';
      const { fetch } = traffic;
      const agent = await createAgent({
        clientId,
        keys: place(),
        attester: world.attester,
        enrolmentToken,
        method,
        fetch,
      });
      instances.set(clientId, { agent, connections: new Map() });
      // what a token request would do before it is sent: key, enrolment, attestation, metadata, challenge
      const request = new URLSearchParams({ grant_type: 'client_credentials', resource: world.mcp });
      await agent.clientAuth({ issuer: world.authorizationServer }, {}, request, new Headers());
      return thumbprintAt(agent, world.mcp);
    },
    async connect(clientId, server) {
      const { agent, connections } = instanceOf(clientId);
      const provider = attestedProvider(agent, { scope: SCOPE });
      const client = new Client({ name: 'attested-demo', version: '1.0.0' });
      await client.connect(
        new StreamableHTTPClientTransport(new URL(server), { authProvider: provider, fetch: agent.fetch }),
      );
      connections.set(server, { client, provider });
      const request = traffic.last(`${world.authorizationServer}/token`, `client_id=${clientId}`);
      const combined = request?.headers.every(([name]) => name !== 'oauth-client-attestation-pop');
      return {
        tokenType: (await provider.tokens())?.token_type ?? 'none',
        authMethod: combined ? 'attest_jwt_client_auth_dpop' : 'attest_jwt_client_auth',
      };
    },
    async whoami(clientId, server) {
      return JSON.parse(await callTool(connectionOf(clientId, server), 'whoami', {})) as Caller;
    },
    async add(clientId, server, a, b) {
      return Number(await callTool(connectionOf(clientId, server), 'add', { a, b }));
    },
    async rotate(clientId, server) {
      const { agent, connections } = instanceOf(clientId);
      await agent.rotate(server, { keepOld: false });
      connections.get(server)?.provider.invalidateCredentials();
      return thumbprintAt(agent, server);
    },
    recorded: async (url, containing) => traffic.last(url, containing),
    async prove({ thumbprint, audience, method, url, ...rest }) {
      const signer = await signerFor(place(), thumbprint);
      if (audience !== undefined) return createPop({ audience, ...rest }, signer);
      if (method === undefined || url === undefined) throw new Error('a DPoP proof needs method and url');
      return createDpopProof({ method, url, ...rest }, signer);
    },
    async end() {
      if (keys === undefined || world.keep) return;
      // a keychain or a TPM would keep them for ever
      for (const { label } of await keys.listKeys()) if (isOurs(label)) await keys.deleteKey(label);
      await keys.close();
    },
  };
}

/** The labels that agents give their keys begin with the client_id. */
function isOurs(label: string): boolean {
  return Object.values(CLIENTS).some((clientId) => label.startsWith(`attested:${clientId}:`));
}

async function callTool({ client }: Connection, name: string, input: Record<string, unknown>): Promise<string> {
  const { content, isError } = await client.callTool({ name, arguments: input });
  const [first] = content as { type: string; text?: string }[];
  if (isError || first?.text === undefined) throw new Error(`the tool ${name} failed`);
  return first.text;
}

async function signerFor(keys: KeyProvider, thumbprint: string): Promise<Signer> {
  const found = (await keys.listKeys()).find((key) => key.thumbprint === thumbprint);
  const signer = found && (await keys.getKey(found.label));
  if (signer === undefined) throw new Error('no such key');
  return signer;
}
