import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { redisReplay, sealedChallenges } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { type RedisServer, skipRedis, startRedis } from '../support/redis.ts';
import { newSigner } from '../support/tokens.ts';
import { createWorld, expectRefused } from '../support/world.ts';

const NOW = Math.floor(Date.now() / 1000);
const proof = (jti: string, instance = 'pop key-1') => ({
  instance,
  jti,
  createdAt: NOW,
  expiresAt: NOW + 330,
  now: NOW,
});
const unavailable = { code: 'temporarily_unavailable', rule: 'VER-8' } as const;

describe.skipIf(skipRedis)('redisReplay with a real server', () => {
  let server: RedisServer;
  const clients: Redis[] = [];
  const newClient = (socket = server.socket, options = {}): Redis => {
    const client = new Redis(socket, options);
    client.on('error', () => undefined); // the tests end the server
    clients.push(client);
    return client;
  };
  beforeAll(async () => {
    server = await startRedis();
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.disconnect();
  });
  afterAll(() => server.stop());

  it('VER-8: accepts a proof once, for the whole cluster', async () => {
    const [one, two] = [redisReplay(newClient()), redisReplay(newClient())];
    expect(await one.claim(proof('a'))).toBe(true);
    expect(await two.claim(proof('a'))).toBe(false);
    expect(await one.claim(proof('a'))).toBe(false);
    expect(await two.claim(proof('a', 'pop key-2'))).toBe(true);
    expect(await two.claim(proof('a', 'dpop key-1'))).toBe(true);
  });

  it('VER-8: of two nodes that race on one jti exactly one wins, a hundred times', async () => {
    const nodes = [redisReplay(newClient()), redisReplay(newClient())];
    for (let round = 0; round < 100; round++) {
      const won = await Promise.all(
        nodes.flatMap((node) => [node.claim(proof(`race ${round}`)), node.claim(proof(`race ${round}`))]),
      );
      expect(won.filter((one) => one)).toHaveLength(1);
    }
  });

  it('VER-8: two verifiers that share it accept one PoP once', async () => {
    const shared = {
      challenges: sealedChallenges(),
      attester: newSigner(),
      instance: newSigner(),
      startAt: Date.now(),
    };
    const worlds = [newClient(), newClient()].map((client) => createWorld({ ...shared, replay: redisReplay(client) }));
    const [one] = worlds;
    const sent = await one!.sent();
    const results = await Promise.allSettled(
      worlds.flatMap((world) => Array.from({ length: 10 }, () => world.verify(sent))),
    );
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('IMPL-4: an entry is kept for the window and little longer, and the key shows neither jti nor instance', async () => {
    const client = newClient();
    const replay = redisReplay(client, { prefix: 'window:' });
    await replay.claim(proof('a very secret jti'));
    const keys = await client.keys('window:*');
    expect(keys).toHaveLength(1);
    expect(keys[0]).not.toContain('secret');
    const left = await client.pttl(keys[0] as string);
    expect(left).toBeGreaterThan(359_000);
    expect(left).toBeLessThanOrEqual(360_000);
  });

  it('IMPL-4: an entry is forgotten when its window has passed', async () => {
    const replay = redisReplay(newClient());
    const short = { ...proof('short'), expiresAt: NOW - 29 };
    expect(await replay.claim(short)).toBe(true);
    expect(await replay.claim(short)).toBe(false);
    await new Promise((resolve) => setTimeout(resolve, 1100));
    expect(await replay.claim(short)).toBe(true);
  });

  it('VER-8: a server that is full refuses, and so the request is refused', async () => {
    const small = await startRedis(['--maxmemory', '1']);
    try {
      await expectRefusal(() => redisReplay(newClient(small.socket)).claim(proof('a')), unavailable);
    } finally {
      await small.stop();
    }
  });

  it('VER-8: a slow server refuses in time, and what it does later hurts nobody', async () => {
    const admin = newClient();
    const replay = redisReplay(newClient(), { timeout: 100 });
    expect(await replay.claim(proof('before'))).toBe(true);
    await admin.call('CLIENT', 'PAUSE', '600', 'WRITE');
    const startedAt = performance.now();
    await expectRefusal(() => replay.claim(proof('slow')), unavailable);
    expect(performance.now() - startedAt).toBeLessThan(500);
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(await replay.claim(proof('after'))).toBe(true);
  });

  it('VER-8: a server that dies refuses requests, and with it back they are served again', async () => {
    const mortal = await startRedis();
    const world = createWorld({
      challenges: sealedChallenges(),
      startAt: Date.now(),
      replay: redisReplay(newClient(mortal.socket), { timeout: 200 }),
    });
    await world.verify(await world.sent());
    await mortal.kill();
    const startedAt = performance.now();
    await expectRefused(world, await world.sent(), unavailable);
    await expectRefused(world, await world.sent(), unavailable);
    expect(performance.now() - startedAt).toBeLessThan(2000);
    await mortal.stop();
  });

  it('VER-8: a client without an offline queue is refused as well', async () => {
    const client = newClient('/nonexistent/redis.sock', { enableOfflineQueue: false, lazyConnect: true });
    await expectRefusal(() => redisReplay(client, { timeout: 200 }).claim(proof('a')), unavailable);
  });
});

describe('redisReplay with clients that misbehave', () => {
  it.each([
    [
      'throws',
      () => {
        throw new TypeError('closed');
      },
    ],
    ['rejects', () => Promise.reject(new Error('closed'))],
    ['never answers', () => new Promise(() => undefined)],
  ])('VER-8: a client that %s is a refusal', async (_, set) => {
    await expectRefusal(() => redisReplay({ set: set as never }, { timeout: 50 }).claim(proof('a')), unavailable);
  });
  it.each([[null], [undefined], ['QUEUED'], [1], [true], [{}]])(
    'VER-8: the answer %o is not taken for a win',
    async (answer) => {
      expect(await redisReplay({ set: async () => answer }).claim(proof('a'))).toBe(false);
    },
  );
  it('VER-8: a node whose clock is ahead remembers for the nodes whose clocks are not', async () => {
    let kept = 0;
    const client = {
      isOpen: true,
      set: async (_key: string, _value: string, { PX }: { PX: number }) => {
        kept = PX;
        return 'OK';
      },
    };
    await redisReplay(client as never).claim({ ...proof('a'), now: NOW + 29 });
    expect(NOW + kept / 1000).toBeGreaterThan(proof('a').expiresAt);
  });
  it('VER-8: a client of node-redis gets its options as an object', async () => {
    const calls: unknown[][] = [];
    const client = { isOpen: true, set: async (...args: unknown[]) => (calls.push(args) > 0 ? 'OK' : null) };
    expect(await redisReplay(client as never).claim(proof('a'))).toBe(true);
    expect(calls[0]?.slice(1)).toEqual(['1', { NX: true, PX: 360_000 }]);
  });
});
