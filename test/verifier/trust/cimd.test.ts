/** Attesters that clients' documents endorse. The Internet here is a table of URLs behind the injected fetch. */
import { describe, expect, test } from 'vitest';
import type { Signer } from '../../../src/core/signer.ts';
import { type CimdOptions, cimd } from '../../../src/verifier/index.ts';
import { expectRefusal } from '../../support/errors.ts';
import { newSigner } from '../../support/tokens.ts';
import { type Changes, createWorld, expectRefused, type World } from '../../support/world.ts';

const CLIENT = 'https://agents.example/team-a/client';
const ISSUER = 'https://attester.example/acme';
const JWKS = 'https://attester.example/acme/jwks';
const attester = newSigner('ES256', 'one');
const other = newSigner('ES256', 'two');

type Page = { status?: number; type?: string; body: unknown; headers?: Record<string, string> } | (() => never);

const documentOf = (members: object = {}) => ({
  client_id: CLIENT,
  token_endpoint_auth_method: 'attest_jwt_client_auth',
  client_attesters: [{ issuer: ISSUER, jwks_uri: JWKS }],
  ...members,
});
const keysOf = (...signers: Signer[]) => ({ keys: signers.map(({ publicJwk }) => publicJwk) });

interface Setup {
  world: World;
  pages: Map<string, Page>;
  /** Every URL that was asked for. */
  asked: string[];
}

function setUp(options: Partial<CimdOptions> = {}): Setup {
  const pages = new Map<string, Page>([
    [CLIENT, { body: documentOf() }],
    [JWKS, { body: keysOf(attester) }],
  ]);
  const asked: string[] = [];
  const fetch = async (input: string | URL) => {
    asked.push(String(input));
    const page = pages.get(String(input)) ?? { status: 404, body: {} };
    if (typeof page === 'function') return page();
    const { status = 200, type = 'application/json', body, headers } = page;
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    return new Response(text, { status, headers: { 'content-type': type, ...headers } });
  };
  const trust = cimd({ allow: ['https://agents.example/team-a/'], fetch, fetchConfigured: fetch, ...options });
  return { world: createWorld({ attester, trust }), pages, asked };
}

const claims = (changes: Changes = {}): Changes => ({
  ...changes,
  payload: { sub: CLIENT, iss: ISSUER, ...changes.payload },
});
async function request({ world }: Setup, changes?: Changes) {
  const attestation = await world.attestation(claims(changes));
  return world.sent({ attestation, clientId: undefined });
}
const accepts = async (setup: Setup, changes?: Changes) =>
  expect(setup.world.verify(await request(setup, changes))).resolves.toMatchObject({ clientId: CLIENT });
const refuses = async (setup: Setup, changes?: Changes) =>
  expectRefused(setup.world, await request(setup, changes), { code: 'invalid_client_attestation', rule: 'VER-3' });
const outage = async (setup: Setup) =>
  expectRefused(setup.world, await request(setup), { code: 'temporarily_unavailable', rule: 'IMPL-5' });

