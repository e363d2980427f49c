/** What must work, in this order. */
import type { Act, Result } from './act.ts';
import {
  type AttesterExchange,
  type Caller,
  CLIENTS,
  type ClientId,
  type RecordedRequest,
  type World,
} from './protocol.ts';
import { type Cast, provesTpm, type Scene } from './scene.ts';

const AGENT = CLIENTS.dpop_combined;
const WORKER = CLIENTS.attestation_pop_jwt;

export const steps: readonly Act[] = [
  {
    id: 'software-tpm',
    title: "Make a software TPM (swtpm), in place of the machine's",
    expected: 'a TPM',
    advice: 'Does swtpm work on this machine otherwise?',
    applies: (scene) => scene.options.softwareTpm,
    async run(scene) {
      scene.learn('softwareTpm', await scene.tpms.start('demo'));
      return {
        ok: true,
        got: 'a TPM',
        details: [
          'its maker is a certificate authority that was made for this run',
          'it does all that a TPM does, but it is a program: it proves nothing about hardware',
        ],
      };
    },
  },
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
    title: 'Open a place for keys',
    expected: 'a key provider',
    advice: '`attested doctor` says what this machine has, and what is in the way. Without a TPM: --keys software.',
    async run(scene) {
      const place = await scene.fact('cast').agent.openKeys();
      scene.learn('place', place);
      const { kind, assurance, why } = place;
      return { ok: true, got: kind, details: [`what may be claimed of the keys: ${assurance}`, ...why.split('; ')] };
    },
  },
  {
    id: 'tpm',
    title: 'Tell the attester whose TPMs it may believe',
    expected: 'evidence of a TPM',
    advice: 'Try again with --keys software, and see `attested doctor`.',
    applies: (scene) => scene.fact('place').kind === 'tpm',
    run: believe,
  },
  {
    id: 'enrol',
    title: 'Enrol with a one-time token and get the first Client Attestation',
    expected: 'an attested key',
    advice: 'The attester refused or did not answer. Is the clock of this machine steady?',
    async run(scene) {
      const { agent } = scene.fact('cast');
      const result = await enrol(scene, AGENT);
      const exchanges = await agent.takeExchanges();
      const last = exchanges.at(-1);
      const expected = provesTpm(scene)
        ? exchanges.filter(({ bringsActivation }) => bringsActivation).length === 1 && last?.keyStorage === 'hardware'
        : last?.keyEvidence === 'self-asserted';
      return {
        ok: result.ok && expected,
        got: expected ? result.got : `key storage ${last?.keyStorage} (${last?.keyEvidence})`,
        details: [...(result.details ?? []), ...exchanges.flatMap(story)],
      };
    },
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
    id: 'hardware-tool',
    title: 'Call a tool that demands a key in hardware',
    expected: 'approved',
    advice: 'The MCP server refused a key that was certified by a TPM.',
    applies: provesTpm,
    async run(scene) {
      const got = await scene.fact('cast').agent.approve(AGENT, scene.fact('world').mcp);
      const { keyStorage, keyEvidence } = scene.fact('caller');
      return { ok: got === 'approved', got, details: [`the attestation says ${keyStorage}, ${keyEvidence}`] };
    },
  },
  {
    id: 'restart',
    title: 'Restart the agent',
    expected: 'the same key, nothing asked of the attester',
    advice: 'The agent lost its identity with its process, or enrolled again.',
    run: restart,
  },
  {
    id: 'rotate',
    title: 'Change the key and call again',
    expected: 'same client, another key',
    advice: 'The agent could not change its key, or the server still saw the old one.',
    async run(scene) {
      const { agent, attester } = scene.fact('cast');
      const { mcp } = scene.fact('world');
      const before = scene.fact('caller').thumbprint;
      const thumbprint = await agent.rotate(AGENT, mcp);
      const exchanges = await agent.takeExchanges();
      const caller = await agent.whoami(AGENT, mcp);
      scene.learn('rotated', caller);
      await record(scene, 'agent', AGENT);
      const same = caller.thumbprint === thumbprint && thumbprint !== before && caller.clientId === AGENT;
      const asked = exchanges.length === 1 && exchanges.every((one) => !one.withToken && !one.bringsActivation);
      const got = same ? 'same client, another key' : 'the server saw another key than the new one';
      const enrolled = await attester.countInstances();
      return {
        ok: same && asked && enrolled === 1,
        got: same && !(asked && enrolled === 1) ? 'a new enrolment' : got,
        details: [
          `was ${short(before)}, is ${short(thumbprint)}`,
          `one request to the attester, without an enrolment token${provesTpm(scene) ? ' and without another activation' : ''}`,
        ],
      };
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
  const { processes, directory, keychainService, options } = scene;
  const tcti = scene.known('softwareTpm')?.tcti;
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
    keep: options.keep,
    keys: { kind: options.keys, keychainService, ...(tcti !== undefined && { tcti }) },
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

/** Whose word counts for the TPM's endorsement key: that of the makers listed, else that of whoever sits at this machine. */
async function believe(scene: Scene): Promise<Result> {
  const { options } = scene;
  const { attester } = scene.fact('cast');
  const { endorsementKey: key } = scene.fact('place');
  const ownTpm = scene.known('softwareTpm');
  if (key === undefined || 'unavailable' in key) {
    const got = 'no evidence: the keys count as software';
    return { ok: true, got, details: [key?.unavailable ?? 'the TPM says nothing of itself'] };
  }
  const got = 'evidence of a TPM';
  const certificate =
    key.issuer === undefined
      ? 'the endorsement key (EK) has no certificate'
      : `the endorsement key (EK) has a certificate${key.maker === undefined ? '' : ` for a TPM of ${key.maker}`}, signed by ${key.issuer}`;
  if (ownTpm !== undefined) {
    await attester.believe({ roots: [ownTpm.root], intermediates: [ownTpm.issuer], allowEk: [] });
    return { ok: true, got, details: [certificate, "believed: that maker's root, in this run only"] };
  }
  if (key.issuer !== undefined && options.tpmRoots.length > 0) {
    await attester.believe({ roots: options.tpmRoots, intermediates: [], allowEk: [] });
    return { ok: true, got, details: [certificate, 'believed: makers whose roots were given by --tpm-roots'] };
  }
  await attester.believe({ roots: [], intermediates: [], allowEk: [key.hash] });
  const lacking =
    key.issuer === undefined
      ? 'nobody vouches for it'
      : "its maker's root was not given (--tpm-roots), so nobody vouches for it";
  return {
    ok: true,
    got,
    details: [
      certificate,
      `believed: this one key, ${short(key.hash)}, by its place on a list (allowEk); ${lacking}`,
      'that is honest only because attester and TPM are on one machine here: see docs/tpm-makers.md',
    ],
  };
}

/** Another process, the same directory: what an agent is, it still is. */
async function restart(scene: Scene): Promise<Result> {
  const { processes } = scene;
  const cast = scene.fact('cast');
  const { mcp } = scene.fact('world');
  const before = scene.fact('caller');
  const enrolled = await cast.attester.countInstances();
  await cast.agent.handOver();
  await processes.end(cast.agent);
  const agent = processes.start('agent', 'agent');
  scene.learn('cast', { ...cast, agent });
  await agent.configure(scene.fact('world'));
  const place = await agent.openKeys();
  await agent.resume(AGENT);
  await agent.connect(AGENT, mcp);
  const caller = await agent.whoami(AGENT, mcp);
  const asked = (await agent.takeExchanges()).length;
  const enrolledSince = (await cast.attester.countInstances()) - enrolled;
  const same = caller.thumbprint === before.thumbprint && place.kind === scene.fact('place').kind;
  const ok = same && asked === 0 && enrolledSince === 0;
  return {
    ok,
    got: ok ? 'the same key, nothing asked of the attester' : same ? 'the same key, attested again' : 'another key',
    details: [
      `process ${cast.agent.pid} is now ${agent.pid}; key ${short(caller.thumbprint)}, in ${place.kind}`,
      `new enrolments ${enrolledSince}, requests to the attester ${asked}: the attestation was kept as well`,
    ],
  };
}

async function enrol(scene: Scene, clientId: ClientId): Promise<Result> {
  const { attester, agent } = scene.fact('cast');
  const token = await attester.createEnrolmentToken(clientId);
  const thumbprint = await agent.enrol(clientId, token);
  return { ok: true, got: 'an attested key', details: [`client_id ${clientId}, key ${short(thumbprint)}`] };
}

/** What the agent and its attester said to each other, for people. */
function story(exchange: AttesterExchange): string[] {
  if (exchange.asksActivation) {
    const shown = exchange.withCertificate ? 'EK certificate, ' : '';
    return [
      `sent: ${shown}attestation key (AK), and the AK's word that both keys were made in this TPM and cannot leave it`,
      'the attester asks for a secret that only the TPM with this EK opens, and only for this AK',
    ];
  }
  const told = `the attestation says ${exchange.keyStorage}, ${exchange.keyEvidence}`;
  return exchange.bringsActivation ? ['the TPM opened it (activation)', told] : [told];
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
