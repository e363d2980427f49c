/** The fetch layer: protected resources, retries, redirects, header size. */
import { describe, expect, test } from 'vitest';
import { sha256Base64url } from '../../src/platform/crypto.ts';
import { createVerifier, jwks } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import {
  asked,
  attesterSigner,
  type Handler,
  json,
  listen,
  newAgent,
  type Seen,
  shown,
  startFakeAs,
  startFakeRs,
  tokenRequest,
} from './support.ts';

const CHALLENGE = 'OAuth-Client-Attestation-Challenge';
const bearer = { access_token: 'tok', token_type: 'Bearer' };
const withToken = { headers: { authorization: 'Bearer tok' } };

/** 401 with a pointer to the metadata unless the request carries an attestation. */
const wantsAttestation =
  (origin: string): Handler =>
  (request, response) =>
    request.headers['oauth-client-attestation'] === undefined
      ? response
          .writeHead(401, {
            'www-authenticate': `Bearer resource_metadata="${origin}/.well-known/oauth-protected-resource/mcp"`,
          })
          .end()
      : json(response, { ok: true });

describe('retries', () => {
  test.each<[string, number, string, Record<string, string>]>([
    ['400', 400, 'use_attestation_challenge', { [CHALLENGE]: 'again' }],
    ['401', 401, 'use_attestation_challenge', { [CHALLENGE]: 'again' }],
    ['even 200', 200, 'use_attestation_challenge', { [CHALLENGE]: 'again' }],
    ['400 for a nonce', 400, 'use_dpop_nonce', { 'DPoP-Nonce': 'again' }],
  ])(
    'ERR-4: a server that asks for ever, by %s, gets two requests and two different proofs',
    async (_name, status, error, headers) => {
      const method = error === 'use_dpop_nonce' ? 'attest_jwt_client_auth_dpop' : 'attest_jwt_client_auth';
      const as = await startFakeAs(
        (_request, response) => json(response, { error }, status, headers),
        () => ({ token_endpoint_auth_methods_supported: [method] }),
      );
      const { agent } = await newAgent();
      const response = await tokenRequest(agent, as.issuer);
      expect([response.status, await response.json()]).toEqual([status, { error }]);
      const proofs = asked(as, '/token').map((request) => shown(request).pop ?? shown(request).dpop);
      expect(proofs).toHaveLength(2);
      expect(new Set(proofs.map((proof) => proof?.jti)).size).toBe(2);
      expect(proofs[1]?.challenge ?? proofs[1]?.nonce).toBe('again');
      expect(new Set(asked(as, '/token').map(({ body }) => body)).size).toBe(1);
    },
  );

  test('ERR-4: requests at once to a server of single-use challenges: each tries again with the one it was given', async () => {
    let count = 0;
    const unused = new Set<unknown>();
    const as = await startFakeAs((request, response) => {
      if (unused.delete(shown(request).pop?.challenge)) return json(response, bearer);
      const challenge = `c${++count}`;
      unused.add(challenge);
      // all headers first, the bodies later: by then the latest challenge is another's
      response.writeHead(400, { 'content-type': 'application/json', [CHALLENGE]: challenge }).flushHeaders();
      setTimeout(() => response.end('{"error":"use_attestation_challenge"}'), 100);
    });
    const { agent } = await newAgent();
    const answers = await Promise.all(Array.from({ length: 10 }, () => tokenRequest(agent, as.issuer)));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 200));
  });

  test.each<[string, number, unknown, Record<string, string>]>([
    ['another error', 400, { error: 'invalid_grant' }, { [CHALLENGE]: 'x' }],
    ['invalid_client_attestation', 401, { error: 'invalid_client_attestation' }, { [CHALLENGE]: 'x' }],
    ['a demand for a challenge without one', 400, { error: 'use_attestation_challenge' }, {}],
    ['a demand for a nonce without one', 400, { error: 'use_dpop_nonce' }, {}],
    ['a challenge too long to be one', 400, { error: 'use_attestation_challenge' }, { [CHALLENGE]: 'x'.repeat(3000) }],
    ['a list', 400, [{ error: 'use_attestation_challenge' }], { [CHALLENGE]: 'x' }],
  ])('ERR-4: %s is not tried again', async (_name, status, body, headers) => {
    const as = await startFakeAs((_request, response) => json(response, body, status, headers));
    const { agent } = await newAgent();
    expect((await tokenRequest(agent, as.issuer)).status).toBe(status);
    expect(asked(as, '/token')).toHaveLength(1);
  });

  test('ERR-4: the code may stand in WWW-Authenticate alone', async () => {
    let count = 0;
    const as = await startFakeAs((_request, response) => {
      if (count++ > 0) return json(response, bearer);
      const headers = { 'www-authenticate': 'Bearer error="use_attestation_challenge"', [CHALLENGE]: 'c' };
      return response.writeHead(401, headers).end('<html>');
    });
    const { agent } = await newAgent();
    expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
  });

  test('ERR-4: a body that can be read only once is sent once', async () => {
    const as = await startFakeAs((_request, response) =>
      json(response, { error: 'use_attestation_challenge' }, 400, { [CHALLENGE]: 'c' }),
    );
    const { agent } = await newAgent();
    const [headers, form] = [new Headers(), new URLSearchParams({ grant_type: 'client_credentials' })];
    await agent.addClientAuthentication(headers, form, as.issuer, { issuer: as.issuer });
    const body = new Blob([form.toString()]).stream();
    const response = await agent.fetch(`${as.issuer}/token`, { method: 'POST', headers, body, duplex: 'half' });
    expect([response.status, asked(as, '/token').length]).toEqual([400, 1]);
    expect(asked(as, '/token')[0]?.body).toBe(form.toString());
  });

  test("DPOP-1: a DPoP proof by the caller's own key is left alone, and the request not sent twice with it", async () => {
    const as = await startFakeAs(
      (_request, response) => json(response, { error: 'use_attestation_challenge' }, 400, { [CHALLENGE]: 'c' }),
      () => ({ token_endpoint_auth_methods_supported: ['attest_jwt_client_auth_dpop', 'attest_jwt_client_auth'] }),
    );
    const { agent } = await newAgent();
    await tokenRequest(agent, as.issuer, {}, { headers: { dpop: 'a.b.c' } });
    expect(asked(as, '/token').map(({ headers }) => headers.dpop)).toEqual(['a.b.c']);
    expect(asked(as, '/token')[0]?.headers['oauth-client-attestation-pop']).toBeDefined();
  });

  test('ERR-4: a refusal with a large or endless body is passed on, not read', async () => {
    const as = await startFakeAs((_request, response) => {
      response.writeHead(400, { 'content-type': 'application/json' });
      response.write(`{"error":"use_attestation_challenge","pad":"${'x'.repeat(200_000)}`);
    });
    const { agent } = await newAgent();
    const start = performance.now();
    const response = await tokenRequest(agent, as.issuer);
    expect(response.status).toBe(400);
    expect(performance.now() - start).toBeLessThan(2000);
    const reader = response.body?.getReader();
    let size = 0;
    while (size < 200_000) size += (await reader?.read())?.value?.length ?? Number.NaN;
    await reader?.cancel();
    expect(asked(as, '/token')).toHaveLength(1);
  });
});