describe('a publisher that may choose', () => {
  test('VER-3, IMPL-5: the attester its document endorses is believed for its client', async () => {
    const setup = setUp();
    await accepts(setup);
    await accepts(setup);
    expect(setup.asked).toEqual([CLIENT, JWKS]);
  });

  test('the server says that it reads endorsements', () => {
    expect(setUp().world.verifier.metadata()).toMatchObject({ client_attester_endorsement_supported: true });
    expect(createWorld().verifier.metadata()).not.toHaveProperty('client_attester_endorsement_supported');
  });

  const rows: [string, Changes, string[]][] = [
    ['of another issuer', { payload: { iss: 'https://attester.example/other' } }, [CLIENT]],
    ['of the issuer in another spelling', { payload: { iss: `${ISSUER}/` } }, [CLIENT]],
    ['without iss', { payload: { iss: undefined as never } }, []],
    ['without kid', { header: { kid: undefined as never } }, []],
    ['with an empty kid', { header: { kid: '' } }, []],
    ['with another kid', { header: { kid: 'elsewhere' } }, [CLIENT, JWKS]],
    ['signed with another key under the kid', { signer: other }, [CLIENT, JWKS]],
    [
      'that bring their own key',
      { signer: other, header: { jwk: other.publicJwk as never, jku: 'https://evil.example/jwks' } },
      [CLIENT, JWKS],
    ],
    ['of a client elsewhere', { payload: { sub: 'https://evil.example/client' } }, []],
    ['of a client of another team', { payload: { sub: 'https://agents.example/team-b/client' } }, []],
    ['of the team itself', { payload: { sub: 'https://agents.example/team-a' } }, []],
    ['of a client that climbs out', { payload: { sub: 'https://agents.example/team-a/../team-b/client' } }, []],
    ['of one that climbs, encoded', { payload: { sub: 'https://agents.example/team-a/%2e%2e/team-b' } }, []],
    ['of one that climbs at the server', { payload: { sub: 'https://agents.example/team-a/..%2fteam-b' } }, []],
    [
      'of one that climbs past parameters',
      { payload: { sub: 'https://agents.example/team-a/..;x/team-b/client' } },
      [],
    ],
    ['of a client with a fragment', { payload: { sub: `${CLIENT}#x` } }, []],
    ['of a client under http', { payload: { sub: CLIENT.replace('https', 'http') } }, []],
    ['of a client with no URL', { payload: { sub: 'client-1' } }, []],
  ];
  test.each(rows)('VER-3: attestations %s are refused', async (_, changes, asked) => {
    const setup = setUp();
    await refuses(setup, changes);
    expect(setup.asked.slice(0, 2)).toEqual(asked);
    expect(setup.asked.every((url) => [CLIENT, JWKS].includes(url))).toBe(true);
  });

  test("IMPL-5: where the attester's status list is, the publisher chose: it is fetched as the keys are", async () => {
    const setup = setUp();
    const uri = 'https://attester.example/list';
    setup.pages.set(uri, { body: {} });
    const status = { status_list: { uri, idx: 1 } };
    await expectRefused(setup.world, await request(setup, { payload: { status } }), {
      code: 'temporarily_unavailable',
      rule: 'Token Status List §8.3',
    });
    expect(setup.asked).toEqual([CLIENT, JWKS, uri]);
  });

  const documents: [string, object | string][] = [
    ['names another client', documentOf({ client_id: `${CLIENT}2` })],
    ['names no client', { client_attesters: [{ issuer: ISSUER, jwks_uri: JWKS }] }],
    ['endorses nobody', documentOf({ client_attesters: [] })],
    ['has no list', documentOf({ client_attesters: { issuer: ISSUER, jwks_uri: JWKS } })],
    ['names an issuer twice', documentOf({ client_attesters: Array(2).fill({ issuer: ISSUER, jwks_uri: JWKS }) })],
    ['has one bad entry', documentOf({ client_attesters: [{ issuer: ISSUER, jwks_uri: JWKS }, { issuer: 'x' }] })],
    ['has a null entry', documentOf({ client_attesters: [null, { issuer: ISSUER, jwks_uri: JWKS }] })],
    [
      'has keys elsewhere than its issuer',
      documentOf({ client_attesters: [{ issuer: ISSUER, jwks_uri: 'https://evil.example/jwks' }] }),
    ],
    [
      'has keys under http',
      documentOf({ client_attesters: [{ issuer: ISSUER, jwks_uri: JWKS.replace('https', 'http') }] }),
    ],
    [
      'has credentials in a URL',
      documentOf({ client_attesters: [{ issuer: ISSUER, jwks_uri: JWKS.replace('//', '//a:b@') }] }),
    ],
    ['has keys of its own only', { client_id: CLIENT, jwks: keysOf(attester), jwks_uri: JWKS }],
  ];
  test.each(documents)('VER-3: a document that %s endorses nobody', async (_, body) => {
    const setup = setUp();
    setup.pages.set(CLIENT, { body });
    await refuses(setup);
    expect(setup.asked).toEqual([CLIENT]);
  });

  const broken: [string, Page][] = [
    ['a redirect', { status: 302, body: '', headers: { location: 'https://evil.example/' } }],
    ['an error', { status: 500, body: {} }],
    ['a page', { type: 'text/html', body: '<p>hello' }],
    ['no JSON', { body: '{"client_id":' }],
    ['a member twice', { body: JSON.stringify(documentOf()).replace('{', '{"client_id":"x",') }],
    ['6 kB', { body: documentOf({ client_name: 'x'.repeat(6000) }) }],
    [
      'no connection',
      () => {
        throw new TypeError('fetch failed');
      },
    ],
  ];
  test.each(broken)('IMPL-5: %s in place of the document is an outage, asked for once a while', async (_, page) => {
    const setup = setUp();
    setup.pages.set(CLIENT, page);
    for (let i = 0; i < 5; i++) await outage(setup);
    expect(setup.asked).toEqual([CLIENT]);
    setup.world.clock.now += 31_000;
    setup.pages.set(CLIENT, { body: documentOf() });
    await accepts(setup);
  });
});

