import type { ServerResponse } from 'node:http';
import { createDeflate, deflateSync } from 'node:zlib';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { jwks, remoteJwks, type StatusOptions } from '../../src/verifier/index.ts';
import { drip, flood, sendJson, startServer, type TestServer } from '../support/http.ts';
import { forge, newSigner } from '../support/tokens.ts';
import { CLIENT_ID, createWorld, expectRefused, type World, type WorldOptions } from '../support/world.ts';

const open: TestServer[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()));
});

const attester = newSigner('ES256', 'one');
const RULE = 'Token Status List §8.3';
const unavailable = { code: 'temporarily_unavailable', rule: RULE } as const;
const refused = { code: 'invalid_client_attestation', rule: RULE } as const;

interface Setting {
  world: World;
  server: TestServer;
  uri: string;
  /** What the attester's server answers; may be replaced. */
  state: { answer: (response: ServerResponse) => void };
  list(changes?: ListChanges): Promise<string>;
  attestation(idx?: number): Promise<string>;
  verify(idx?: number): Promise<unknown>;
  expectRefused(expected: typeof unavailable | typeof refused, idx?: number): Promise<void>;
}

interface ListChanges {
  bytes?: Uint8Array;
  lst?: string;
  bits?: number;
  header?: object;
  payload?: object;
  signer?: Parameters<typeof forge>[0]['signer'];
}

/** An attester whose list revokes index 1 and suspends index 3 (two bits per entry). */
async function setUp(options: StatusOptions & { world?: WorldOptions } = {}): Promise<Setting> {
  const { world: worldOptions, ...status } = options;
  const state: Setting['state'] = { answer: () => undefined };
  const server = await startServer((_, response) => state.answer(response));
  open.push(server);
  const uri = `${server.origin}/status/1`;
  const trust = jwks({ keys: [attester.publicJwk], statusOrigins: [server.origin] });
  const world = createWorld({ attester, trust, status: { timeout: 300, ...status }, ...worldOptions });
  const setting: Setting = {
    world,
    server,
    uri,
    state,
    list: ({ bytes = Buffer.from([0b10_00_01_00]), lst, bits = 2, header, payload, signer = attester } = {}) =>
      forge({
        header: { typ: 'statuslist+jwt', alg: 'ES256', kid: 'one', ...header },
        payload: {
          sub: uri,
          iat: world.seconds(),
          exp: world.seconds() + 3600,
          ttl: 60,
          status_list: { bits, lst: lst ?? deflateSync(bytes).toString('base64url') },
          ...payload,
        },
        signer,
      }),
    attestation: (idx = 0) => world.attestation({ payload: { status: { status_list: { uri, idx } } } }),
    verify: async (idx = 0) => world.verify(await world.sent({ attestation: await setting.attestation(idx) })),
    expectRefused: async (expected, idx = 0) => {
      await expectRefused(world, await world.sent({ attestation: await setting.attestation(idx) }), expected);
    },
  };
  return setting;
}

const answer =
  (token: string | Uint8Array, type = 'application/statuslist+jwt') =>
  (response: ServerResponse) =>
    sendJson(response, token, type);

describe('revocation', () => {
  it('VER-5: an entry of zero is valid; revoked, suspended and unlisted ones are refused', async () => {
    const s = await setUp();
    s.state.answer = answer(await s.list());
    await expect(s.verify(0)).resolves.toMatchObject({ clientId: CLIENT_ID, status: 'valid' });
    await expect(s.verify(2)).resolves.toMatchObject({ status: 'valid' });
    for (const idx of [1, 3, 4, 1000]) await s.expectRefused(refused, idx);
    expect(s.server.seen).toEqual(['/status/1']);
  });

  it('VER-5: a policy that demands a status is met by one', async () => {
    const s = await setUp({ world: { policy: { require: { status: true } } } });
    s.state.answer = answer(await s.list());
    await expect(s.verify(0)).resolves.toMatchObject({ status: 'valid' });
  });

  it('VER-5: an attestation that is revoked after it was accepted is refused when the list is asked for again', async () => {
    const s = await setUp();
    s.state.answer = answer(await s.list({ bytes: Buffer.from([0]) }));
    const attestation = await s.attestation(1);
    await s.world.verify(await s.world.sent({ attestation }));
    s.state.answer = answer(await s.list());
    await s.world.verify(await s.world.sent({ attestation })); // the old list is still good for its ttl of a minute
    s.world.clock.now += 61_000;
    await expectRefused(s.world, await s.world.sent({ attestation }), refused);
  });

  it.each([1, 2, 4, 8] as const)('VER-5: lists of %i bits per entry are read', async (bits) => {
    const s = await setUp();
    const bytes = Buffer.alloc(4);
    const at = 8 / bits; // the first entry of the second byte
    bytes[1] = 1;
    s.state.answer = answer(await s.list({ bits, bytes }));
    await s.verify(0);
    await s.verify(at + 1);
    await s.expectRefused(refused, at);
  });
});