describe('protected resources', () => {
  test('META-3, POP-9: a 401 that points to metadata teaches the agent, which then attests to that resource', async () => {
    const rs = await startFakeRs(wantsAttestation);
    const { agent } = await newAgent();
    const responses = [await agent.fetch(rs.resource, withToken), await agent.fetch(`${rs.resource}/x`, withToken)];
    expect(responses.map(({ status }) => status)).toEqual([200, 200]);
    const [first, second, third] = rs.seen.filter(({ path }) => path.startsWith('/mcp')).map(shown);
    expect(first?.attestation).toBeUndefined();
    expect(second?.pop).toMatchObject({ aud: rs.resource });
    expect(third?.pop).toMatchObject({ aud: rs.resource });
    expect(third?.pop?.jti).not.toBe(second?.pop?.jti);
  });

  test('META-3: the real verifier lets the agent in, with a challenge by way of its 401', async () => {
    const rs = await listen((origin) => {
      const verifier = createVerifier({
        role: 'rs',
        audience: `${origin}/mcp`,
        trust: jwks({ keys: [attesterSigner.publicJwk] }),
        resourceMetadata: `${origin}/meta`,
      });
      return async ({ method, path, headers }, response) => {
        if (path === '/meta') return json(response, { resource: `${origin}/mcp`, ...verifier.metadata() });
        try {
          const client = await verifier.verify({ headers, method, url: origin + path });
          return json(response, { thumbprint: client.thumbprint, method: client.method });
        } catch (error) {
          const answer = verifier.respond(error);
          response.writeHead(answer.status, Object.fromEntries(answer.headers));
          return response.end(await answer.text());
        }
      };
    });
    const { agent } = await newAgent();
    const answer = await (await agent.fetch(`${rs.origin}/mcp`, withToken)).json();
    expect(answer).toEqual({ thumbprint: agent.identities()[0]?.thumbprint, method: 'attestation_pop_jwt' });
    // unattested, attested without a challenge, attested with the challenge
    expect(asked(rs, '/mcp')).toHaveLength(3);
  });

  test.each<[string, (origin: string) => Record<string, unknown>]>([
    ['another origin', () => ({ resource: 'https://honest.example/mcp' })],
    ['a sibling', (origin) => ({ resource: `${origin}/mcp2` })],
    ['a path below', (origin) => ({ resource: `${origin}/mcp/admin` })],
    ['nothing', () => ({ resource: undefined })],
  ])('META-6: metadata for %s is not believed', async (_name, metadata) => {
    const rs = await startFakeRs(wantsAttestation, metadata);
    const { agent } = await newAgent();
    expect((await agent.fetch(rs.resource, withToken)).status).toBe(401);
    expect(asked(rs, '/mcp')).toHaveLength(1);
    // nor does it make the agent attest to whom it names
    for (const path of ['/mcp2', '/mcp/admin']) await agent.fetch(rs.origin + path, withToken);
    expect(rs.seen.flatMap(({ headers }) => headers['oauth-client-attestation'] ?? [])).toEqual([]);
    expect(agent.identities()).toEqual([]);
  });

  test('META-6: a document that passes by and names a resource of another origin is not believed', async () => {
    const honest = await listen(() => (_request, response) => json(response, {}));
    const hostile = await startFakeRs(
      () => (_request, response) => json(response, {}),
      () => ({ resource: `${honest.origin}/mcp` }),
    );
    const { agent } = await newAgent();
    await agent.fetch(hostile.metadataUrl);
    await agent.fetch(`${honest.origin}/mcp`, withToken);
    expect(honest.seen[0]?.headers['oauth-client-attestation']).toBeUndefined();
  });

  test('META-6: a pointer to metadata on another origin is not followed', async () => {
    const other = await listen(() => (_request, response) => json(response, {}));
    const rs = await startFakeRs(
      () => (_request, response) =>
        response.writeHead(401, { 'www-authenticate': `Bearer resource_metadata="${other.origin}/x"` }).end(),
    );
    const { agent } = await newAgent();
    expect((await agent.fetch(rs.resource, withToken)).status).toBe(401);
    expect(other.seen).toEqual([]);
  });

  test('META-3: requests elsewhere on the origin, without a token, or to a resource that offers nothing, stay as they are', async () => {
    const rs = await startFakeRs(() => (_request, response) => json(response, {}));
    const plain = await startFakeRs(
      () => (_request, response) => json(response, {}),
      () => ({ client_attestation_pop_methods_supported: undefined }),
    );
    const optional = await startFakeRs(
      () => (_request, response) => json(response, {}),
      () => ({ client_attestation_pop_methods_supported: ['none', 'attestation_pop_jwt'] }),
    );
    const { agent } = await newAgent();
    for (const { metadataUrl } of [rs, plain, optional]) await agent.fetch(metadataUrl, withToken);
    await agent.fetch(`${rs.origin}/mcpx`, withToken);
    await agent.fetch(plain.resource, withToken);
    await agent.fetch(optional.resource);
    for (const seen of [...rs.seen, ...plain.seen, ...optional.seen]) {
      expect([seen.path, seen.headers['oauth-client-attestation'], seen.headers.dpop]).toEqual([
        seen.path,
        undefined,
        undefined,
      ]);
    }
    expect(agent.identities()).toEqual([]);
  });

  test('META-4: a resource that demands what the agent cannot do gets no request', async () => {
    const rs = await startFakeRs(
      () => (_request, response) => json(response, {}),
      () => ({ client_attestation_pop_methods_supported: ['next_years_method'] }),
    );
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    await expectRefusal(() => agent.fetch(rs.resource, withToken), { code: 'server_unsupported', rule: 'META-4' });
    expect(asked(rs, '/mcp')).toEqual([]);
  });

  test('DPOP-2: a DPoP token that an SDK sends as Bearer goes out as DPoP, with ath, htm and htu', async () => {
    const as = await startFakeAs((_request, response) => json(response, { access_token: 'tok', token_type: 'DPoP' }));
    const rs = await startFakeRs(() => (_request, response) => json(response, {}, 200, { 'DPoP-Nonce': 'n' }));
    const { agent } = await newAgent();
    await tokenRequest(agent, as.issuer, { resource: rs.resource });
    for (let i = 0; i < 2; i++) await agent.fetch(`${rs.resource}?q=1`, { method: 'POST', body: '{}', ...withToken });
    const [first, second] = asked(rs, '/mcp?q=1');
    expect(first?.headers.authorization).toBe('DPoP tok');
    expect(first && shown(first).dpop).toMatchObject({
      ath: sha256Base64url('tok'),
      htm: 'POST',
      htu: rs.resource,
    });
    expect(second && shown(second).dpop).toMatchObject({ nonce: 'n' });
  });

  test('ERR-4: use_dpop_nonce of a resource without attestation is answered once', async () => {
    const as = await startFakeAs((_request, response) => json(response, { access_token: 'tok', token_type: 'DPoP' }));
    const rs = await startFakeRs(
      () => (_request, response) =>
        response.writeHead(401, { 'www-authenticate': 'DPoP error="use_dpop_nonce"', 'dpop-nonce': 'n' }).end(),
    );
    const { agent } = await newAgent();
    await tokenRequest(agent, as.issuer, { resource: rs.resource });
    await agent.fetch(rs.resource, withToken);
    expect(asked(rs, '/mcp').map((request) => shown(request).dpop?.nonce)).toEqual([undefined, 'n']);
  });

  test('an event stream passes through as it comes', async () => {
    let send: ((text: string) => void) | undefined;
    const rs = await startFakeRs(() => (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
      send = (text) => response.end(text);
    });
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    const response = await agent.fetch(rs.resource, withToken);
    const reader = response.body?.getReader();
    const next = async () => Buffer.from((await reader?.read())?.value ?? []).toString();
    expect(await next()).toBe('data: 1\n\n');
    send?.('data: 2\n\n');
    expect(await next()).toBe('data: 2\n\n');
    expect(response.url).toBe(rs.resource);
  });
});

