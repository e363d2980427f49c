/** An agent whose keys are in a TPM (swtpm) and its attester, over HTTP: from the first contact to a server that wants hardware. */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeJwt } from 'jose';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Agent, type AgentOptions, createAgent } from '../../src/agent/index.ts';
import {
  type Attester,
  type AttesterEvent,
  type AttesterOptions,
  createAttester,
  selfAttester,
  sqliteStore,
} from '../../src/attester/index.ts';
import { createPop } from '../../src/index.ts';
import { toNodeListener } from '../../src/integrations/node.ts';
import { type KeyProvider, openKeys } from '../../src/keys/index.ts';
import { ekHash } from '../../src/tpm2/ek-hash.ts';
import { parsePublic } from '../../src/tpm2/public.ts';
import { createVerifier, jwks } from '../../src/verifier/index.ts';
import { type Swtpm, type SwtpmOptions, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { newSigner } from '../support/tokens.ts';
import { listenForTest } from './support/http.ts';

const CLIENT = 'weather-agent';
const SERVER = 'https://mcp.example/mcp';

async function newPlace(): Promise<string> {
  const place = await mkdtemp(join(tmpdir(), 'tpm-e2e-'));
  onTestFinished(() => rm(place, { recursive: true, force: true }));
  return place;
}

async function newTpm(options: SwtpmOptions = {}): Promise<Swtpm> {
  const tpm = await startSwtpm(options);
  onTestFinished(() => tpm.stop());
  return tpm;
}

interface World {
  attester: Attester;
  issuer: string;
  events: AttesterEvent[];
}

async function startAttester(
  tpm: Swtpm | undefined,
  { trust, ...options }: Partial<AttesterOptions> & { trust?: object } = {},
): Promise<World> {
  const http = await listenForTest();
  const events: AttesterEvent[] = [];
  const roots = tpm === undefined ? [] : [tpm.roots.root, tpm.roots.issuer];
  const attester = createAttester({
    issuer: http.origin,
    signer: newSigner('ES256', 'attester-1'),
    store: sqliteStore(join(await newPlace(), 'attester.db')),
    policy: { clients: { [CLIENT]: { evidence: ['tpm'], enrolment: { tokens: true } } } },
    tpm: { roots, ...trust },
    log: (event) => events.push(event),
    ...options,
  });
  http.answerWith(toNodeListener(attester.handler, { url: http.origin }));
  return { attester, issuer: http.origin, events };
}

interface Instance {
  agent: Agent;
  keys: KeyProvider;
  directory: string;
  /** Paths asked for at the attester, in order. */
  asked: string[];
  /** The last attestation that came. */
  attestation(): string;
  close(): Promise<void>;
}

/** An agent on a machine with this TPM; with a directory, the one that lives there. */
async function startAgent(
  { attester, issuer }: Pick<World, 'attester' | 'issuer'>,
  tpm: Swtpm,
  {
    directory,
    change = (keys) => keys,
    ...options
  }: Partial<AgentOptions> & {
    directory?: string;
    change?: (keys: KeyProvider) => KeyProvider;
  } = {},
): Promise<Instance> {
  const place = directory ?? (await newPlace());
  const keys = await openKeys('tpm', { directory: place, tpm: { tcti: tpm.tcti } });
  const asked: string[] = [];
  let last: string | undefined;
  const recording: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    asked.push(new URL(String(input)).pathname);
    const { attestation } = (await response.clone().json()) as { attestation?: string };
    last = attestation ?? last;
    return response;
  };
  const enrolmentToken =
    directory === undefined ? await attester.createEnrolmentToken({ clientId: CLIENT }) : undefined;
  const opening = createAgent({
    clientId: CLIENT,
    keys: change(keys),
    attester: { url: issuer, fetch: recording },
    enrolmentToken,
    ...options,
  });
  const agent = await opening.catch(async (error: unknown) => {
    await keys.close();
    throw error;
  });
  let open = true;
  const close = async () => {
    if (!open) return;
    open = false;
    await agent.close();
    await keys.close();
  };
  onTestFinished(close);
  return { agent, keys, directory: place, asked, attestation: () => last!, close };
}

/** The rules that the operator was told of. */
const rules = (events: AttesterEvent[]) => events.flatMap((event) => (event.type === 'refused' ? [event.rule] : []));

