/** Both halves of client attestation without HTTP headers, with both SDKs, and what the server half refuses. */
import { Client as ClientV2 } from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { InMemoryTransport as MemoryV1 } from '@modelcontextprotocol/sdk/inMemory.js';
import { InMemoryTransport as MemoryV2 } from '@modelcontextprotocol/server';
import { describe, expect, onTestFinished, test } from 'vitest';
import { joinAttestation } from '../../src/index.ts';
import {
  attestedTransport,
  type RequireAttestedTransportOptions,
  requireAttestedTransport,
  type TransportLike,
} from '../../src/mcp/index.ts';
import {
  createVerifier,
  jwks,
  memoryChallengeStore,
  sealedChallenges,
  storedChallenges,
} from '../../src/verifier/index.ts';
import { attesterSigner, newAgent, newAttester } from '../agent/support.ts';
import { calls, serverV1, serverV2 } from '../support/adapters.ts';
import { expectRefusal } from '../support/errors.ts';
import { newSigner } from '../support/tokens.ts';
import { CLIENT_ID, createWorld, type WorldOptions } from '../support/world.ts';

const SERVER = 'urn:example:weather';
const KEY = 'oauth-client-attestation';
const CHALLENGE = 'oauth-client-attestation-challenge';

interface Message {
  id?: number | string | null;
  method?: string;
  params?: Record<string, unknown> & { _meta?: Record<string, unknown> };
  result?: Record<string, unknown> & { _meta?: Record<string, unknown> };
  error?: { code: number; message: string; data?: Record<string, unknown> };
}

type Sdk = 'v1' | 'v2';

async function connect(
  sdk: Sdk,
  options: {
    server?: Partial<RequireAttestedTransportOptions>;
    verifier?: Partial<Parameters<typeof createVerifier>[0]>;
    frequency?: 'request' | 'session';
    agent?: Parameters<typeof newAgent>[0];
    bare?: boolean;
  } = {},
) {
  const { agent, clock, attester } = await newAgent(options.agent);
  const now = () => Date.now() + clock.offset;
  const verifier = createVerifier({
    role: 'rs',
    audience: SERVER,
    trust: jwks({ keys: [attesterSigner.publicJwk] }),
    policy: { concatenated: true },
    ...options.verifier,
    now,
  });
  const [near, far] = sdk === 'v1' ? MemoryV1.createLinkedPair() : MemoryV2.createLinkedPair();
  const wire: Message[] = [];
  const spied = near as unknown as { send(message: Message): Promise<void> };
  const send = spied.send.bind(near);
  spied.send = (message) => {
    wire.push(message);
    return send(message);
  };
  const refusals: string[] = [];
  const guarded = requireAttestedTransport(far as TransportLike, {
    verifier,
    onRefusal: ({ code }) => refusals.push(code),
    now,
    ...options.server,
  });
  const server = sdk === 'v1' ? serverV1() : serverV2();
  await server.connect(guarded as never);
  const client = sdk === 'v1' ? new ClientV1({ name: 'c', version: '1' }) : new ClientV2({ name: 'c', version: '1' });
  const wrapped = options.bare
    ? near
    : attestedTransport(near as TransportLike, agent, { server: SERVER, frequency: options.frequency ?? 'request' });
  await client.connect(wrapped as never);
  onTestFinished(() => client.close());
  calls.length = 0;
  const call = (name: string) =>
    client.callTool({ name, arguments: {} }) as Promise<{ content: { text: string }[]; isError?: boolean }>;
  return { agent, attester, clock, client, server, call, wire, refusals };
}

const proofsIn = (wire: readonly Message[]) =>
  wire.map(({ params }) => params?._meta?.[KEY]).filter((text) => text !== undefined);