describe('redirects', () => {
  test.each([301, 302, 303, 307, 308])(
    'META-6: a %i is handed back, and nothing of the client follows it',
    async (status) => {
      const other = await listen(() => (_request, response) => json(response, bearer));
      const redirect: Handler = (_request, response) =>
        response.writeHead(status, { location: `${other.origin}/x` }).end();
      const as = await startFakeAs(redirect);
      const rs = await startFakeRs(() => redirect);
      const { agent } = await newAgent();
      await agent.fetch(rs.metadataUrl);
      expect((await tokenRequest(agent, as.issuer)).status).toBe(status);
      expect((await agent.fetch(rs.resource, withToken)).status).toBe(status);
      expect(other.seen).toEqual([]);
    },
  );

  test('PRIV-1: nor does a DPoP proof for a token that the agent does not know', async () => {
    const other = await listen(() => (_request, response) => json(response, {}));
    const rs = await listen(() => (_request, response) => response.writeHead(307, { location: other.origin }).end());
    const { agent } = await newAgent();
    const proof = await agent.dpopSession().buildProof({ htm: 'GET', htu: rs.origin, accessToken: 'opaque' });
    const headers = { authorization: 'DPoP opaque', dpop: proof };
    expect((await agent.fetch(rs.origin, { headers })).status).toBe(307);
    await expect(agent.fetch(rs.origin, { headers, redirect: 'error' })).rejects.toThrow();
    expect(other.seen).toEqual([]);
  });

  test('a caller that treats redirects as errors keeps doing so; requests of others follow as ever', async () => {
    const rs = await startFakeRs(
      (origin) => (request, response) =>
        request.path === '/target'
          ? json(response, { there: true })
          : response.writeHead(302, { location: `${origin}/target` }).end(),
    );
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    await expect(agent.fetch(rs.resource, { ...withToken, redirect: 'error' })).rejects.toThrow();
    expect(await (await agent.fetch(`${rs.origin}/other`)).json()).toEqual({ there: true });
  });
});

