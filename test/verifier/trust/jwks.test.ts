import { createHmac, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { macSigner } from '../../../src/keys/index.ts';
import { AttestedError, jwks, mac } from '../../../src/verifier/index.ts';
import { expectRefusal } from '../../support/errors.ts';
import { newRsaJwk, rocaModulus, rsaJwk } from '../../support/keys.ts';
import { newSigner } from '../../support/tokens.ts';
import { CLIENT_ID, createWorld, expectRefused, type WorldOptions } from '../../support/world.ts';

const attester = newSigner('ES256', 'one');
const untrusted = { code: 'invalid_client_attestation', rule: 'VER-3' } as const;

describe('keys exchanged beforehand', () => {
  it.each([
    { name: 'a kid on both sides', header: { kid: 'one' }, key: { kid: 'one' } },
    { name: 'a kid in the key only', header: { kid: undefined }, key: { kid: 'one' } },
    { name: 'a kid in the header only', header: { kid: 'one' }, key: { kid: undefined } },
    {
      name: 'a key that names its algorithm and use',
      header: {},
      key: { alg: 'ES256', use: 'sig', key_ops: ['verify'] },
    },
  ])('IMPL-5: $name selects the key', async ({ header, key }) => {
    const world = createWorld({ attester, trust: jwks({ keys: [{ ...attester.publicJwk, ...key }] as never }) });
    const attestation = await world.attestation({ header: header as never });
    await expect(world.verify(await world.sent({ attestation }))).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it.each([
    { name: 'another kid', key: { kid: 'two' } },
    { name: 'another algorithm', key: { alg: 'ES384' } },
  ])('IMPL-5: a key with $name is not used, though it would verify', async ({ key }) => {
    const world = createWorld({ attester, trust: jwks({ keys: [{ ...attester.publicJwk, ...key }] }) });
    await expectRefused(world, await world.sent(), untrusted);
  });

  it('IMPL-5: a key of the exact name is found behind any number of nameless ones', async () => {
    const nameless = Array.from({ length: 20 }, () => newSigner().publicJwk);
    const world = createWorld({ attester, trust: jwks({ keys: [...nameless, attester.publicJwk] }) });
    await expect(world.verify(await world.sent())).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it('VER-3: one key in two sources may speak for the clients of both', async () => {
    const keys = [attester.publicJwk];
    const other = jwks({ keys, clients: ['https://other.example'], attester: 'first' });
    const own = jwks({ keys, clients: [CLIENT_ID], attester: 'second' });
    const world = createWorld({ attester, trust: [other, own] });
    await expect(world.verify(await world.sent())).resolves.toMatchObject({ attester: 'second' });
    await expectRefused(createWorld({ attester, trust: [other] }), await world.sent(), untrusted);
  });

  it('VER-3: an outage is told apart from a refusal, wherever the source that is down stands', async () => {
    const down = {
      find: () => {
        throw new AttestedError('temporarily_unavailable', 'down');
      },
    };
    const notForUs = jwks({ keys: [attester.publicJwk], clients: ['https://other.example'] });
    for (const trust of [
      [down, notForUs],
      [notForUs, down],
    ]) {
      const world = createWorld({ attester, trust });
      await expectRefusal(() => world.sent().then(world.verify), { code: 'temporarily_unavailable' });
    }
  });

  it('IMPL-5: several keys of one name are tried', async () => {
    const keys = [newSigner().publicJwk, newSigner().publicJwk, attester.publicJwk].map((key) => ({
      ...key,
      kid: 'one',
    }));
    const world = createWorld({ attester, trust: jwks({ keys, attester: 'ours' }) });
    await expect(world.verify(await world.sent())).resolves.toMatchObject({ attester: 'ours' });
  });

  it.each([
    { name: 'private', key: { ...attester.publicJwk, d: 'AAAA' } },
    { name: 'symmetric', key: { kty: 'oct', k: 'AAAA' } },
    { name: 'off its curve', key: { ...attester.publicJwk, y: attester.publicJwk.x as string } },
    { name: 'too short', key: newRsaJwk(1024) },
    { name: 'of the ROCA structure', key: rsaJwk(rocaModulus()) },
  ])('IMPL-5, VER-4: a key that is $name is refused when the source is made', async ({ key }) => {
    await expectRefusal(() => jwks({ keys: [key] }), { code: 'invalid_argument' });
  });
});

describe('MAC', () => {
  const secret = randomBytes(64);
  const macWorld = (options: WorldOptions = {}) =>
    createWorld({
      attester: macSigner(secret, 'HS256', 'shared'),
      trust: mac({ keys: [{ secret, kid: 'shared' }] }),
      ...options,
    });

  it('ATT-7: a MAC-protected attestation is accepted where a secret is configured', async () => {
    for (const alg of ['HS256', 'HS384', 'HS512'] as const) {
      const trust = mac({ keys: [{ secret: secret.toString('base64url'), alg }] });
      const world = createWorld({ attester: macSigner(secret, alg), trust });
      await expect(world.verify(await world.sent())).resolves.toMatchObject({ clientId: CLIENT_ID, attester: 'mac' });
      const jwk = createWorld({
        attester: macSigner(secret, alg, 'shared'),
        trust: mac({ keys: [{ kty: 'oct', k: secret.toString('base64url'), alg, kid: 'shared' }] }),
      });
      await expect(jwk.verify(await jwk.sent())).resolves.toMatchObject({ clientId: CLIENT_ID });
    }
  });

  it('ATT-7: it is refused everywhere else, whatever the policy lists', async () => {
    const trust = jwks({ keys: [newSigner().publicJwk] });
    await expectRefused(macWorld({ trust }), await macWorld().sent(), {
      code: 'invalid_client_attestation',
      rule: 'VER-2',
    });
    const listed = macWorld({ trust, policy: { algorithms: ['ES256', 'HS256'] } });
    await expectRefused(listed, await listed.sent(), untrusted);
  });

  it.each([
    { name: 'another secret', header: {}, key: randomBytes(64) },
    { name: 'another kid', header: { kid: 'another' }, key: secret },
    { name: 'another hash', header: { alg: 'HS512' }, key: secret, rule: 'VER-2' },
    { name: 'an empty secret', header: {}, key: Buffer.alloc(0) },
  ])('ATT-7: $name is refused', async ({ header, key, rule = 'VER-3' }) => {
    const world = macWorld();
    const hash = header.alg === 'HS512' ? 'sha512' : 'sha256';
    const signer = { sign: async (data: Uint8Array) => createHmac(hash, key).update(data).digest() };
    const attestation = await world.attestation({ header: header as never, signer });
    await expectRefused(world, await world.sent({ attestation }), { ...untrusted, rule });
  });

  it('ATT-7, VER-2: beside a secret, a public key of an attester is no secret', async () => {
    const world = createWorld({ attester, trust: [mac({ keys: [{ secret }] }), jwks({ keys: [attester.publicJwk] })] });
    for (const text of [JSON.stringify(attester.publicJwk), String(attester.publicJwk.x)]) {
      const signer = { sign: async (data: Uint8Array) => createHmac('sha256', text).update(data).digest() };
      const attestation = await world.attestation({ header: { alg: 'HS256' }, signer });
      await expectRefused(world, await world.sent({ attestation }), untrusted);
    }
    await expect(world.verify(await world.sent())).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  it('POP-1: a PoP is never a MAC, also where attestations may be', async () => {
    const world = macWorld();
    const pop = await world.pop({ header: { alg: 'HS256' }, signer: macSigner(secret, 'HS256') });
    await expectRefused(world, await world.sent({ pop }), { code: 'invalid_client_attestation', rule: 'POP-1' });
    expect(world.verifier.metadata().client_attestation_pop_signing_alg_values_supported).not.toContain('HS256');
  });

  it.each([
    { name: 'too short', key: { secret: randomBytes(31) } },
    { name: 'too short for its hash', key: { secret: randomBytes(32), alg: 'HS512' as const } },
    { name: 'empty', key: { secret: '' } },
    { name: 'not base64url', key: { secret: 'not base64url, but long enough for a secret!!' } },
    { name: 'for an unknown algorithm', key: { secret, alg: 'ES256' as never } },
  ])('ATT-7: a secret that is $name is refused when the source is made', async ({ key }) => {
    await expectRefusal(() => mac({ keys: [key] }), { code: 'invalid_argument', rule: 'ATT-7' });
  });
});