describe.each(['v1', 'v2'] as const)('both halves, SDK %s', (sdk) => {
  test('CAT-1, CHA-3: the challenge of the first answer, a proof with each request, the caller in the tool', async () => {
    const { agent, client, call, wire, refusals } = await connect(sdk);
    const { content } = await call('whoami');
    const [identity] = agent.identities();
    expect(JSON.parse(content[0]?.text ?? '')).toMatchObject({
      client: agent.clientId,
      thumbprint: identity?.thumbprint,
    });
    expect(identity?.server).toBe(SERVER);
    await client.listTools();
    expect(refusals).toEqual([]);
    expect(wire[0]?.params?._meta?.[KEY]).toBeUndefined(); // initialize is how they meet
    const proofs = proofsIn(wire);
    expect(proofs.length).toBeGreaterThanOrEqual(2);
    expect(new Set(proofs).size).toBe(proofs.length);
  });

  test('POP-9: many requests at once, each with its own proof', async () => {
    const { call, refusals } = await connect(sdk);
    const answers = await Promise.all(Array.from({ length: 20 }, () => call('whoami')));
    expect(answers.every(({ isError }) => isError !== true)).toBe(true);
    expect(refusals).toEqual([]);
  });

  test('CHA-3, CHA-5: single-use challenges come with each answer', async () => {
    const challenges = storedChallenges(memoryChallengeStore());
    const { call, refusals } = await connect(sdk, { verifier: { challenges } });
    for (let i = 0; i < 3; i++) await call('whoami');
    expect(calls).toHaveLength(3);
    // the word `initialized` may have spent the first, and it gets no answer
    expect(refusals.length).toBeLessThanOrEqual(1);
  });

  test('ERR-4: a challenge that has become old: one refusal, one retry, and the client sees neither', async () => {
    const challenges = sealedChallenges({ ttl: 60 });
    const { call, refusals, clock } = await connect(sdk, { verifier: { challenges } });
    await call('whoami');
    clock.offset = 100_000;
    await call('whoami');
    expect(refusals).toEqual(['use_attestation_challenge']);
    expect(calls).toHaveLength(2);
  });

  test('ERR-4: an attestation too old for the server is renewed', async () => {
    const { call, refusals, clock, attester } = await connect(sdk, {
      agent: { lifetime: 7200 },
      verifier: { policy: { concatenated: true, maxAge: 60, challenge: 'off' } },
    });
    await call('whoami');
    const before = attester.seen.length;
    clock.offset = 200_000;
    await call('whoami');
    expect(refusals).toEqual(['use_fresh_attestation']);
    expect(attester.seen.length).toBeGreaterThan(before);
  });

  test('a client without attestation hears why, and nothing is done for it', async () => {
    const { call, client, refusals } = await connect(sdk, { bare: true });
    await expect(call('whoami')).rejects.toMatchObject({
      code: -32010,
      data: { error: 'use_attestation_challenge', [CHALLENGE]: expect.any(String) },
    });
    await expect(client.listTools()).rejects.toMatchObject({ code: -32010 });
    expect(calls).toEqual([]);
    expect(refusals.length).toBeGreaterThanOrEqual(2);
  });

  test('a server that refuses for good is asked twice, not for ever', async () => {
    const verifier = { trust: jwks({ keys: [newSigner().publicJwk] }) };
    const { call, wire } = await connect(sdk, { verifier });
    const before = wire.length;
    await expect(call('whoami')).rejects.toMatchObject({ data: { error: 'invalid_client_attestation' } });
    expect(wire.length).toBe(before + 1);
  });

  test('without an attestation to be had, requests fail and the connection lives', async () => {
    const attester = newAttester();
    attester.outage = () => new Response('', { status: 503 });
    const { call, clock } = await connect(sdk, { agent: { attester } });
    await expect(call('whoami')).rejects.toThrow();
    expect(calls).toEqual([]);
    attester.outage = undefined;
    clock.offset = 10_000; // the attester is left in peace for a while
    await call('whoami');
    expect(calls).toEqual(['whoami']);
  });

  test('session: one proof is good until its attestation ends', async () => {
    const { call, wire, clock, refusals } = await connect(sdk, {
      frequency: 'session',
      server: { frequency: 'session' },
      agent: { lifetime: 3600 },
    });
    for (let i = 0; i < 3; i++) await call('whoami');
    const proofs = proofsIn(wire).length;
    expect(proofs).toBeLessThanOrEqual(2); // with `initialized`, and with the first request that left before an answer came
    expect(refusals).toEqual([]);
    clock.offset = 3_700_000;
    await call('whoami');
    expect(proofsIn(wire).length).toBe(proofs + 1);
    expect(refusals).toEqual(['use_attestation_challenge']);
  });

  test('session on the client’s side only: refused and repeated, but never let in', async () => {
    const { call, wire } = await connect(sdk, { frequency: 'session' });
    for (let i = 0; i < 3; i++) await call('whoami');
    expect(calls).toHaveLength(3);
    expect(proofsIn(wire).length).toBeGreaterThanOrEqual(3);
  });

  test('demands of tools hold here too', async () => {
    const { call, client } = await connect(sdk, { server: { tools: { deploy: { keyStorage: 'hardware' } } } });
    await expect(call('deploy')).rejects.toMatchObject({ data: { error: 'access_denied' } });
    await call('other');
    expect(await call('guarded')).toMatchObject({ isError: true });
    await client.listTools();
    expect(calls).toEqual(['other']);
  });

  test('a key that was rotated: the connection stays with the instance that began it', async () => {
    const { call, agent } = await connect(sdk);
    const first = await call('whoami');
    await agent.rotate(SERVER);
    expect(await call('whoami')).toEqual(first);
  });
});

