import type { ServerResponse } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
import type { Signer } from '../../../src/core/signer.ts';
import { jku, jwks, type RemoteJwksOptions, remoteJwks } from '../../../src/verifier/index.ts';
import { expectRefusal } from '../../support/errors.ts';
import { drip, flood, forbiddenFetch, sendJson, startServer, type TestServer } from '../../support/http.ts';
import { newSigner } from '../../support/tokens.ts';
import { CLIENT_ID, createWorld, expectRefused, type World } from '../../support/world.ts';

const open: TestServer[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close()));
});

const attester = newSigner('ES256', 'one');
const next = newSigner('ES256', 'two');

/** An attester whose answer the test decides, and a verifier that trusts its URL. */
async function setUp(answer: (response: ServerResponse) => void, options: RemoteJwksOptions = {}) {
  const state = { answer };
  const server = await startServer((_, response) => state.answer(response));
  open.push(server);
  const url = `${server.origin}/jwks.json`;
  const world = createWorld({ attester, trust: remoteJwks(url, { timeout: 300, ...options }) });
  return { state, server, url, world };
}
const keysOf = (...signers: Signer[]) => ({ keys: signers.map(({ publicJwk }) => publicJwk) });
const serve =
  (...signers: Signer[]) =>
  (response: ServerResponse) =>
    sendJson(response, keysOf(...signers));
const by = async (world: World, signer: Signer) =>
  world.sent({ attestation: await world.attestation({ signer, header: { kid: signer.publicJwk.kid } }) });
const accepts = async (world: World, signer: Signer) =>
  expect(world.verify(await by(world, signer))).resolves.toMatchObject({ clientId: CLIENT_ID });
const unavailable = { code: 'temporarily_unavailable', rule: 'IMPL-5' } as const;
const untrusted = { code: 'invalid_client_attestation', rule: 'VER-3' } as const;