describe('keys', () => {
  const sets: [string, object[]][] = [
    ['twice under one kid', [attester.publicJwk, { ...other.publicJwk, kid: 'one' }]],
    ['once usable, once not', [attester.publicJwk, { kty: 'oct', kid: 'one' }]],
    ['for encryption', [{ ...attester.publicJwk, use: 'enc' }]],
    ['for wrapping', [{ ...attester.publicJwk, key_ops: ['wrapKey'] }]],
    ['for another algorithm', [{ ...attester.publicJwk, alg: 'ES384' }]],
    ['with a private member', [{ ...attester.publicJwk, d: 'AAAA' }]],
    ['symmetric', [{ kty: 'oct', k: 'AAAA', kid: 'one' }]],
    ['without kid', [{ ...attester.publicJwk, kid: undefined }]],
  ];
  test.each(sets)('VER-3: %s are not used', async (_, keys) => {
    const setup = setUp();
    setup.pages.set(JWKS, { body: { keys } });
    await refuses(setup);
  });

  test('IMPL-5: an unknown kid causes one fetch per cool-down, and none of the document', async () => {
    const setup = setUp();
    await accepts(setup);
    for (let i = 0; i < 3; i++) await refuses(setup, { header: { kid: `k${i}` } });
    expect(setup.asked).toEqual([CLIENT, JWKS]);
    setup.world.clock.now += 31_000;
    setup.pages.set(JWKS, { body: keysOf(attester, other) });
    await accepts(setup, { signer: other, header: { kid: 'two' } });
    expect(setup.asked).toEqual([CLIENT, JWKS, JWKS]);
  });

  test('IMPL-5: keys that cannot be fetched are an outage', async () => {
    const setup = setUp();
    setup.pages.set(JWKS, { status: 503, body: {} });
    await outage(setup);
  });
});