describe('use as fetch', () => {
  test('a Request object works like URL and init', async () => {
    const rs = await startFakeRs(() => (_request, response) => json(response, {}));
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    const request = new Request(rs.resource, { method: 'POST', body: 'hello', headers: withToken.headers });
    expect((await agent.fetch(request as never)).status).toBe(200);
    const [seen] = asked(rs, '/mcp');
    expect([seen?.method, seen?.body]).toEqual(['POST', 'hello']);
    expect(seen && shown(seen).pop?.aud).toBe(rs.resource);
  });

  test('an abort signal stops the request', async () => {
    const rs = await startFakeRs(() => () => undefined);
    const { agent } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    const signal = AbortSignal.timeout(100);
    await expect(agent.fetch(rs.resource, { ...withToken, signal })).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  test("another client's attestation is passed on untouched", async () => {
    const seen: Seen[] = [];
    const server = await listen(() => (request, response) => {
      seen.push(request);
      json(response, {});
    });
    const { agent } = await newAgent();
    const headers = { 'oauth-client-attestation': 'x.y.z', 'oauth-client-attestation-pop': 'p.q.r' };
    await agent.fetch(`${server.origin}/token`, { method: 'POST', headers });
    expect(seen[0]?.headers).toMatchObject(headers);
  });
});

describe('header size', () => {
  test('IMPL-3: headers over the budget are a warning, once per server, that names the biggest part', async () => {
    const as = await startFakeAs((_request, response) => json(response, bearer));
    const { agent, warnings } = await newAgent({ headerBudget: 300 });
    await tokenRequest(agent, as.issuer);
    await tokenRequest(agent, as.issuer);
    expect(warnings).toMatchObject([{ code: 'header_budget', servers: [`${as.issuer}/`] }]);
    expect(warnings[0]?.message).toMatch(
      /over the budget of 300; the biggest part is OAuth-Client-Attestation with \d+/,
    );
  });

  test('IMPL-3: the usual request stays below the default budget', async () => {
    const as = await startFakeAs((_request, response) => json(response, bearer));
    const { agent, warnings } = await newAgent();
    await tokenRequest(agent, as.issuer);
    expect(warnings).toEqual([]);
  });

  test('IMPL-3: a 431 is explained', async () => {
    const as = await startFakeAs((_request, response) => response.writeHead(431).end());
    const { agent, warnings } = await newAgent();
    expect((await tokenRequest(agent, as.issuer)).status).toBe(431);
    expect(warnings).toMatchObject([{ code: 'header_refused', message: expect.stringContaining('(431)') }]);
  });
});
