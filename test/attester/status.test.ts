import { inflateSync } from 'node:zlib';
import type { Attester } from 'attested/attester';
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import { describe, expect, test } from 'vitest';
import { parseStatusListToken, statusAt } from '../../src/core/status-list.ts';
import { macSignerOf } from '../../src/platform/crypto.ts';
import { attest, CLIENT, enrol, get, ISSUER, newAgent, newSigner, START, setUp, watchedSigner } from './helpers.ts';

const placeOf = (attestation: string): number => {
  const { status } = decodeJwt<{ status: { status_list: { idx: number } } }>(attestation);
  return status.status_list.idx;
};

/** The list as an independent reader sees it: verified by jose, inflated by zlib, bits counted by hand. */
async function readList(attester: Attester, seconds = START) {
  const response = await get(attester, '/status/1');
  const text = await response.text();
  const { payload, protectedHeader } = await jwtVerify<{ status_list: { bits: number; lst: string }; ttl: number }>(
    text,
    createLocalJWKSet(attester.jwks() as never),
    { typ: 'statuslist+jwt', subject: `${ISSUER}/status/1`, currentDate: new Date(seconds * 1000) },
  );
  const list = inflateSync(Buffer.from(payload.status_list.lst, 'base64url'));
  const revoked: number[] = [];
  list.forEach((byte, i) => {
    for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) revoked.push(i * 8 + bit);
  });
  return { response, text, payload, protectedHeader, list, revoked };
}

describe('status list', () => {
  test('is a Status List Token with nobody revoked at first', async () => {
    const { attester, signer } = setUp();
    await enrol(attester);
    const { response, payload, protectedHeader, list, revoked } = await readList(attester);
    expect(response.headers.get('content-type')).toBe('application/statuslist+jwt');
    expect(response.headers.get('cache-control')).toBe('public, max-age=30');
    expect(protectedHeader).toEqual({ alg: 'ES256', typ: 'statuslist+jwt', kid: signer.thumbprint });
    expect(payload).toMatchObject({ iat: START, exp: START + 300, ttl: 60, status_list: { bits: 1 } });
    expect(list).toHaveLength(2 ** 14);
    expect(revoked).toEqual([]);
  });

  test('revoking marks all attestations of the instance, at once, and no other', async () => {
    const { attester } = setUp();
    const [agent, other] = [newAgent(), newAgent()];
    const first = await enrol(attester, agent);
    const second = await attest(attester, { ...agent, instanceSigner: newSigner() });
    const spared = await enrol(attester, other);
    await readList(attester); // so that one is cached
    expect(await attester.revoke({ instanceId: first.body.instance_id! })).toBe(true);

    const { text, revoked } = await readList(attester);
    const places = [first, second].map(({ body }) => placeOf(body.attestation!));
    expect(revoked).toEqual(places.toSorted((a, b) => a - b));
    expect(await attest(attester, agent)).toMatchObject({ status: 403, body: { error: 'access_denied' } });
    expect((await attest(attester, other)).status).toBe(200);

    // the core's reader, which verifiers use, sees the same
    const { compressed, bits } = parseStatusListToken(text);
    const list = inflateSync(compressed);
    for (const place of places) expect(statusAt(list, bits, place)).toBe(1);
    expect(statusAt(list, bits, placeOf(spared.body.attestation!))).toBe(0);
  });

  test("an instance can be revoked by the thumbprint that a server's log has", async () => {
    const { attester } = setUp();
    const agent = newAgent();
    const { body } = await enrol(attester, agent);
    expect(await attester.revoke({ thumbprint: agent.instanceSigner.thumbprint })).toBe(true);
    expect((await readList(attester)).revoked).toEqual([placeOf(body.attestation!)]);
    expect(await attester.revoke({ thumbprint: 'nobody' })).toBe(false);
    expect(await attester.instances()).toMatchObject([{ revokedAt: START }]);
  });

  test('is signed anew after half its ttl, not before', async () => {
    const { attester, clock } = setUp({ statusList: { ttl: 20, size: 1024 } });
    const first = await readList(attester);
    expect(first.list).toHaveLength(128);
    clock.seconds += 9;
    expect((await readList(attester, clock.seconds)).text).toBe(first.text);
    clock.seconds += 1;
    expect((await readList(attester, clock.seconds)).payload.iat).toBe(START + 10);
    clock.seconds -= 5; // a clock that was set back does not stretch the cache
    expect((await readList(attester, clock.seconds)).payload.iat).toBe(START + 5);
  });

  test('many askers at once cost one signature', async () => {
    const signer = watchedSigner();
    const { attester } = setUp({ signer });
    await Promise.all(Array.from({ length: 20 }, () => readList(attester)));
    expect(signer.signatures).toBe(1);
  });

  test('a failure is not cached', async () => {
    const signer = watchedSigner();
    signer.broken = true;
    const { attester } = setUp({ signer });
    expect((await get(attester, '/status/1')).status).toBe(503);
    signer.broken = false;
    expect((await get(attester, '/status/1')).status).toBe(200);
  });

  test('a full list issues nothing, and expiry makes room', async () => {
    const client = { lifetime: 60, enrolment: { tokens: true }, maxAttestationsPerInstance: 5000 };
    const { attester, clock } = setUp({ statusList: { size: 1024 }, policy: { clients: { [CLIENT]: client } } });
    const agent = newAgent();
    await enrol(attester, agent);
    const places = new Set<number>();
    let answer = await attest(attester, agent);
    while (answer.status === 200) {
      const place = placeOf(answer.body.attestation!);
      expect(places).not.toContain(place);
      places.add(place);
      answer = await attest(attester, agent);
    }
    expect(answer).toMatchObject({ status: 503, body: { error: 'temporarily_unavailable' } });
    expect(places.size).toBeGreaterThan(950);
    clock.seconds += 60 + 1200 + 10;
    expect((await attest(attester, agent, {}, clock.seconds)).status).toBe(200);
  });

  test.each([{ size: 1000 }, { size: 1025 }, { size: 2 ** 25 }, { ttl: 0 }, { ttl: 1.5 }, { ttl: Number.NaN }])(
    'with %o is refused',
    (statusList) => {
      expect(() => setUp({ statusList })).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
    },
  );
});

