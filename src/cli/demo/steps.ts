/** What must work, in this order. */
import type { Act, Result } from './act.ts';
import { type Caller, CLIENTS, type ClientId, type RecordedRequest, type World } from './protocol.ts';
import type { Cast, Scene } from './scene.ts';

const AGENT = CLIENTS.dpop_combined;
const WORKER = CLIENTS.attestation_pop_jwt;

export const steps: readonly Act[] = [
  {
    id: 'start',
    title: 'Start an attester, an authorization server, two MCP servers and an agent',
    expected: 'five processes, all ready',
    advice:
      'See the lines of the process above. Are the optional packages installed, and may this user listen on 127.0.0.1?',
    run: start,
  },
  {
    id: 'key',
    title: 'Open the best place for keys on this machine',
    expected: 'a key provider',
    advice: 'Run `attested keygen --dir <empty directory>`: it says what is wrong with the place for keys.',
    async run(scene) {
      const { kind, assurance, why } = await scene.fact('cast').agent.openKeys();
      return { ok: true, got: kind, details: [`what may be claimed of the keys: ${assurance}`, ...why.split('; ')] };
    },
  },
  {
    id: 'enrol',
    title: 'Enrol with a one-time token and get the first Client Attestation',
    expected: 'an attested key',
    advice: 'The attester refused or did not answer. Is the clock of this machine steady?',
    run: async (scene) => enrol(scene, AGENT),
  },
  {
    id: 'token',
    title: 'Get an access token with attestation and DPoP as one',
    expected: 'a DPoP token',
    advice:
      'The authorization server refused the client, or the MCP server refused its token: see what they wrote above.',
    async run(scene) {
      const { agent } = scene.fact('cast');
      const { tokenType, authMethod } = await agent.connect(AGENT, scene.fact('world').mcp);
      return {
        ok: tokenType === 'DPoP' && authMethod === 'attest_jwt_client_auth_dpop',
        got: `a ${tokenType} token`,
        details: [
          `the authorization server authenticated the client by ${authMethod}; no secret was sent`,
          'the MCP SDK found the authorization server by itself, took the token and connected',
        ],
      };
    },
  },
  {
    id: 'call',
    title: 'Call tools of the MCP server',
    expected: `it knows ${AGENT} and its key`,
    advice: 'The MCP server refused the agent or knows too little of it.',
    async run(scene) {
      const { agent } = scene.fact('cast');
      const { mcp } = scene.fact('world');
      const sum = await agent.add(AGENT, mcp, 19, 23);
      const caller = await agent.whoami(AGENT, mcp);
      scene.learn('caller', caller);
      const ok =
        sum === 42 && caller.clientId === AGENT && caller.method === 'dpop_combined' && caller.status === 'valid';
      return { ok, got: `it knows ${caller.clientId} and its key`, details: portrait(caller) };
    },
  },
  {
    id: 'rotate',
    title: 'Change the key and call again',
    expected: 'same client, another key',
    advice: 'The agent could not change its key, or the server still saw the old one.',
    async run(scene) {
      const { agent } = scene.fact('cast');
      const { mcp } = scene.fact('world');
      const before = scene.fact('caller').thumbprint;
      const thumbprint = await agent.rotate(AGENT, mcp);
      const caller = await agent.whoami(AGENT, mcp);
      scene.learn('rotated', caller);
      await record(scene, 'agent', AGENT);
      const ok = caller.thumbprint === thumbprint && thumbprint !== before && caller.clientId === AGENT;
      const got = ok ? 'same client, another key' : 'the server saw another key than the new one';
      return { ok, got, details: [`was ${short(before)}, is ${short(thumbprint)}`] };
    },
  },
  {
    id: 'second-server',
    title: 'Call a second MCP server, which must not recognise the agent',
    expected: 'two servers, two keys',
    advice: 'The agent showed one key to two servers: they could tell that they serve the same agent.',
    async run(scene) {
      const { agent } = scene.fact('cast');
      const { otherMcp } = scene.fact('world');
      await agent.connect(AGENT, otherMcp);
      const caller = await agent.whoami(AGENT, otherMcp);
      scene.learn('other', caller);
      scene.learn('otherCall', found(await agent.recorded(otherMcp, 'whoami')));
      const seen = [scene.fact('caller').thumbprint, scene.fact('rotated').thumbprint];
      const ok = !seen.includes(caller.thumbprint);
      return {
        ok,
        got: ok ? 'two servers, two keys' : 'two servers, one key',
        details: [`first server ${short(scene.fact('rotated').thumbprint)}, second ${short(caller.thumbprint)}`],
      };
    },
  },
  {
    id: 'second-client',
    title: 'A second client, with the proof of possession in a JWT of its own',
    expected: 'a Bearer token',
    advice: 'The authorization server or the MCP server refused the second client.',
    async run(scene) {
      const { agent } = scene.fact('cast');
      const { mcp } = scene.fact('world');
      await enrol(scene, WORKER);
      const { tokenType, authMethod } = await agent.connect(WORKER, mcp);
      const caller = await agent.whoami(WORKER, mcp);
      scene.learn('worker', caller);
      await record(scene, 'worker', WORKER);
      return {
        ok: tokenType === 'Bearer' && authMethod === 'attest_jwt_client_auth' && caller.clientId === WORKER,
        got: `a ${tokenType} token`,
        details: [
          `the authorization server authenticated the client by ${authMethod}`,
          `the MCP server knows ${caller.clientId} by ${caller.method}; its token names the key that may use it`,
        ],
      };
    },
  },
];

