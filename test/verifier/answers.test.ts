import { describe, expect, it } from 'vitest';
import { AttestedError, type ErrorCode } from '../../src/errors.ts';
import { sealedChallenges, storedChallenges } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { createWorld } from '../support/world.ts';

const message = 'what is wrong, for people';

/** Status and WWW-Authenticate of each code at each kind of server. */
const answers: { code: ErrorCode; as: number; rs: number; scheme?: 'Bearer' | 'DPoP'; asHeader?: string }[] = [
  { code: 'use_attestation_challenge', as: 400, rs: 401, scheme: 'Bearer' },
  { code: 'use_fresh_attestation', as: 400, rs: 401, scheme: 'Bearer' },
  { code: 'invalid_client_attestation', as: 400, rs: 401, scheme: 'Bearer' },
  { code: 'use_dpop_nonce', as: 400, rs: 401, scheme: 'DPoP' },
  { code: 'invalid_dpop_proof', as: 400, rs: 401, scheme: 'DPoP' },
  { code: 'invalid_client', as: 401, rs: 401, scheme: 'Bearer', asHeader: 'Bearer error="invalid_client"' },
  { code: 'invalid_token', as: 400, rs: 401, scheme: 'Bearer' },
  { code: 'invalid_grant', as: 400, rs: 400 },
  { code: 'invalid_request', as: 400, rs: 400 },
  { code: 'access_denied', as: 403, rs: 403 },
  { code: 'temporarily_unavailable', as: 503, rs: 503 },
];

it.each(['AS', 'server', undefined])('a role of %s is refused: it decides which checks are made', async (role) => {
  await expectRefusal(() => createWorld({ role: role as never }), { code: 'invalid_argument' });
});

describe('respond', () => {
  it.each(answers)('ERR-3: $code at an AS is status $as', async ({ code, as, asHeader }) => {
    const response = createWorld().verifier.respond(new AttestedError(code, message));
    expect(response.status).toBe(as);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(response.headers.get('www-authenticate')).toBe(asHeader ?? null);
    expect(await response.json()).toEqual({ error: code, error_description: message });
  });

  it.each(answers)('ERR-3: $code at an RS is status $rs', async ({ code, rs, scheme }) => {
    const resourceMetadata = 'https://rs.example/.well-known/oauth-protected-resource';
    const { verifier } = createWorld({ role: 'rs', resourceMetadata });
    const response = verifier.respond(new AttestedError(code, message));
    expect(response.status).toBe(rs);
    expect(response.headers.get('www-authenticate')).toBe(
      scheme === undefined
        ? null
        : `${scheme} error="${code}", error_description="${message}", resource_metadata="${resourceMetadata}"`,
    );
    expect(await response.json()).toEqual({ error: code, error_description: message });
  });

  it.each([
    { role: 'as' as const, status: 400 },
    { role: 'rs' as const, status: 401 },
  ])('ERR-1: a demand for a challenge carries one, with status $status at an $role', async ({ role, status }) => {
    const world = createWorld({ role });
    const sent = await world.sent({ pop: await world.pop({ payload: { challenge: 'wrong' } }) });
    const error = await world.verify(sent).catch((reason: unknown) => reason);
    const response = world.verifier.respond(error);
    expect(response.status).toBe(status);
    expect(response.headers.get('oauth-client-attestation-challenge')).toMatch(/^[A-Za-z0-9_-]{40,}$/);
    expect(response.headers.get('dpop-nonce')).toBeNull();
    expect(await response.json()).toMatchObject({ error: 'use_attestation_challenge' });
    if (role === 'rs') expect(response.headers.get('www-authenticate')).toContain('error="use_attestation_challenge"');
  });

  it.each([
    ['an error of the language', new TypeError('secret path /etc/keys')],
    ['a text', 'secret'],
    ['nothing', undefined],
    ['a local code', new AttestedError('store_unavailable', 'secret of the operator')],
    ['a wrong call', new AttestedError('invalid_argument', 'secret of the operator')],
  ])('ERR-5: %s of our own gives a bare 503', async (_, error) => {
    for (const role of ['as', 'rs'] as const) {
      const response = createWorld({ role }).verifier.respond(error);
      expect(response.status).toBe(503);
      expect(response.headers.get('retry-after')).toBe('1');
      expect(await response.json()).toEqual({ error: 'temporarily_unavailable' });
    }
  });

  it('ERR-5: a message that would break out of the header is quoted', () => {
    const { verifier } = createWorld({ role: 'rs' });
    const response = verifier.respond(new AttestedError('invalid_token', 'a "quote", a \\ and\r\nSet-Cookie: x=1 é'));
    expect(response.headers.get('www-authenticate')).toBe(
      'Bearer error="invalid_token", error_description="a \\"quote\\", a \\\\ and  Set-Cookie: x=1  "',
    );
    expect(response.headers.get('set-cookie')).toBeNull();
  });

  it('ERR-5: the error names the rule for the log, the answer does not', async () => {
    const world = createWorld();
    const error = await world.verify(await world.sent({ pop: null })).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'invalid_client_attestation', rule: 'POP-8' });
    expect(await world.verifier.respond(error).text()).not.toContain('POP-8');
  });
});