describe('signers', () => {
  test('the JWK Set holds public keys only', async () => {
    const { attester, signer } = setUp();
    const response = await get(attester, '/jwks');
    expect(response.headers.get('content-type')).toBe('application/jwk-set+json');
    expect(response.headers.get('cache-control')).toBe('public, max-age=300');
    expect(await response.json()).toEqual({
      keys: [{ ...signer.publicJwk, kid: signer.thumbprint, alg: 'ES256', use: 'sig' }],
    });
  });

  test('roll over: the first signs, all are published', async () => {
    const [old, next] = [newSigner('old'), newSigner('next')];
    const { attester } = setUp({ signer: [old, next] });
    const agent = newAgent();
    const kidOf = (text: string) => decodeProtectedHeader(text).kid;
    expect(kidOf((await enrol(attester, agent)).body.attestation!)).toBe('old');
    expect(kidOf((await readList(attester)).text)).toBe('old');
    expect(attester.jwks().keys.map(({ kid }) => kid)).toEqual(['old', 'next']);
    attester.useSigners([next, old]);
    expect(kidOf((await attest(attester, agent)).body.attestation!)).toBe('next');
    expect(kidOf((await readList(attester)).text)).toBe('next');
    attester.useSigners(next);
    expect(attester.jwks().keys).toHaveLength(1);
  });

  test('none, two of one name, and a secret are refused, and change nothing', () => {
    const { attester, signer } = setUp();
    const secret = macSignerOf(new Uint8Array(32), 'HS256', 'mac');
    for (const signers of [[], [newSigner('a'), newSigner('a')], [signer, signer], secret]) {
      expect(() => attester.useSigners(signers)).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
    }
    expect(attester.jwks().keys.map(({ kid }) => kid)).toEqual([signer.thumbprint]);
  });
});