describe('lists that cannot be had', () => {
  const written = { bytes: 0 };
  const faults: { name: string; answer: (response: ServerResponse, list: string) => void }[] = [
    { name: 'no answer', answer: () => undefined },
    { name: 'an aborted connection', answer: (r) => void r.destroy() },
    { name: 'status 503', answer: (r, list) => sendJson(r, list, 'application/statuslist+jwt', 503) },
    { name: 'status 404', answer: (r, list) => sendJson(r, list, 'application/statuslist+jwt', 404) },
    { name: 'a redirect', answer: (r) => void r.writeHead(307, { location: 'http://127.0.0.1:1/' }).end() },
    { name: 'another content type', answer: (r, list) => sendJson(r, list, 'text/plain') },
    { name: 'no content type', answer: (r, list) => void r.end(list) },
    {
      name: 'a body of 100 MB',
      answer: (r) => flood(r.writeHead(200, { 'content-type': 'application/statuslist+jwt' }), 100e6, written),
    },
    { name: 'a slow drip', answer: (r) => drip(r.writeHead(200, { 'content-type': 'application/statuslist+jwt' })) },
    {
      name: 'bytes that are not UTF-8',
      answer: (r) => sendJson(r, Buffer.from([0xff, 0xfe]), 'application/statuslist+jwt'),
    },
  ];
  it.each(faults)('VER-5: $name refuses the request for now', async ({ answer: fault }) => {
    const s = await setUp();
    const list = await s.list();
    s.state.answer = (response) => fault(response, list);
    const startedAt = performance.now();
    await s.expectRefused(unavailable);
    expect(performance.now() - startedAt).toBeLessThan(3000);
    s.state.answer = answer(list);
    await expect(s.verify()).resolves.toMatchObject({ status: 'valid' });
  });

  it('VER-5: the last list serves on while it is valid, without a wait for every request', async () => {
    const s = await setUp();
    s.state.answer = answer(await s.list());
    await s.verify();
    s.state.answer = () => undefined; // hangs from now on
    s.world.clock.now += 61_000;
    await s.verify(); // waits once for the time-out
    const startedAt = performance.now();
    for (let i = 0; i < 5; i++) await s.verify();
    expect(performance.now() - startedAt).toBeLessThan(250);
    await s.expectRefused(refused, 1);
    expect(s.server.seen).toHaveLength(2);
    s.world.clock.now += 3600_000;
    await s.expectRefused(unavailable);
  });

  it('VER-5: many requests at the same time fetch once', async () => {
    const s = await setUp();
    s.state.answer = answer(await s.list());
    await Promise.all(Array.from({ length: 20 }, () => s.verify()));
    expect(s.server.seen).toHaveLength(1);
  });

  it('VER-5: the list may be signed with another key of the attester, as after a key roll-over', async () => {
    const next = newSigner('ES256', 'two');
    const s = await setUp();
    const trust = jwks({ keys: [attester.publicJwk, next.publicJwk], statusOrigins: [s.server.origin] });
    const world = createWorld({ attester, trust });
    s.state.answer = answer(await s.list({ header: { kid: 'two' }, signer: next }));
    const attestation = await world.attestation({ payload: { status: { status_list: { uri: s.uri, idx: 0 } } } });
    await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ status: 'valid' });
  });

  it('VER-5: a clock that was set back does not keep an old list in use', async () => {
    const s = await setUp();
    s.state.answer = answer(await s.list());
    await s.verify();
    s.world.clock.now -= 86_400_000;
    s.state.answer = answer(await s.list());
    await s.verify();
    expect(s.server.seen).toHaveLength(2);
  });

  it('VER-3, VER-5: another attester that is down does not keep this list from being verified', async () => {
    const s = await setUp();
    s.state.answer = answer(await s.list());
    const down = await startServer(() => undefined);
    open.push(down);
    const trust = [
      remoteJwks(`${down.origin}/jwks.json`, { timeout: 50 }),
      jwks({ keys: [attester.publicJwk], statusOrigins: [s.server.origin] }),
    ];
    const world = createWorld({ attester, trust });
    const attestation = await world.attestation({ payload: { status: { status_list: { uri: s.uri, idx: 0 } } } });
    await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ status: 'valid' });
  });
});