describe('withdrawal', () => {
  const HOUR = 3600_000;
  test('VER-3: an endorsement counts no longer than the document may be kept, also for attestations seen before', async () => {
    const setup = setUp();
    const sent = await setup.world.attestation(claims({ payload: { exp: setup.world.seconds() + 7200 } }));
    const again = async () => setup.world.verify(await setup.world.sent({ attestation: sent, clientId: undefined }));
    await again();
    setup.pages.set(CLIENT, { body: documentOf({ client_attesters: [] }) });
    setup.world.clock.now += HOUR - 1000;
    await again();
    setup.world.clock.now += 1001;
    await expectRefusal(again, { code: 'invalid_client_attestation', rule: 'VER-3' });
  });

  test.each([
    ['max-age=60', 61_000],
    ['private, max-age="60"', 61_000],
    ['no-store', 1],
    ['no-cache', 1],
  ])('VER-3: less long where the document says so: %s', async (control, later) => {
    const setup = setUp();
    setup.pages.set(CLIENT, { body: documentOf(), headers: { 'cache-control': control } });
    await accepts(setup);
    setup.world.clock.now += later;
    setup.pages.set(CLIENT, { body: documentOf({ client_attesters: [] }) });
    await refuses(setup);
  });

  test.each([404, 410])('VER-3: a document that is gone (%i) endorses nobody any more', async (status) => {
    const setup = setUp();
    await accepts(setup);
    setup.world.clock.now += HOUR + 1;
    setup.pages.set(CLIENT, { status, body: {} });
    await refuses(setup);
    setup.pages.set(CLIENT, { status: 500, body: {} });
    setup.world.clock.now += 31_000;
    await outage(setup); // the copy from before is not used again
  });

  test('IMPL-5: while the copy is good an outage is not noticed, and afterwards it does not prolong it', async () => {
    const setup = setUp();
    await accepts(setup);
    setup.pages.set(CLIENT, { status: 503, body: {} });
    setup.world.clock.now += HOUR - 1000;
    await accepts(setup);
    setup.world.clock.now += 2000;
    await outage(setup);
  });
});

describe('an attester that the server knows itself', () => {
  const INSIDE = 'https://keys.internal.example/jwks';
  const attesters = [{ issuer: ISSUER, jwksUri: INSIDE, aliases: [JWKS] }];

  test('VER-3: its keys come from where the operator says; the endorsed URL is compared, never fetched', async () => {
    const setup = setUp({ attesters });
    setup.pages.set(INSIDE, { body: keysOf(other) });
    await accepts(setup, { signer: other, header: { kid: 'two' } });
    await refuses(setup); // the keys at the endorsed URL are none of this issuer's
    expect(setup.asked).not.toContain(JWKS);
  });

  test('VER-3: a publisher that names other keys for its issuer is refused', async () => {
    const setup = setUp({ attesters });
    const client_attesters = [{ issuer: ISSUER, jwks_uri: 'https://attester.example/mine' }];
    setup.pages.set(CLIENT, { body: documentOf({ client_attesters }) });
    setup.pages.set('https://attester.example/mine', { body: keysOf(attester) });
    await refuses(setup);
    expect(setup.asked).toEqual([CLIENT]);
  });

  test('VER-3: a client whose publisher may not choose can endorse it, and nobody else', async () => {
    const setup = setUp({ allow: [], documents: [CLIENT], attesters });
    setup.pages.set(INSIDE, { body: keysOf(attester) });
    await accepts(setup);
    const strict = setUp({ allow: [], documents: [CLIENT] });
    await refuses(strict);
    expect(strict.asked).toEqual([CLIENT]);
  });

  test('VER-3: one that is refused is believed for nobody', async () => {
    const setup = setUp({ refused: [ISSUER] });
    await refuses(setup);
    expect(setup.asked).toEqual([]);
  });
});

test('VER-3: hundreds of clients at once cause a bounded number of fetches', async () => {
  const setup = setUp({ allow: ['https://agents.example/'] });
  const sent = await Promise.all(
    Array.from({ length: 100 }, (_, i) => request(setup, { payload: { sub: `https://agents.example/c${i}` } })),
  );
  const results = await Promise.allSettled(sent.map((one) => setup.world.verify(one)));
  expect(results.every(({ status }) => status === 'rejected')).toBe(true);
  expect(setup.asked.length).toBeLessThanOrEqual(16);
});

test.each([
  { allow: ['agents.example'] },
  { allow: ['http://agents.example/'] },
  { allow: ['https://agents.example'] },
  { allow: ['https://user@agents.example/'] },
  { allow: ['https://agents.example/a/../b/'] },
  { documents: ['https://AGENTS.example/'] },
  { allow: [] },
  { maxAge: Number.NaN },
  { attesters: [{ issuer: 'x', jwksUri: 'http://keys.example/' }] },
])('settings that make no sense are refused: %o', async (options) => {
  await expectRefusal(() => setUp(options), { code: 'invalid_argument' });
});