describe.skipIf(skipTpm)('an agent with a TPM', () => {
  test('enrols in two steps, renews in one, and a server that wants hardware takes it', async () => {
    const tpm = await newTpm();
    const world = await startAttester(tpm);
    const { agent, keys, asked, attestation } = await startAgent(world, tpm);
    await agent.rotate(SERVER);
    expect(asked).toEqual(['/challenge', '/attestation', '/attestation']);
    expect(decodeJwt(attestation())).toMatchObject({ key_storage: ['hardware'], key_evidence: 'tpm-certified' });
    asked.length = 0;
    await agent.rotate('https://other.example/mcp');
    await agent.rotate(SERVER);
    expect(asked).toEqual(['/challenge', '/attestation', '/challenge', '/attestation']);
    expect(await world.attester.instances()).toHaveLength(1);

    const verifier = createVerifier({
      role: 'rs',
      audience: SERVER,
      trust: jwks({ keys: world.attester.jwks().keys }),
      policy: { challenge: 'off', require: { keyStorage: 'hardware', keyEvidence: 'tpm-certified' } },
    });
    const { cnf } = decodeJwt(attestation()) as { cnf: { jwk: object } };
    const named = await Promise.all((await keys.listKeys()).map(({ label }) => keys.getKey(label)));
    const signer = named.find((key) => JSON.stringify(key!.publicJwk) === JSON.stringify(cnf.jwk))!;
    const headers = {
      'OAuth-Client-Attestation': attestation(),
      'OAuth-Client-Attestation-PoP': await createPop({ audience: SERVER }, signer),
    };
    expect(await verifier.verify({ headers })).toMatchObject({ clientId: CLIENT, keyStorage: 'hardware' });
  });

  test.each([
    ['shut down in order', true],
    ['cut off from power', false],
  ])('is the same instance after the machine was %s, in one step each time', async (_how, clean) => {
    const tpm = await newTpm();
    const world = await startAttester(tpm);
    const first = await startAgent(world, tpm);
    await first.agent.rotate(SERVER);
    await first.close();
    for (let i = 0; i < 3; i++) {
      await tpm.restart({ clean });
      const again = await startAgent(world, tpm, { directory: first.directory });
      await again.agent.rotate(SERVER);
      expect(again.asked).toEqual(['/challenge', '/attestation']);
      expect(decodeJwt(again.attestation())).toMatchObject({ key_storage: ['hardware'] });
      await again.close();
    }
    expect(await world.attester.instances()).toHaveLength(1);
    expect(rules(world.events)).toEqual([]);
  });

  test('its state, copied to a machine with another TPM, is of no use there, and the attester never hears of it', async () => {
    const [tpm, other] = [await newTpm(), await newTpm({ fresh: true })];
    const world = await startAttester(tpm);
    const owner = await startAgent(world, tpm);
    await owner.agent.rotate(SERVER);
    const copy = await newPlace();
    await cp(owner.directory, copy, { recursive: true });
    world.events.length = 0;
    const stolen = async () => {
      const thief = await startAgent(world, other, { directory: copy });
      await thief.agent.rotate(SERVER);
    };
    await expect(stolen()).rejects.toMatchObject({ code: 'key_store_wrong_secret' });
    expect(world.events).toEqual([]);
    await owner.agent.rotate(SERVER);
  });

  test('a TPM of a maker that is not on the list is refused', async () => {
    const [known, unknown] = [await newTpm(), await newTpm({ maker: 'nobody' })];
    const world = await startAttester(known);
    const { agent } = await startAgent(world, unknown);
    await expect(agent.rotate(SERVER)).rejects.toMatchObject({ code: 'attester_refused' });
    expect(rules(world.events)).toEqual(['TPM attestation 2']);
    expect(await world.attester.instances()).toEqual([]);
  });

  test('a TPM without an EK certificate enrols where its EK is allowed, and only there', async () => {
    const tpm = await newTpm();
    const uncertified = (keys: KeyProvider): KeyProvider => ({
      ...keys,
      tpm: {
        ...keys.tpm!,
        endorsementKey: async () => ({ ...(await keys.tpm!.endorsementKey()), certificate: undefined }),
      },
    });
    const strict = await startAttester(tpm);
    const { agent, keys } = await startAgent(strict, tpm, { change: uncertified });
    await expect(agent.rotate(SERVER)).rejects.toMatchObject({ code: 'attester_refused' });
    expect(rules(strict.events)).toEqual(['TPM attestation 2']);
    const { publicArea } = await keys.tpm!.endorsementKey();
    const allowEk = [ekHash(parsePublic(publicArea).publicJwk!)];
    const listed = await startAttester(undefined, { trust: { allowEk } });
    const { agent: allowed } = await startAgent(listed, tpm, { change: uncertified });
    await allowed.rotate(SERVER);
    expect((await listed.attester.instances())[0]!.device!.ek).toBe(allowEk[0]);
  });

  test('two agents on one TPM are two instances with one EK', async () => {
    const tpm = await newTpm();
    const world = await startAttester(tpm);
    const both = [await startAgent(world, tpm), await startAgent(world, tpm)];
    await Promise.all(both.map(({ agent }) => agent.rotate(SERVER)));
    const [one, two] = await world.attester.instances();
    expect(one!.device!.ek).toBe(two!.device!.ek);
    expect(one!.device!.ak).not.toBe(two!.device!.ak);
  });

  test('many servers at once: one enrolment, then one step each', async () => {
    const tpm = await newTpm();
    const world = await startAttester(tpm);
    const { agent, asked } = await startAgent(world, tpm);
    await Promise.all([1, 2, 3, 4].map((n) => agent.rotate(`https://mcp-${n}.example/`)));
    expect(asked.filter((path) => path === '/attestation')).toHaveLength(5);
    expect(await world.attester.instances()).toHaveLength(1);
    expect(rules(world.events)).toEqual([]);
  });

  test('a TPM whose state was put back to a snapshot is refused', async () => {
    const tpm = await newTpm();
    const world = await startAttester(tpm);
    const { directory, agent, close } = await startAgent(world, tpm);
    await agent.rotate(SERVER);
    await close();
    const state = join(tpm.directory, 'state');
    await tpm.kill();
    await cp(state, join(tpm.directory, 'snapshot'), { recursive: true });
    for (let i = 0; i < 2; i++) {
      await tpm.restart();
      const { agent: later, close: end } = await startAgent(world, tpm, { directory });
      await later.rotate(SERVER);
      await end();
    }
    const record = await world.attester.instances();
    await tpm.kill();
    await rm(state, { recursive: true });
    await cp(join(tpm.directory, 'snapshot'), state, { recursive: true });
    await tpm.restart();
    const { agent: back } = await startAgent(world, tpm, { directory });
    await expect(back.rotate(SERVER)).rejects.toMatchObject({ code: 'attester_refused' });
    expect(rules(world.events)).toEqual(['TPM attestation 9']);
    expect(await world.attester.instances()).toEqual(record);
  });

  test('quotes the PCRs asked for; a machine that was started otherwise is refused at its next renewal', async () => {
    const tpm = await newTpm();
    const expected = (await tpm.tools('tpm2_pcrread', 'sha256:16')).match(/0x([0-9A-F]{64})/)![1]!;
    const pinned = { evidence: ['tpm'], enrolment: { tokens: true }, pcrs: { sha256: { 16: expected } } };
    const world = await startAttester(tpm, {
      trust: { quote: { pcrs: { sha256: [0, 7, 16] } } },
      policy: { clients: { [CLIENT]: pinned } },
    });
    const { agent } = await startAgent(world, tpm);
    await agent.rotate(SERVER);
    await tpm.tools('tpm2_pcrextend', `16:sha256=${'11'.repeat(32)}`);
    await expect(agent.rotate(SERVER)).rejects.toMatchObject({ code: 'attester_refused' });
    expect(rules(world.events)).toEqual(['TPM attestation 8']);
  });

  test('tells an attester that believes no TPM nothing of its own, and says software', async () => {
    const tpm = await newTpm();
    const attester = selfAttester({ clientId: CLIENT, signer: newSigner() });
    let sent = '';
    let got = '';
    const watched = {
      issuer: attester.issuer,
      handler: async (request: Request) => {
        sent += await request.clone().text();
        const answer = await attester.handler(request);
        got = await answer.clone().text();
        return answer;
      },
    };
    const keys = await openKeys('tpm', { directory: await newPlace(), tpm: { tcti: tpm.tcti } });
    onTestFinished(() => keys.close());
    const agent = await createAgent({ clientId: CLIENT, keys, attester: watched });
    await agent.rotate(SERVER);
    expect(sent).not.toContain('"ek"');
    const { attestation } = JSON.parse(got) as { attestation: string };
    expect(decodeJwt(attestation)).toMatchObject({ key_storage: ['software'], key_evidence: 'self-asserted' });
    await agent.close();
  });

  test("evidence: 'software' keeps the TPM's identity from the attester; an instance that showed it cannot go back", async () => {
    const tpm = await newTpm();
    const either = { policy: { clients: { [CLIENT]: { enrolment: { tokens: true } } } } };
    const world = await startAttester(tpm, either);
    const shy = await startAgent(world, tpm, { evidence: 'software' });
    await shy.agent.rotate(SERVER);
    expect(decodeJwt(shy.attestation())).toMatchObject({ key_storage: ['software'] });
    expect((await world.attester.instances())[0]!.device).toBeUndefined();
    await shy.close();

    const open = await startAgent(world, tpm, { directory: shy.directory });
    await open.agent.rotate(SERVER);
    expect(decodeJwt(open.attestation())).toMatchObject({ key_storage: ['hardware'] });
    expect(await world.attester.instances()).toHaveLength(1);
    await open.close();

    const back = await startAgent(world, tpm, { directory: shy.directory, evidence: 'software' });
    await expect(back.agent.rotate(SERVER)).rejects.toMatchObject({ code: 'attester_refused' });
    expect(rules(world.events)).toEqual(['TPM attestation 9']);
  });
});