describe('metadata', () => {
  const signatures = [
    'ES256',
    'ES384',
    'ES512',
    'Ed25519',
    'EdDSA',
    'PS256',
    'PS384',
    'PS512',
    'RS256',
    'RS384',
    'RS512',
  ];
  const endpoint = 'https://as.example/challenge';

  it('META-1, META-2, META-3, DPOP-6: of an AS', () => {
    expect(createWorld().verifier.metadata({ challengeEndpoint: endpoint })).toEqual({
      token_endpoint_auth_methods_supported: ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'],
      client_attestation_signing_alg_values_supported: signatures,
      client_attestation_pop_signing_alg_values_supported: signatures,
      dpop_signing_alg_values_supported: signatures,
      client_attestation_pop_methods_supported: ['attestation_pop_jwt', 'dpop_combined'],
      challenge_endpoint: endpoint,
    });
  });

  it('META-2, META-3: of an RS, which has no token endpoint', () => {
    const policy = { popMethods: ['attestation_pop_jwt', 'none'] as const, algorithms: ['ES256'] as const };
    expect(createWorld({ role: 'rs', policy }).verifier.metadata()).toEqual({
      client_attestation_signing_alg_values_supported: ['ES256'],
      client_attestation_pop_signing_alg_values_supported: ['ES256'],
      client_attestation_pop_methods_supported: ['attestation_pop_jwt', 'none'],
    });
  });

  it('META-1, META-3, DPOP-7: offers nothing that the revision does not have', () => {
    for (const revision of [8, 9] as const) {
      const metadata = createWorld({ revision }).verifier.metadata();
      expect(metadata).not.toHaveProperty('client_attestation_pop_methods_supported');
      expect(metadata.token_endpoint_auth_methods_supported).toEqual(
        revision === 8 ? ['attest_jwt_client_auth'] : ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'],
      );
    }
  });

  it('META-2: names no challenge endpoint where challenges are off', () => {
    const { verifier } = createWorld({ policy: { challenge: 'off' } });
    expect(verifier.metadata({ challengeEndpoint: endpoint })).not.toHaveProperty('challenge_endpoint');
  });
});

describe('challenge endpoint', () => {
  const post = () => new Request('https://as.example/challenge', { method: 'POST' });

  it('CHA-1, CHA-6: answers a POST with a challenge and a DPoP nonce, both of which work, and forbids caching', async () => {
    for (const challenges of [sealedChallenges(), undefined]) {
      const world = createWorld(challenges ? { challenges } : {});
      const response = await world.verifier.challengeHandler(post());
      expect(response.status).toBe(200);
      expect(response.headers.get('content-type')).toBe('application/json');
      expect(response.headers.get('cache-control')).toBe('no-store');
      const body = (await response.json()) as { attestation_challenge: string };
      expect(Object.keys(body)).toEqual(['attestation_challenge']);
      const pop = await world.pop({ payload: { challenge: body.attestation_challenge } });
      await expect(world.verify(await world.sent({ pop }))).resolves.toBeDefined();
      const dpop = await world.dpop({ payload: { nonce: String(response.headers.get('dpop-nonce')) } });
      await expect(world.verify(await world.sentCombined({ dpop }))).resolves.toBeDefined();
    }
  });

  it('CHA-1, CHA-5: a challenge store that is down is a 503 and an error of ours, not a crash of the server', async () => {
    const down = () => {
      throw new Error('connection lost');
    };
    const rejects = async () => down();
    for (const store of [
      { put: down, has: down, take: down },
      { put: rejects, has: rejects, take: rejects },
      { put: () => undefined, has: () => true, take: rejects },
    ]) {
      const world = createWorld({ challenges: storedChallenges(store) });
      const pop = await world.pop({ payload: { challenge: 'c' } });
      await expectRefusal(async () => world.verify(await world.sent({ pop })), { code: 'temporarily_unavailable' });
      if (store.put === down || store.put === rejects) {
        expect((await world.verifier.challengeHandler(post())).status).toBe(503);
      }
    }
  });

  it('CHA-1: gives everybody another one', async () => {
    const { verifier } = createWorld();
    const bodies = await Promise.all(
      [post(), post()].map(async (request) => (await verifier.challengeHandler(request)).text()),
    );
    expect(bodies[0]).not.toBe(bodies[1]);
  });

  it.each(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS'])('CHA-1: %s is not allowed', async (method) => {
    const response = await createWorld().verifier.challengeHandler(
      new Request('https://as.example/challenge', { method }),
    );
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('POST');
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(await response.text()).toBe('');
  });

  it('CHA-8, CHA-6: a server for combined mode only leaves the challenge out and gives the nonce', async () => {
    const { verifier } = createWorld({ policy: { popMethods: ['dpop_combined'] } });
    const response = await verifier.challengeHandler(post());
    expect(response.headers.get('dpop-nonce')).toMatch(/./);
    expect(response.headers.get('oauth-client-attestation-challenge')).toBeNull();
    expect(await response.json()).toEqual({});
  });

  it('CHA-1: a server without challenges has no such endpoint', async () => {
    const { verifier } = createWorld({ policy: { challenge: 'off' } });
    expect((await verifier.challengeHandler(post())).status).toBe(404);
    expect(await verifier.freshHeaders()).toEqual({});
  });

  it('CHA-3: any answer may carry fresh values', async () => {
    const headers = await createWorld().verifier.freshHeaders();
    expect(Object.keys(headers).sort()).toEqual(['DPoP-Nonce', 'OAuth-Client-Attestation-Challenge']);
  });
});
