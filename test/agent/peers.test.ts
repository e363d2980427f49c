/** Servers that work against each other: no key of one reaches the other. */
import { describe, expect, test } from 'vitest';
import { createAttestation } from '../../src/core/attestation.ts';
import type { JsonWebKey } from '../../src/core/signer.ts';
import { decode } from '../support/tokens.ts';
import {
  ATTESTER,
  asked,
  attesterSigner,
  CLIENT_ID,
  json,
  newAgent,
  newAttester,
  shown,
  startFakeAs,
  startFakeRs,
  type TestAttester,
  tokenRequest,
} from './support.ts';

const A = 'https://a.example/mcp';

describe('a hostile server next to an honest one', () => {
  const honestAs = () =>
    startFakeAs((_request, response) =>
      json(response, { access_token: 'at', refresh_token: 'rt', token_type: 'DPoP' }),
    );

  test("PRIV-1: an issuer that is handed another's refresh token does not see the key that it is bound to", async () => {
    const [honest, hostile] = [await honestAs(), await honestAs()];
    const { agent } = await newAgent();
    await tokenRequest(agent, honest.issuer, { resource: A });
    await tokenRequest(agent, hostile.issuer, { grant_type: 'refresh_token', refresh_token: 'rt' });
    expect(shown(asked(hostile, '/token')[0]!).key).not.toBe(shown(asked(honest, '/token')[0]!).key);
  });

  test("PRIV-2: a resource that is handed another's bound token is named in a warning", async () => {
    const honest = await honestAs();
    const other = await startFakeRs(() => (_request, response) => json(response, {}));
    const { agent, warnings } = await newAgent();
    await tokenRequest(agent, honest.issuer, { resource: A });
    await agent.fetch(other.resource, { headers: { authorization: 'Bearer at' } });
    expect(warnings).toMatchObject([{ code: 'tracking', servers: [A, new URL(other.origin).origin] }]);
  });

  test('PRIV-1: a resource cannot have keys made without end by renaming itself', async () => {
    let renamed = 0;
    const rs = await startFakeRs(
      () => (_request, response) => json(response, {}),
      (origin) => {
        renamed++;
        return { resource: `${origin}/mcp?${'x'.repeat(renamed)}` };
      },
    );
    const { agent, keys } = await newAgent();
    for (let i = 0; i < 5; i++) {
      await agent.fetch(rs.metadataUrl);
      await agent.fetch(rs.resource, { headers: { authorization: 'Bearer x' } });
    }
    expect(asked(rs, '/mcp').map((request) => shown(request).pop?.aud)).toContain(`${rs.resource}?xxxxx`);
    expect(await keys.listKeys()).toHaveLength(2); // the enrolment key and one for this server
  });

  test("META-6: an issuer that lists an honest resource as its endpoint does not get into that resource's way", async () => {
    const rs = await startFakeRs(
      () => (_request, response) => json(response, {}, 200, { 'OAuth-Client-Attestation-Challenge': 'honest' }),
    );
    const hostile = await startFakeAs(
      (_request, response) => json(response, {}, 200, { 'OAuth-Client-Attestation-Challenge': 'hostile' }),
      () => ({ introspection_endpoint: rs.resource, x_endpoint: rs.resource }),
    );
    const { agent } = await newAgent();
    await tokenRequest(agent, hostile.issuer);
    await agent.fetch(rs.metadataUrl);
    for (let i = 0; i < 2; i++) await agent.fetch(rs.resource, { headers: { authorization: 'Bearer x' } });
    const pops = asked(rs, '/mcp').map((request) => shown(request).pop);
    expect(pops).toMatchObject([{ aud: rs.resource }, { aud: rs.resource, challenge: 'honest' }]);
    await tokenRequest(agent, hostile.issuer);
    expect(shown(asked(hostile, '/token')[1]!).pop?.challenge).toBe('hostile');
  });
});

/** An attester of the time when attestations had to name their issuer. */
function attesterWithIss(): TestAttester {
  const attester = newAttester();
  const real = attester.handler;
  attester.handler = async (request) => {
    if (new URL(request.url).pathname !== '/attestation') return real(request);
    const { evidence } = (await request.json()) as { evidence: { key_proof: string } };
    const { jwk } = decode(evidence.key_proof).header as { jwk: JsonWebKey };
    const iat = Math.floor(Date.now() / 1000);
    const claims = { iss: ATTESTER, sub: CLIENT_ID, iat, exp: iat + 600, cnf: { jwk } };
    return Response.json({ attestation: await createAttestation(claims, attesterSigner) });
  };
  return attester;
}

describe('older revisions', () => {
  test('a PoP of -07 names the client, and one of -05 also ends and calls its challenge nonce', async () => {
    const as = await startFakeAs((_request, response) =>
      json(response, { access_token: 'x', token_type: 'Bearer' }, 200, { 'OAuth-Client-Attestation-Challenge': 'c' }),
    );
    for (const [revision, expected] of [
      [5, { iss: CLIENT_ID, nonce: 'c', exp: expect.any(Number) }],
      [7, { iss: CLIENT_ID, challenge: 'c' }],
      [8, { challenge: 'c' }],
    ] as const) {
      const { agent } = await newAgent({ revision, attester: attesterWithIss() });
      await tokenRequest(agent, as.issuer);
      await tokenRequest(agent, as.issuer);
      const pop = shown(asked(as, '/token').at(-1)!).pop;
      expect(pop).toEqual({ aud: as.issuer, jti: expect.any(String), iat: expect.any(Number), ...expected });
    }
  });

  test('DPOP-4: in -10 the combined mode carries the attestation challenge in the nonce, from -11 the DPoP nonce', async () => {
    const as = await startFakeAs(
      (request, response) =>
        request.path === '/challenge'
          ? json(response, { attestation_challenge: 'challenge' }, 200, { 'DPoP-Nonce': 'nonce' })
          : json(response, { access_token: 'x', token_type: 'DPoP' }),
      (origin) => ({
        challenge_endpoint: `${origin}/challenge`,
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth_dpop'],
      }),
    );
    for (const [revision, nonce] of [
      [10, 'challenge'],
      [11, 'nonce'],
      [undefined, 'nonce'],
    ] as const) {
      const { agent } = await newAgent({ revision });
      await tokenRequest(agent, as.issuer);
      expect([revision, shown(asked(as, '/token').at(-1)!).dpop?.nonce]).toEqual([revision, nonce]);
    }
  });
});