test('SDK v2 without initialize (2026-07-28): the challenge comes with server/discover', async () => {
  const { serveStdio } = await import('@modelcontextprotocol/server/stdio');
  const { agent } = await newAgent();
  const verifier = createVerifier({
    role: 'rs',
    audience: SERVER,
    trust: jwks({ keys: [attesterSigner.publicJwk] }),
    policy: { concatenated: true },
  });
  const [near, far] = MemoryV2.createLinkedPair();
  const refusals: unknown[] = [];
  const onRefusal = (error: unknown) => refusals.push(error);
  const transport = requireAttestedTransport(far as TransportLike, { verifier, onRefusal });
  const handle = serveStdio(serverV2, { transport: transport as never });
  const client = new ClientV2({ name: 'c', version: '1' }, { versionNegotiation: { mode: 'auto' } } as never);
  const methods: string[] = [];
  const wrapped = attestedTransport(near as TransportLike, agent, { server: SERVER });
  const send = (near as unknown as { send(message: Message): Promise<void> }).send.bind(near);
  (near as unknown as { send(message: Message): Promise<void> }).send = (message) => {
    methods.push(message.method ?? '');
    return send(message);
  };
  await client.connect(wrapped as never);
  onTestFinished(async () => {
    await client.close();
    await handle.close();
  });
  const { content } = (await client.callTool({ name: 'whoami', arguments: {} })) as { content: { text: string }[] };
  expect(JSON.parse(content[0]?.text ?? '')).toMatchObject({ thumbprint: agent.identities()[0]?.thumbprint });
  expect(methods[0]).toBe('server/discover');
  expect(methods).not.toContain('initialize');
  expect(refusals).toEqual([]);
});

