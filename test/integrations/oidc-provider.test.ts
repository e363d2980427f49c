/** Our trust, policy and refusals inside node-oidc-provider 9, and what its hooks leave open. */
import type { IncomingHttpHeaders } from 'node:http';
import { request as httpRequest } from 'node:http';
import { describe, expect, test, vi } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import { attestClientAuth, clientInstanceClaim } from '../../src/integrations/oidc-provider.ts';
import { jwks, remoteJwks } from '../../src/verifier/index.ts';
import {
  type AuthorizationServer,
  CALLBACK,
  CLIENTS,
  SCOPE,
  startAuthorizationServer,
} from '../e2e/support/authorization-server.ts';
import { visit } from '../e2e/support/browser.ts';
import { startWorld } from '../e2e/support/world.ts';
import { expectRefusal } from '../support/errors.ts';
import { newSigner } from '../support/tokens.ts';
import { createWorld, type World } from '../support/world.ts';

type Options = Parameters<typeof startAuthorizationServer>[1];

interface Parties {
  as: AuthorizationServer;
  world: World;
  /** A token request in PoP mode; `null` leaves a header out. */
  ask(parts?: { attestation?: string; pop?: string }): Promise<{ status: number; body: object; headers: Headers }>;
  pop(payload?: Record<string, number | string>): Promise<string>;
}

const CLIENT = CLIENTS.attestation_pop_jwt;

async function start(options: (world: World) => Options = () => ({})): Promise<Parties> {
  const attester = newSigner('ES256', 'attester-1');
  const instance = newSigner();
  const clock = createWorld({ attester, instance, startAt: Date.now() });
  const trust = jwks({ keys: [attester.publicJwk], clients: [CLIENT] });
  const as = await startAuthorizationServer('https://attester.example', { policy: {}, trust, ...options(clock) });
  const world = createWorld({ attester, instance, audience: as.issuer, startAt: Date.now() });
  const attestation = () => world.attestation({ payload: { sub: CLIENT } });
  const pop: Parties['pop'] = async (payload) => {
    const response = await fetch(`${as.issuer}/challenge`, { method: 'POST' });
    const { attestation_challenge: challenge } = (await response.json()) as { attestation_challenge: string };
    return world.pop({ payload: { challenge, ...payload } });
  };
  return {
    as,
    world,
    pop,
    async ask(parts = {}) {
      const response = await fetch(`${as.issuer}/token`, {
        method: 'POST',
        headers: {
          'OAuth-Client-Attestation': parts.attestation ?? (await attestation()),
          'OAuth-Client-Attestation-PoP': parts.pop ?? (await pop()),
        },
        body: new URLSearchParams({ grant_type: 'client_credentials', scope: SCOPE }),
      });
      return { status: response.status, body: (await response.json()) as object, headers: response.headers };
    },
  };
}