describe('lists that are refused', () => {
  const stranger = newSigner();
  let halfGigabyte: Buffer;
  /** So many zeros, deflated in pieces: about a thousandth of them is left. */
  async function zeros(bytes: number): Promise<Buffer> {
    const deflate = createDeflate({ level: 9 });
    const chunks: Buffer[] = [];
    deflate.on('data', (chunk: Buffer) => chunks.push(chunk));
    const chunk = Buffer.alloc(16 * 1024 * 1024);
    for (let left = bytes; left > 0; left -= chunk.length) {
      if (!deflate.write(chunk)) await new Promise((resolve) => deflate.once('drain', resolve));
    }
    await new Promise<void>((resolve) => {
      deflate.once('end', resolve);
      deflate.end();
    });
    return Buffer.concat(chunks);
  }
  beforeAll(async () => {
    halfGigabyte = await zeros(512 * 1024 * 1024);
  });

  const lists: { name: string; changes: (s: Setting) => ListChanges; rule?: string }[] = [
    { name: 'signed by a stranger', changes: () => ({ signer: stranger }) },
    {
      name: 'signed by a stranger who brings the key',
      changes: () => ({ signer: stranger, header: { jwk: stranger.publicJwk } }),
    },
    {
      name: 'not signed',
      changes: () => ({ signer: undefined, header: { alg: 'none' } }),
      rule: 'Token Status List §5.1',
    },
    { name: 'of another URI', changes: (s) => ({ payload: { sub: `${s.uri}0` } }) },
    { name: 'that has expired', changes: (s) => ({ payload: { exp: s.world.seconds() } }) },
    { name: 'from the future', changes: (s) => ({ payload: { iat: s.world.seconds() + 61 } }) },
    {
      name: 'that is a Client Attestation',
      changes: () => ({ header: { typ: 'oauth-client-attestation+jwt' } }),
      rule: 'Token Status List §5.1',
    },
    {
      name: 'without a list',
      changes: () => ({ payload: { status_list: undefined } }),
      rule: 'Token Status List §5.1',
    },
    { name: 'of three bits', changes: () => ({ bits: 3 }), rule: 'Token Status List §5.1' },
    { name: 'that is not compressed', changes: () => ({ lst: 'AAAA' }) },
    {
      name: 'that is cut off',
      changes: () => ({ lst: deflateSync(Buffer.alloc(1000, 7)).subarray(0, 8).toString('base64url') }),
    },
    { name: 'that is padded', changes: () => ({ lst: 'eJxjAAAAAQAB==' }), rule: 'Token Status List §5.1' },
    {
      name: 'with a ttl that is no number',
      changes: () => ({ payload: { ttl: '60' } }),
      rule: 'Token Status List §5.1',
    },
    { name: 'that is a decompression bomb', changes: () => ({ lst: halfGigabyte.toString('base64url') }) },
  ];
  it.each(lists)('VER-5: a list $name', async ({ changes, rule = RULE }) => {
    const s = await setUp();
    s.state.answer = answer(await s.list(changes(s)));
    const before = process.memoryUsage().rss;
    await expectRefused(s.world, await s.world.sent({ attestation: await s.attestation() }), {
      code: 'invalid_client_attestation',
      rule,
    });
    expect(process.memoryUsage().rss - before).toBeLessThan(200e6);
  });

  it('VER-5: a bomb of 4 GB does not even get past the size of the answer', async () => {
    const s = await setUp();
    s.state.answer = answer(await s.list({ lst: Buffer.concat(Array(8).fill(halfGigabyte)).toString('base64url') }));
    await s.expectRefused(unavailable);
  });

  it('VER-5: garbage in place of a token', async () => {
    const s = await setUp();
    s.state.answer = answer('garbage');
    await expectRefused(s.world, await s.world.sent({ attestation: await s.attestation() }), {
      code: 'invalid_client_attestation',
      rule: 'Token Status List §5.1',
    });
  });
});

describe('where lists come from', () => {
  it('VER-5: another origin than the configured one is never asked, and the result says so', async () => {
    const s = await setUp();
    const elsewhere = await startServer((_, response) => response.end());
    open.push(elsewhere);
    for (const uri of [
      `${elsewhere.origin}/status/1`,
      'http://169.254.169.254/latest',
      `${s.server.origin}@attacker.example/`,
      'status/1',
      'data:,x',
      'file:///etc/passwd',
    ]) {
      const attestation = await s.world.attestation({ payload: { status: { status_list: { uri, idx: 0 } } } });
      await expect(s.world.verify(await s.world.sent({ attestation }))).resolves.toMatchObject({ status: 'unchecked' });
    }
    expect([...elsewhere.seen, ...s.server.seen]).toEqual([]);
  });

  it('VER-5: and a policy that demands a status then refuses', async () => {
    const s = await setUp({ world: { policy: { require: { status: true } } } });
    const uri = 'https://elsewhere.example/1';
    const attestation = await s.world.attestation({ payload: { status: { status_list: { uri, idx: 0 } } } });
    await expectRefused(s.world, await s.world.sent({ attestation }), {
      code: 'invalid_client_attestation',
      rule: 'VER-5',
    });
  });

  it('VER-5: the list of one attester does not speak for another at the same URI', async () => {
    const s = await setUp();
    const second = newSigner('ES256', 'second');
    const trust = [attester, second].map((signer) =>
      jwks({ keys: [signer.publicJwk], attester: signer.publicJwk.kid as string, statusOrigins: [s.server.origin] }),
    );
    const world = createWorld({ attester, trust });
    s.state.answer = answer(await s.list());
    const payload = { status: { status_list: { uri: s.uri, idx: 0 } } };
    await world.verify(await world.sent({ attestation: await world.attestation({ payload }) }));
    const attestation = await world.attestation({ payload, header: { kid: 'second' }, signer: second });
    await expectRefused(world, await world.sent({ attestation }), refused);
  });
});