describe('keys at a URL', () => {
  it('IMPL-5: are fetched when first needed, once for many requests at the same time', async () => {
    const { world, server, url } = await setUp(serve(attester));
    expect(server.seen).toEqual([]);
    const sent = await Promise.all(Array.from({ length: 20 }, () => world.sent()));
    const clients = await Promise.all(sent.map((one) => world.verify(one)));
    expect(new Set(clients.map(({ attester }) => attester))).toEqual(new Set([url]));
    expect(server.seen).toEqual(['/jwks.json']);
  });

  it('IMPL-5: roll over: an unknown kid causes a new fetch, and everybody who comes meanwhile waits for it', async () => {
    const { world, server, state } = await setUp(serve(attester));
    await accepts(world, attester);
    state.answer = (response) => void setTimeout(() => serve(attester, next)(response), 50);
    world.clock.now += 31_000;
    const sent = await Promise.all(Array.from({ length: 5 }, () => by(world, next)));
    const results = await Promise.allSettled(sent.map((one) => world.verify(one)));
    expect(results.map(({ status }) => status)).toEqual(Array(5).fill('fulfilled'));
    expect(server.seen).toHaveLength(2);
  });

  it('IMPL-5: forged kids cannot make the verifier hammer the attester', async () => {
    const { world, server } = await setUp(serve(attester));
    await accepts(world, attester);
    for (let i = 0; i < 20; i++) {
      const attestation = await world.attestation({ signer: next, header: { kid: `forged ${i}` } });
      await expectRefused(world, await world.sent({ attestation }), untrusted);
      world.clock.now += 1000;
    }
    expect(server.seen).toHaveLength(1);
    world.clock.now += 20_000;
    for (let i = 0; i < 5; i++) await expectRefused(world, await by(world, next), untrusted);
    expect(server.seen).toHaveLength(2);
  });

  it('IMPL-5: a key that the set has lost stops counting with the next fetch, also for attestations seen before', async () => {
    const { world, state } = await setUp(serve(attester));
    const attestation = await world.attestation();
    await world.verify(await world.sent({ attestation }));
    state.answer = serve(next);
    world.clock.now += 31_000;
    await world.verify(await world.sent({ attestation })); // nothing has asked yet
    await accepts(world, next); // this fetches
    await expectRefused(world, await world.sent({ attestation }), untrusted);
  });

  it('IMPL-5: a set is asked for again when its time is over', async () => {
    const { world, server, state } = await setUp(serve(attester), { cacheFor: 60 });
    await accepts(world, attester);
    state.answer = serve(next);
    world.clock.now += 60_000;
    await expectRefused(world, await by(world, attester), untrusted);
    expect(server.seen).toHaveLength(2);
  });

  it('IMPL-5: an attester that is down stops nobody for a while, and then everybody', async () => {
    const { world, server, state } = await setUp(serve(attester), { cacheFor: 60, coolDown: 10, staleFor: 300 });
    await accepts(world, attester);
    state.answer = (response) => sendJson(response, { error: 'down' }, 'application/json', 503);
    world.clock.now += 100_000;
    await accepts(world, attester);
    await accepts(world, attester);
    expect(server.seen).toHaveLength(2);
    world.clock.now += 300_000;
    await expectRefused(world, await by(world, attester), unavailable);
    state.answer = serve(attester);
    world.clock.now += 11_000;
    await accepts(world, attester);
  });

  it('IMPL-5: a clock that goes back causes a fetch, not a wait', async () => {
    const { world, server } = await setUp(serve(attester));
    await accepts(world, attester);
    world.clock.now -= 3600_000;
    await accepts(world, attester);
    expect(server.seen).toHaveLength(2);
  });

  const written = { bytes: 0 };
  const faults: { name: string; answer: (response: ServerResponse) => void }[] = [
    { name: 'no answer at all', answer: () => undefined },
    { name: 'status 500', answer: (r) => sendJson(r, keysOf(attester), 'application/json', 500) },
    { name: 'status 404', answer: (r) => sendJson(r, keysOf(attester), 'application/json', 404) },
    { name: 'status 201', answer: (r) => sendJson(r, keysOf(attester), 'application/json', 201) },
    { name: 'a redirect', answer: (r) => void r.writeHead(302, { location: '/elsewhere' }).end() },
    { name: 'a wrong content type', answer: (r) => sendJson(r, keysOf(attester), 'text/html') },
    {
      name: 'a body of 100 MB',
      answer: (r) => flood(r.writeHead(200, { 'content-type': 'application/json' }), 100e6, written),
    },
    { name: 'a slow drip', answer: (r) => drip(r.writeHead(200, { 'content-type': 'application/json' }), '{"keys":[') },
    { name: 'invalid JSON', answer: (r) => sendJson(r, '{"keys":[') },
    { name: 'JSON with keys twice', answer: (r) => sendJson(r, '{"keys":[],"keys":[]}') },
    { name: 'a list', answer: (r) => sendJson(r, [attester.publicJwk]) },
    { name: 'keys that are no list', answer: (r) => sendJson(r, { keys: attester.publicJwk }) },
    { name: 'more keys than anybody needs', answer: (r) => sendJson(r, { keys: Array(65).fill(attester.publicJwk) }) },
    { name: 'an aborted connection', answer: (r) => void r.destroy() },
  ];
  it.each(faults)('IMPL-5: $name is an attester that cannot be reached', async ({ answer }) => {
    const { world, server } = await setUp(answer);
    const startedAt = performance.now();
    await expectRefused(world, await by(world, attester), unavailable);
    expect(performance.now() - startedAt).toBeLessThan(3000);
    // in the cool-down nobody waits or connects again
    await expectRefused(world, await by(world, attester), unavailable);
    expect(server.seen).toEqual(['/jwks.json']);
  });
  it('IMPL-5: of a body of 100 MB no more than a little is read', async () => {
    const sent = { bytes: 0 };
    const { world } = await setUp((r) => flood(r.writeHead(200, { 'content-type': 'application/json' }), 100e6, sent));
    await expectRefused(world, await by(world, attester), unavailable);
    expect(sent.bytes).toBeLessThan(20e6);
  });

  const useless: { name: string; key: object }[] = [
    { name: 'a private key', key: { ...attester.publicJwk, d: 'AAAA' } },
    { name: 'an encryption key', key: { ...attester.publicJwk, use: 'enc' } },
    { name: 'a key for another algorithm', key: { ...attester.publicJwk, alg: 'ES384' } },
    { name: 'a key of another name', key: { ...attester.publicJwk, kid: 'three' } },
    { name: 'a symmetric key', key: { kty: 'oct', k: 'AAAA', kid: 'one' } },
    { name: 'a text', key: 'key' as never },
  ];
  it.each(useless)('IMPL-5, VER-2: a set that has only $name trusts nobody', async ({ key }) => {
    const { world } = await setUp((response) => sendJson(response, { keys: [key] }));
    await expectRefused(world, await by(world, attester), untrusted);
  });

  it('IMPL-5: entries that cannot be used do not spoil the others', async () => {
    const { world } = await setUp((response) =>
      sendJson(response, { keys: [...useless.map(({ key }) => key), null, attester.publicJwk] }),
    );
    await accepts(world, attester);
  });

  it('VER-3: one attester that cannot be reached keeps out none of another', async () => {
    const { url } = await setUp(() => undefined);
    const other = newSigner('ES256', 'other');
    const trust = [remoteJwks(url, { timeout: 100 }), jwks({ keys: [other.publicJwk] })];
    const world = createWorld({ attester, trust });
    await accepts(world, other);
    await expectRefused(world, await by(world, attester), unavailable);
  });

  it.each([
    'http://attester.example/jwks.json',
    'ftp://x.example',
    'jwks.json',
    'https://user:secret@x.example/',
    'http://127.0.0.1.nip.io/',
  ])('IMPL-5: %s is not a URL to get keys from', async (url) => {
    await expectRefusal(() => remoteJwks(url), { code: 'invalid_argument' });
  });

  it.each(['cacheFor', 'coolDown', 'staleFor'])(
    'IMPL-5: %s must be a number, or keys would count for ever',
    async (name) => {
      for (const value of [Number.NaN, -1, '600']) {
        const make = () => remoteJwks('https://attester.example/jwks', { [name]: value });
        await expectRefusal(make, { code: 'invalid_argument' });
      }
    },
  );
});