describe('attestations', () => {
  test('VER-3: of a trusted attester are accepted', async () => {
    const { ask, as } = await start();
    expect(await ask()).toMatchObject({ status: 200, body: { token_type: 'Bearer' } });
    expect(as.refusals).toEqual([]);
  });

  const rows: [string, (world: World) => Promise<string>, string, string][] = [
    [
      'VER-3: of another attester',
      (world) => world.attestation({ payload: { sub: CLIENT }, signer: newSigner() }),
      'invalid_client_attestation',
      'VER-3',
    ],
    [
      'ATT-3: expired',
      (world) => world.attestation({ payload: { sub: CLIENT, exp: world.seconds() - 60, iat: world.seconds() - 120 } }),
      'use_fresh_attestation',
      'ATT-3',
    ],
    [
      'VER-5: older than the policy allows',
      (world) => world.attestation({ payload: { sub: CLIENT, iat: world.seconds() - 25 * 3600 } }),
      'use_fresh_attestation',
      'VER-5',
    ],
    [
      'VER-4: with a private key',
      (world) =>
        world.attestation({
          payload: { sub: CLIENT, cnf: { jwk: { ...world.instance.publicJwk, dp: 'AAAA' } } as never },
        }),
      'invalid_client_attestation',
      'VER-4',
    ],
  ];
  test.each(rows)('%s are refused, and the client hears why', async (_, attestation, error, rule) => {
    const { ask, as, world } = await start();
    const answer = await ask({ attestation: await attestation(world) });
    expect(as.refusals.map(({ code, rule }) => ({ code, rule }))).toEqual([{ code: error, rule }]);
    expect(answer).toMatchObject({ status: 400, body: { error } });
    expect(answer.headers.get('cache-control')).toContain('no-store');
  });

  test('VER-3: for a client that the attester may not speak for are refused', async () => {
    const { ask, as } = await start((world) => ({
      trust: jwks({ keys: [world.attester.publicJwk], clients: [CLIENTS.dpop_combined] }),
    }));
    expect(await ask()).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
    expect(as.refusals.map(({ rule }) => rule)).toEqual(['VER-3']);
  });

  test('VER-2: with alg none are refused, by the provider itself', async () => {
    const { ask, world } = await start();
    const forged = { header: { alg: 'none' }, payload: { sub: CLIENT }, signer: undefined };
    expect(await ask({ attestation: await world.attestation(forged) })).toMatchObject({
      status: 401,
      body: { error: 'invalid_client' },
    });
  });

  test('VER-6: of another client than the request names are refused', async () => {
    const { as, world, pop } = await start();
    const response = await fetch(`${as.issuer}/token`, {
      method: 'POST',
      headers: {
        'OAuth-Client-Attestation': await world.attestation({ payload: { sub: CLIENT } }),
        'OAuth-Client-Attestation-PoP': await pop(),
      },
      body: new URLSearchParams({ grant_type: 'client_credentials', client_id: CLIENTS.dpop_combined }),
    });
    expect([response.status, await response.json()]).toMatchObject([400, { error: 'invalid_request' }]);
  });

  test('VER-1: two of them in one request are refused', async () => {
    const { as, world, pop } = await start();
    const attestation = await world.attestation({ payload: { sub: CLIENT } });
    const status = await new Promise<number>((resolve, reject) => {
      const headers: IncomingHttpHeaders = {
        'oauth-client-attestation': [attestation, attestation] as never,
        'content-type': 'application/x-www-form-urlencoded',
      };
      const outgoing = httpRequest(`${as.issuer}/token`, { method: 'POST', headers }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      outgoing.on('error', reject);
      void pop().then((proof) => {
        outgoing.setHeader('oauth-client-attestation-pop', proof);
        outgoing.end('grant_type=client_credentials');
      });
    });
    expect(status).toBeGreaterThanOrEqual(400);
    expect(status).toBeLessThan(500);
  });

  test('an attester that cannot be reached is an outage, not a bad client', async () => {
    const { ask, as } = await start(() => ({ trust: remoteJwks('http://127.0.0.1:9/jwks', { timeout: 300 }) }));
    const answer = await ask();
    expect(answer).toMatchObject({ status: 503, body: { error: 'temporarily_unavailable' } });
    expect(answer.headers.get('retry-after')).toBe('1');
    expect(as.refusals.map(({ code }) => code)).toEqual(['temporarily_unavailable']);
  });

  test('ERR-2, ERR-4: an agent whose attestation is too old gets a new one and goes on', async () => {
    const clock = { offset: 0 };
    const world = await startWorld({ now: () => Date.now() + clock.offset, as: { policy: { maxAge: 60 } } });
    const { agent, traffic } = await world.instance('attestation_pop_jwt');
    const ask = async () => {
      const [headers, body] = [new Headers(), new URLSearchParams({ grant_type: 'client_credentials', scope: SCOPE })];
      await agent.clientAuth({ issuer: world.as.issuer }, {}, body, headers);
      return (await agent.fetch(`${world.as.issuer}/token`, { method: 'POST', headers, body })).status;
    };
    expect(await ask()).toBe(200);
    clock.offset = 120_000;
    traffic.clear();
    expect(await ask()).toBe(200);
    expect(traffic.lines(world.as.issuer)).toEqual(['POST 400 /token', 'POST 200 /token']);
    expect(world.as.refusals.map(({ code }) => code)).toEqual(['use_fresh_attestation']);
  });

  test('a revoked instance is refused at once, though its attestation is still good', async () => {
    const world = await startWorld();
    const { agent } = await world.instance('attestation_pop_jwt');
    const ask = async () => {
      const [headers, body] = [new Headers(), new URLSearchParams({ grant_type: 'client_credentials', scope: SCOPE })];
      await agent.clientAuth({ issuer: world.as.issuer }, {}, body, headers);
      return { headers, body };
    };
    const { headers, body } = await ask();
    expect(await world.attester.revoke({ thumbprint: agent.identities()[0]?.thumbprint as string })).toBe(true);
    const response = await agent.fetch(`${world.as.issuer}/token`, { method: 'POST', headers, body });
    expect([response.status, await response.json()]).toMatchObject([400, { error: 'invalid_client_attestation' }]);
  });
});

describe('our policy on proofs', () => {
  test('POP-4: a proof older than the policy allows, though the challenge is still good', async () => {
    const { ask, pop, world, as } = await start(() => ({ policy: { maxPopAge: 60 } }));
    const answer = await ask({ pop: await pop({ iat: world.seconds() - 100 }) });
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
    expect(as.refusals.map(({ rule }) => rule)).toEqual(['POP-4']);
    expect(await ask()).toMatchObject({ status: 200 });
  });

  test('META-3: a method that is not offered', async () => {
    const { ask, as } = await start(() => ({ policy: { popMethods: ['dpop_combined'] } }));
    expect(await ask()).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
    expect(as.refusals.map(({ rule }) => rule)).toEqual(['META-3']);
  });

  test('VER-2: an algorithm that is not accepted, of the proof', async () => {
    const attester = newSigner('EdDSA', 'attester-2');
    const { ask, as, world } = await start(() => ({
      trust: jwks({ keys: [attester.publicJwk] }),
      policy: { algorithms: ['EdDSA'] },
    }));
    const attestation = await world.attestation({
      header: { alg: 'EdDSA', kid: 'attester-2' },
      payload: { sub: CLIENT },
      signer: attester,
    });
    expect(await ask({ attestation })).toMatchObject({ status: 400, body: { error: 'invalid_client_attestation' } });
    expect(as.refusals.map(({ rule }) => rule)).toEqual(['VER-2']);
  });
});

describe('replay', () => {
  test('VER-8: of ten requests at once with one proof exactly one is accepted', async () => {
    const { ask, pop, as } = await start();
    const proof = await pop();
    const answers = await Promise.all(Array.from({ length: 10 }, () => ask({ pop: proof })));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(new Set(as.refusals.map(({ rule }) => rule))).toEqual(new Set(['VER-8']));
    expect(as.refusals).toHaveLength(9);
  });

  test('VER-8: a store that does not answer refuses for now', async () => {
    const claim = () => Promise.reject(new AttestedError('temporarily_unavailable', 'the store is down'));
    const { ask } = await start(() => ({ replay: { claim } }));
    expect(await ask()).toMatchObject({ status: 503, body: { error: 'temporarily_unavailable' } });
  });
});

describe('challenges and nonces', () => {
  const form = () => new URLSearchParams({ grant_type: 'client_credentials', scope: SCOPE });
  async function combined({ as, world }: Parties, nonce: string | undefined) {
    const htu = `${as.issuer}/token`;
    const response = await fetch(htu, {
      method: 'POST',
      headers: {
        'OAuth-Client-Attestation': await world.attestation({ payload: { sub: CLIENTS.dpop_combined } }),
        DPoP: await world.dpop({ payload: { htu, nonce: nonce as string } }),
      },
      body: form(),
    });
    return { status: response.status, body: (await response.json()) as object, headers: response.headers };
  }
  const parties = () =>
    start((world) => ({ trust: jwks({ keys: [world.attester.publicJwk], clients: Object.values(CLIENTS) }) }));

  test('ERR-1: a proof without a challenge is asked for one, and with it accepted', async () => {
    const { ask, world } = await parties();
    const answer = await ask({ pop: await world.pop({ payload: { challenge: undefined as never } }) });
    expect(answer.body).toMatchObject({ error: 'use_attestation_challenge' });
    const challenge = answer.headers.get('oauth-client-attestation-challenge') as string;
    expect(await ask({ pop: await world.pop({ payload: { challenge } }) })).toMatchObject({ status: 200 });
  });

  test('DPOP-4: combined mode takes nonces, not challenges; without one it is told which', async () => {
    const all = await parties();
    const refused = await combined(all, undefined);
    expect(refused.body).toMatchObject({ error: 'use_dpop_nonce' });
    const nonce = refused.headers.get('dpop-nonce') as string;
    const challenge = await fetch(`${all.as.issuer}/challenge`, { method: 'POST' });
    const { attestation_challenge } = (await challenge.json()) as { attestation_challenge: string };
    expect((await combined(all, attestation_challenge)).body).toMatchObject({ error: 'use_dpop_nonce' });
    expect(await combined(all, nonce)).toMatchObject({ status: 200, body: { token_type: 'DPoP' } });
  });

  test('CHA-6: the challenge endpoint brings a nonce that combined mode takes', async () => {
    const all = await parties();
    const nonce = (await fetch(`${all.as.issuer}/challenge`, { method: 'POST' })).headers.get('dpop-nonce');
    expect(await combined(all, nonce as string)).toMatchObject({ status: 200 });
  });
});

test('BIND-1: of an attestation the provider stores the thumbprint of the key, and nothing else', async () => {
  const { ask, world, as } = await start();
  const models = as.provider as unknown as Record<string, { adapter: { upsert(...args: unknown[]): unknown } }>;
  const spies = ['ReplayDetection', 'ClientCredentials'].map((name) => vi.spyOn(models[name]!.adapter, 'upsert'));
  const attestation = await world.attestation({ payload: { sub: CLIENT, device: 'serial-0815' } });
  expect(await ask({ attestation })).toMatchObject({ status: 200 });
  const stored = spies.flatMap(({ mock }) => mock.calls.map((call) => JSON.stringify(call)));
  expect(stored).toHaveLength(2);
  const { x } = world.instance.publicJwk as { x: string };
  for (const secret of [attestation, 'serial-0815', x]) expect(stored.join('\n')).not.toContain(secret);
});

describe('codes', () => {
  const push = async (parties: Awaited<ReturnType<typeof startWorld>>, verifier: string) => {
    const { agent } = await parties.instance('attestation_pop_jwt');
    const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier));
    const post = async (path: string, params: Record<string, string>) => {
      const [headers, body] = [new Headers(), new URLSearchParams(params)];
      await agent.clientAuth({ issuer: parties.as.issuer }, {}, body, headers);
      return agent.fetch(parties.as.issuer + path, { method: 'POST', headers, body });
    };
    const response = await post('/request', {
      response_type: 'code',
      redirect_uri: CALLBACK,
      scope: `openid ${SCOPE}`,
      code_challenge: Buffer.from(digest).toString('base64url'),
      code_challenge_method: 'S256',
    });
    const { request_uri } = (await response.json()) as { request_uri: string };
    const page = new URL(`${parties.as.issuer}/auth?${new URLSearchParams({ client_id: CLIENT, request_uri })}`);
    const redeem = (callback: URL) =>
      post('/token', {
        grant_type: 'authorization_code',
        code: callback.searchParams.get('code') as string,
        redirect_uri: CALLBACK,
        code_verifier: verifier,
      });
    return { page, redeem, id: request_uri.split(':').at(-1) as string };
  };
  const VERIFIER = 'v'.repeat(43);

  test('BIND-2: the pushed request lives as long as the person may take', async () => {
    const world = await startWorld();
    const { page, id } = await push(world, VERIFIER);
    const left = async () => {
      const { exp } = (await world.as.provider.PushedAuthorizationRequest.find(id)) as unknown as { exp: number };
      return exp - Date.now() / 1000;
    };
    expect(await left()).toBeLessThan(61);
    await fetch(page, { redirect: 'manual' });
    expect(await left()).toBeGreaterThan(290);
  });

  test('BIND-2: a pushed request is used once', async () => {
    const world = await startWorld();
    const { page, redeem } = await push(world, VERIFIER);
    expect((await redeem(await visit(page, CALLBACK))).status).toBe(200);
    // the client has two redirect URIs, so the provider shows the error where it stands
    await expect(visit(page, CALLBACK)).rejects.toThrow('invalid_request_uri');
  });

  test('BIND-2: a code whose pushed request is gone is good for nobody', async () => {
    const world = await startWorld();
    const { provider } = world.as;
    provider.on('interaction.started', (ctx) => {
      void (
        ctx.oidc.entities as unknown as Record<string, { destroy(): unknown }>
      ).PushedAuthorizationRequest?.destroy();
    });
    const { page, redeem } = await push(world, VERIFIER);
    const response = await redeem(await visit(page, CALLBACK));
    expect([response.status, await response.json()]).toMatchObject([400, { error: 'invalid_grant' }]);
  });
});

test('a secret of the wrong length is refused at once', async () => {
  const options = { issuer: 'https://as.example', trust: jwks({ keys: [newSigner().publicJwk] }) };
  for (const length of [0, 16, 31, 33]) {
    const make = () => attestClientAuth({ ...options, challengeSecret: new Uint8Array(length) });
    await expectRefusal(make, { code: 'invalid_argument' });
  }
  expect(attestClientAuth(options).challengeSecret).not.toEqual(attestClientAuth(options).challengeSecret);
});

test('BIND-1: without an attestation in the request a token names no instance', async () => {
  for (const ctx of [{}, { oidc: {} }, { oidc: { clientAttestation: { attestation: { payload: {} } } } }]) {
    expect(await clientInstanceClaim(ctx)).toBeUndefined();
  }
});