/** The server half alone, with messages made by hand. */
function half(options: Partial<RequireAttestedTransportOptions> = {}, worldOptions: WorldOptions = {}) {
  const world = createWorld({ role: 'rs', audience: SERVER, policy: { concatenated: true }, ...worldOptions });
  const sent: Message[] = [];
  const errors: unknown[] = [];
  const raw = {
    start: async () => undefined,
    close: async () => undefined,
    send: async (message: Message) => void sent.push(message),
    onmessage: undefined as ((message: unknown, extra?: unknown) => void) | undefined,
    onerror: (error: unknown) => void errors.push(error),
  };
  const guarded = requireAttestedTransport(raw as never, {
    verifier: world.verifier,
    now: () => world.clock.now,
    ...options,
  }) as unknown as typeof raw;
  const delivered: { message: Message; extra: { authInfo?: { clientId: string; token: string } } }[] = [];
  guarded.onmessage = (message, extra) => void delivered.push({ message: message as Message, extra: extra as never });
  /** Gives one message and waits until it was dealt with. */
  const give = async (message: unknown, extra?: unknown): Promise<void> => {
    const settled = sent.length + delivered.length;
    raw.onmessage?.(message, extra);
    for (let i = 0; i < 50 && settled === sent.length + delivered.length; i++) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  const proof = async (changes: { attestation?: string; pop?: string } = {}) =>
    joinAttestation(changes.attestation ?? (await world.attestation()), changes.pop ?? (await world.pop()));
  return { world, raw, guarded, sent, errors, delivered, give, proof };
}

const asking = (meta: unknown, more: object = {}) => ({
  jsonrpc: '2.0',
  id: 7,
  method: 'tools/list',
  params: { _meta: { [KEY]: meta, progressToken: 1 } },
  ...more,
});

describe('the server half refuses', () => {
  test.each<[string, (h: ReturnType<typeof half>) => Promise<unknown> | unknown, string]>([
    ['a request without a proof', () => ({ jsonrpc: '2.0', id: 7, method: 'tools/list' }), 'use_attestation_challenge'],
    ['a `_meta` that is no object', () => asking('x', { params: { _meta: 'x' } }), 'use_attestation_challenge'],
    ['params that are a list', () => asking('x', { params: [{ _meta: {} }] }), 'use_attestation_challenge'],
    ['an empty proof', () => asking(''), 'invalid_client_attestation'],
    ['a proof that is no text', () => asking({}), 'invalid_client_attestation'],
    ['a proof that is a list', async (h) => asking([await h.proof()]), 'invalid_client_attestation'],
    ['an attestation without a PoP', async (h) => asking(await h.world.attestation()), 'invalid_client_attestation'],
    ['two PoPs', async (h) => asking(`${await h.proof()}~${await h.world.pop()}`), 'invalid_client_attestation'],
    ['white space', async (h) => asking(` ${await h.proof()}`), 'invalid_client_attestation'],
    ['100 kB', () => asking('a'.repeat(100_000)), 'invalid_client_attestation'],
    [
      'a proof for another server',
      async (h) => asking(await h.proof({ pop: await h.world.pop({ payload: { aud: 'urn:example:other' } }) })),
      'invalid_client_attestation',
    ],
    [
      'a proof without a challenge',
      async (h) => asking(await h.proof({ pop: await h.world.pop({ payload: { challenge: undefined } }) })),
      'use_attestation_challenge',
    ],
    [
      'a PoP by another key',
      async (h) => asking(await h.proof({ pop: await h.world.pop({ signer: newSigner() }) })),
      'invalid_client_attestation',
    ],
    [
      'an attestation by a stranger',
      async (h) => asking(await h.proof({ attestation: await h.world.attestation({ signer: newSigner() }) })),
      'invalid_client_attestation',
    ],
    [
      'a request whose id is null',
      () => ({ jsonrpc: '2.0', id: null, method: 'tools/call' }),
      'use_attestation_challenge',
    ],
    [
      'the open methods in another case',
      () => ({ jsonrpc: '2.0', id: 7, method: 'Initialize' }),
      'use_attestation_challenge',
    ],
  ])('CAT-1, VER-1: %s', async (_name, make, code) => {
    const h = half();
    const message = await make(h);
    await h.give(message, { authInfo: { clientId: 'forged' } });
    expect(h.delivered).toEqual([]);
    const [answer] = h.sent;
    expect(answer).toMatchObject({ error: { code: -32010, data: { error: code, [CHALLENGE]: expect.any(String) } } });
    expect(answer?.id).toBe((message as Message).id);
    const text = JSON.stringify(answer);
    expect(text).not.toContain('eyJ');
    // an honest request gets in all the same
    await h.give(asking(await h.proof()));
    expect(h.delivered).toHaveLength(1);
  });

  test('POP-3: the same proof a second time', async () => {
    const h = half();
    const text = await h.proof();
    await h.give(asking(text));
    await h.give(asking(text));
    expect([h.delivered.length, h.sent[0]?.error?.data?.error]).toEqual([1, expect.any(String)]);
  });

  test('CHA-5: a proof that another server of the same name was given', async () => {
    const attester = newSigner('ES256', 'attester-1');
    const trust = jwks({ keys: [attester.publicJwk] });
    const [there, here] = [half({}, { attester, trust }), half({}, { attester, trust })];
    await here.give(asking(await there.proof()));
    expect(here.delivered).toEqual([]);
    expect(here.sent[0]?.error?.data?.error).toBe('use_attestation_challenge');
  });

  test.each(['request', 'session'] as const)(
    'BIND-1: the halves of two instances, put together; frequency %s',
    async (frequency) => {
      const attester = newSigner('ES256', 'attester-1');
      const trust = jwks({ keys: [attester.publicJwk] });
      const h = half({ frequency }, { attester, trust });
      const other = createWorld({ role: 'rs', audience: SERVER, attester });
      await h.give(asking(await h.proof({ attestation: await other.attestation() })));
      await h.give(asking(await h.proof({ pop: await h.world.attestation() })));
      expect([h.delivered.length, h.sent.length]).toEqual([0, 2]);
      await h.give(asking(await h.proof()));
      expect(h.delivered).toHaveLength(1);
      // a connection that has proved its owner is not taken over, nor given up, by somebody else's proof
      const pop = await other.pop({ payload: { challenge: await h.world.challenge() } });
      await h.give(asking(joinAttestation(await other.attestation(), pop)));
      expect([h.delivered.length, h.sent.length]).toEqual([1, 3]);
      await h.give(asking(await h.proof()));
      expect(h.delivered.map(({ extra }) => extra.authInfo?.clientId)).toEqual([CLIENT_ID, CLIENT_ID]);
    },
  );

  test('BIND-1: another instance on a connection that has an owner', async () => {
    const attester = newSigner('ES256', 'attester-1');
    const trust = jwks({ keys: [attester.publicJwk] });
    const h = half({}, { attester, trust });
    await h.give(asking(await h.proof()));
    const other = createWorld({ role: 'rs', audience: SERVER, attester });
    const pop = await other.pop({ payload: { challenge: await h.world.challenge() } });
    await h.give(asking(joinAttestation(await other.attestation(), pop)));
    expect(h.delivered).toHaveLength(1);
    expect(h.sent[0]?.error?.data?.error).toBe('invalid_client_attestation');
  });

  test('what needs no answer, before anybody is known; batches; what is no message', async () => {
    const h = half();
    const dropped = [
      { jsonrpc: '2.0', method: 'notifications/roots/list_changed' },
      { jsonrpc: '2.0', id: 3, result: { roots: [] } },
      [asking(await h.proof())],
      'text',
      null,
      7,
    ];
    for (const message of dropped) h.raw.onmessage?.(message);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([h.delivered, h.sent]).toEqual([[], []]);
    await h.give({ jsonrpc: '2.0', method: 'notifications/initialized' });
    expect(h.delivered).toHaveLength(1);
    await h.give(asking(await h.proof()));
    await h.give(dropped[0]);
    await h.give(dropped[1]);
    expect(h.delivered.map(({ message }) => message.method)).toEqual([
      'notifications/initialized',
      'tools/list',
      'notifications/roots/list_changed',
      undefined,
    ]);
  });

  test('a verifier that could not do it, at once', async () => {
    const wrong = [
      createWorld({ role: 'rs', audience: SERVER }),
      createWorld({ policy: { concatenated: true } }),
      createWorld({ role: 'rs', policy: { concatenated: true, popMethods: ['dpop_combined'] } }),
    ];
    for (const { verifier } of wrong) {
      const make = () => requireAttestedTransport({} as never, { verifier });
      await expectRefusal(async () => make(), { code: 'invalid_argument' });
    }
  });
});

describe('the server half passes on', () => {
  test('the request without its tokens, and its caller', async () => {
    const h = half();
    await h.give(asking(await h.proof()), { authInfo: { clientId: 'forged' }, other: 1 });
    expect(h.delivered[0]?.message).toMatchObject({
      id: 7,
      method: 'tools/list',
      params: { _meta: { progressToken: 1 } },
    });
    expect(JSON.stringify(h.delivered[0]?.message)).not.toContain('eyJ');
    expect(h.delivered[0]?.extra).toMatchObject({ other: 1, authInfo: { token: '', scopes: [] } });
    expect(h.delivered[0]?.extra.authInfo?.clientId).not.toBe('forged');
  });

  test('initialize: no word of a caller; its answer carries a challenge, beside what else is in its `_meta`', async () => {
    const h = half();
    await h.give({ jsonrpc: '2.0', id: 1, method: 'initialize', params: {} }, { authInfo: { clientId: 'forged' } });
    expect(h.delivered[0]?.extra).toEqual({});
    await h.guarded.send({ id: 1, result: { capabilities: {}, _meta: { mine: 1 } } } as Message);
    expect(h.sent[0]?.result).toMatchObject({ capabilities: {}, _meta: { mine: 1, [CHALLENGE]: expect.any(String) } });
  });

  test('messages in their order, however long a proof takes to judge', async () => {
    let slow = true;
    const h = half(
      {},
      {
        challenges: {
          issue: async () => 'c',
          check: async () => {
            if (slow) await new Promise((resolve) => setTimeout(resolve, 30));
            slow = false;
            return 'good' as const;
          },
        },
      },
    );
    const [first, second] = [await h.proof(), await h.proof()];
    h.raw.onmessage?.(asking(first, { id: 1 }));
    h.raw.onmessage?.(asking(second, { id: 2 }));
    h.raw.onmessage?.({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } });
    await new Promise((resolve) => setTimeout(resolve, 120));
    expect(h.delivered.map(({ message }) => message.id)).toEqual([1, 2, undefined]);
  });

  test('a handler that throws is an error of the transport’s user, and nothing goes out for it', async () => {
    const h = half();
    h.guarded.onmessage = () => {
      throw new Error('of the handler');
    };
    await h.give(asking(await h.proof()));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect([h.sent, h.errors]).toEqual([[], [expect.objectContaining({ message: 'of the handler' })]]);
  });
});
