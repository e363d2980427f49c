/** The agent's process: MCP clients of SDK v2, authenticated by attestation. */
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { type Agent, createAgent } from '../../agent/index.ts';
import { AttestedError, createDpopProof, createPop, type Signer } from '../../index.ts';
import { type KeyProvider, openKeys } from '../../keys/index.ts';
import { type AttestedProvider, attestedProvider } from '../../mcp/index.ts';
import type { TpmDevice } from '../../tpm2/device.ts';
import { readEkCertificate } from '../../tpm2/ek-certificate.ts';
import { ekHash } from '../../tpm2/ek-hash.ts';
import { parsePublic } from '../../tpm2/public.ts';
import { forgetKeychain } from './keychain.ts';
import {
  type AgentRole,
  type Caller,
  CLIENTS,
  type ClientId,
  type Ending,
  HARDWARE_TOOL,
  type KeyPlace,
  SCOPE,
  type World,
} from './protocol.ts';
import { exchangesFetch, type Recorder, recordingFetch } from './recorder.ts';

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
  const attester = exchangesFetch();
  let world: World;
  let keys: KeyProvider | undefined;
  let workerKeys: KeyProvider | undefined;
  let handedOver = false;

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
  /** Where the TPM is used for the first client, the second one stands for an agent that has none. */
  async function placeOf(clientId: ClientId): Promise<KeyProvider> {
    if (clientId === CLIENTS.dpop_combined || place().kind !== 'tpm') return place();
    workerKeys ??= await openKeys('software', { directory: join(world.directory, 'worker') });
    return workerKeys;
  }

  async function open(clientId: ClientId, enrolmentToken?: string): Promise<Agent> {
    const agent = await createAgent({
      clientId,
      keys: await placeOf(clientId),
      attester: { url: world.attester, fetch: attester.fetch },
      enrolmentToken,
      method: clientId === CLIENTS.dpop_combined ? 'dpop_combined' : 'attestation_pop_jwt',
      fetch: traffic.fetch,
    });
    instances.set(clientId, { agent, connections: new Map() });
    return agent;
  }

  return {
    async configure(given) {
      world = given;
    },
    async openKeys() {
      const { kind: wanted, tcti, keychainService } = world.keys;
      const directory = join(world.directory, 'agent');
      keys = await openKeys(wanted, { directory, keychainService, ...(tcti !== undefined && { tpm: { tcti } }) });
      const { kind, assurance, why, tpm } = keys;
      return { kind, assurance, why, ...(tpm && { endorsementKey: await describe(tpm) }) };
    },
    async enrol(clientId, enrolmentToken) {
      const agent = await open(clientId, enrolmentToken);
      // what a token request would do before it is sent: key, enrolment, attestation, metadata, challenge
      const request = new URLSearchParams({ grant_type: 'client_credentials', resource: world.mcp });
      await agent.clientAuth({ issuer: world.authorizationServer }, {}, request, new Headers());
      return thumbprintAt(agent, world.mcp);
    },
    async resume(clientId) {
      await open(clientId);
    },
    async handOver() {
      for (const { agent } of instances.values()) await agent.close();
      handedOver = true;
    },
    takeExchanges: async () => attester.take(),
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
    approve: (clientId, server) => callTool(connectionOf(clientId, server), HARDWARE_TOOL, {}),
    async rotate(clientId, server) {
      const { agent, connections } = instanceOf(clientId);
      await agent.rotate(server, { keepOld: false });
      connections.get(server)?.provider.invalidateCredentials();
      return thumbprintAt(agent, server);
    },
    recorded: async (url, containing) => traffic.last(url, containing),
    async prove({ thumbprint, audience, method, url, ...rest }) {
      const signer = await signerFor([place(), workerKeys], thumbprint);
      if (audience !== undefined) return createPop({ audience, ...rest }, signer);
      if (method === undefined || url === undefined) throw new Error('a DPoP proof needs method and url');
      return createDpopProof({ method, url, ...rest }, signer);
    },
    async end() {
      if (keys?.kind === 'keychain' && !world.keep && !handedOver) await forgetKeychain(world.keys.keychainService);
      await keys?.close();
      await workerKeys?.close();
    },
  };
}

/** What the TPM says of its endorsement key; the attester decides whether to believe it. */
async function describe(tpm: TpmDevice): Promise<NonNullable<KeyPlace['endorsementKey']>> {
  try {
    const { publicArea, certificate } = await tpm.endorsementKey();
    const { publicJwk } = parsePublic(publicArea);
    if (publicJwk === undefined) return { unavailable: 'the endorsement key is of a kind that is not known here' };
    const hash = ekHash(publicJwk);
    if (certificate === undefined) return { hash };
    const { issuer, manufacturerName } = readEkCertificate(certificate);
    return { hash, issuer, ...(manufacturerName !== undefined && { maker: manufacturerName }) };
  } catch (error) {
    if (!(error instanceof AttestedError)) throw error;
    return { unavailable: error.message };
  }
}

async function callTool({ client }: Connection, name: string, input: Record<string, unknown>): Promise<string> {
  const { content, isError } = await client.callTool({ name, arguments: input });
  const [first] = content as { type: string; text?: string }[];
  if (isError || first?.text === undefined) throw new Error(`the tool ${name} failed`);
  return first.text;
}

async function signerFor(places: readonly (KeyProvider | undefined)[], thumbprint: string): Promise<Signer> {
  for (const keys of places) {
    const found = (await keys?.listKeys())?.find((key) => key.thumbprint === thumbprint);
    const signer = found && (await keys?.getKey(found.label));
    if (signer !== undefined) return signer;
  }
  throw new Error('no such key');
}