describe('jku', () => {
  it('IMPL-5: an allow-listed URL is fetched, and its keys count by kid', async () => {
    const { url, server } = await setUp(serve(attester));
    const world = createWorld({ attester, trust: jku({ allow: [url] }) });
    const attestation = await world.attestation({ header: { jku: url } });
    await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ attester: url });
    expect(server.seen).toHaveLength(1);
    const withoutKid = await world.attestation({ header: { jku: url, kid: undefined } });
    await expectRefused(world, await world.sent({ attestation: withoutKid }), {
      code: 'invalid_client_attestation',
      rule: 'IMPL-5',
    });
  });

  it('IMPL-5, VER-3: no other URL causes a connection, however much it looks alike', async () => {
    const fetch = forbiddenFetch();
    const allowed = 'https://attester.example/jwks.json';
    const world = createWorld({ attester, trust: jku({ allow: [allowed], fetch }) });
    const others = [
      'https://attacker.example/jwks.json',
      `${allowed}?x=1`,
      `${allowed}/`,
      `${allowed}#x`,
      'https://attester.example/../jwks.json',
      'https://attester.example@attacker.example/jwks.json',
      'HTTPS://ATTESTER.EXAMPLE/jwks.json',
      'http://169.254.169.254/latest/meta-data',
      'file:///etc/passwd',
      '',
      5,
      [allowed],
      { toString: allowed },
      '__proto__',
      undefined,
    ];
    for (const header of others) {
      const attestation = await world.attestation({ header: { jku: header as never } });
      await expectRefused(world, await world.sent({ attestation }), untrusted);
    }
    expect(fetch.calls).toEqual([]);
  });
});