async function start(scene: Scene): Promise<Result> {
  const { processes, directory, keep } = scene;
  const cast: Cast = {
    attester: processes.start('attester', 'attester'),
    authorizationServer: processes.start('authorization-server', 'authorization server'),
    mcp: processes.start('mcp-server', 'MCP server'),
    otherMcp: processes.start('mcp-server', 'second MCP server'),
    agent: processes.start('agent', 'agent'),
  };
  scene.learn('cast', cast);
  const { attester, authorizationServer, mcp, otherMcp, agent } = cast;
  const servers = [attester, authorizationServer, mcp, otherMcp] as const;
  const origins = await Promise.all([attester.listen(), authorizationServer.listen(), mcp.listen(), otherMcp.listen()]);
  const world: World = {
    attester: origins[0],
    authorizationServer: origins[1],
    mcp: `${origins[2]}/mcp`,
    otherMcp: `${origins[3]}/mcp`,
    directory,
    keep,
  };
  scene.learn('world', world);
  await Promise.all([
    attester.configure(world),
    authorizationServer.configure(world),
    mcp.configure(world, 'mcp'),
    otherMcp.configure(world, 'otherMcp'),
    agent.configure(world),
  ]);
  const places = servers.map(({ name, pid }, i) => `${name}: ${origins[i]} (process ${pid})`);
  places.push(`${agent.name}: listens nowhere (process ${agent.pid})`);
  return { ok: true, got: 'five processes, all ready', details: places };
}

async function enrol(scene: Scene, clientId: ClientId): Promise<Result> {
  const { attester, agent } = scene.fact('cast');
  const token = await attester.createEnrolmentToken(clientId);
  const thumbprint = await agent.enrol(clientId, token);
  return { ok: true, got: 'an attested key', details: [`client_id ${clientId}, key ${short(thumbprint)}`] };
}

/** Takes the copies that the attacks start from. */
async function record(scene: Scene, who: 'agent' | 'worker', clientId: ClientId): Promise<void> {
  const { agent } = scene.fact('cast');
  const { mcp, authorizationServer } = scene.fact('world');
  const token = await agent.recorded(`${authorizationServer}/token`, `client_id=${clientId}`);
  const call = await agent.recorded(mcp, 'whoami');
  scene.learn(`${who}Token`, found(token));
  scene.learn(`${who}Call`, found(call));
}

function found(request: RecordedRequest | undefined | null): RecordedRequest {
  if (request == null) throw new Error('the request that the attacks should start from was not recorded');
  return request;
}

function portrait({
  clientId,
  thumbprint,
  method,
  keyStorage,
  keyEvidence,
  attester,
  status,
  expiresIn,
}: Caller): string[] {
  return [
    `client ${clientId}, instance ${short(thumbprint)}, proved by ${method}`,
    `key storage ${keyStorage} (${keyEvidence}), attested by ${attester}`,
    `revocation status ${status}, attestation good for ${expiresIn} s more`,
  ];
}

/** Enough of a thumbprint to tell keys apart. */
function short(thumbprint: string): string {
  return `${thumbprint.slice(0, 12)}…`;
}
