/** The Express adapter, in Express 5 over a real connection. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import express from 'express';
import { describe, expect, onTestFinished, test } from 'vitest';
import { attestedResource, requireAttestedAgent } from '../../src/integrations/express.ts';
import type { AuthInfo } from '../../src/mcp/server.ts';
import { createGate, METADATA_URL, RESOURCE, TOKEN } from '../support/gate.ts';
import { CLIENT_ID, requestOf, type Sent, type WorldOptions } from '../support/world.ts';

type Handler = (auth: AuthInfo, request: express.Request, response: express.Response) => unknown;

/** An app as a reader of the documentation would write it. */
async function start(handler: Handler = () => undefined, verifierOptions: Partial<WorldOptions> = {}) {
  const gate = createGate({}, verifierOptions);
  const { verifier, clock } = gate.world;
  const faults: unknown[] = [];
  const app = express();
  const resource = attestedResource({ verifier, authorizationServers: ['https://as.example'] });
  app.use(resource);
  const guard = requireAttestedAgent({
    verifier,
    verifyAccessToken: async () => gate.token,
    resourceMetadataUrl: resource.metadataUrl,
    onRefusal: (error) => gate.refusals.push(error),
    now: () => clock.now,
  });
  app.use('/mcp', guard);
  app.all('/mcp', async (request, response) => {
    const { auth } = request as unknown as { auth: AuthInfo };
    await handler(auth, request, response);
    if (!response.headersSent) response.json({ client: auth.clientId, instance: auth.extra.attestation?.thumbprint });
  });
  app.use(((error, _request, response, _next) => {
    faults.push(error);
    response.status(500).end();
  }) as express.ErrorRequestHandler);
  const server = createServer(app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;

  /** Sends the bytes of a request head and gives the whole answer. */
  const raw = (
    target: string,
    headers: readonly (readonly [string, string])[] = [],
    method = 'POST',
  ): Promise<string> =>
    new Promise((resolve, reject) => {
      const lines = [`${method} ${target} HTTP/1.1`, ...headers.map(([name, value]) => `${name}: ${value}`)];
      let answer = '';
      const socket = connect(port, '127.0.0.1', () => {
        socket.write(`${[...lines, 'Content-Length: 0', 'Connection: close'].join('\r\n')}\r\n\r\n`, 'latin1');
      });
      socket.setEncoding('latin1');
      socket.on('data', (part) => {
        answer += part;
      });
      socket.on('close', () => resolve(answer));
      socket.on('error', reject);
    });
  const send = (sent: Sent, init: RequestInit = {}) =>
    fetch(`http://127.0.0.1:${port}/mcp`, { method: 'POST', headers: requestOf(sent).headers, ...init });
  return { ...gate, faults, raw, send, port };
}

const statusOf = (answer: string) => Number(answer.split(' ')[1]);
const HOST = ['Host', 'mcp.example'] as const;

describe('requireAttestedAgent', () => {
  test('puts the AuthInfo on the request', async () => {
    const { send, sentPop, world } = await start();
    const response = await send(await sentPop());
    expect(await response.json()).toEqual({
      client: CLIENT_ID,
      instance: world.instance.thumbprint,
    });
  });

  test('the body is still there for the transport', async () => {
    let body = '';
    const { send, sentPop } = await start(async (_auth, request) => {
      for await (const part of request) body += part;
    });
    const response = await send(await sentPop(), { body: '{"jsonrpc":"2.0"}' });
    expect([response.status, body]).toEqual([200, '{"jsonrpc":"2.0"}']);
  });

  test('a refusal ends here, as the gate gave it', async () => {
    let reached = false;
    const { send, sentPop, refusals } = await start(() => {
      reached = true;
    });
    const response = await send(await sentPop({ attestation: null }));
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe(
      `Bearer error="invalid_client_attestation", error_description="${refusals[0]?.message}", resource_metadata="${METADATA_URL}"`,
    );
    expect(response.headers.get('oauth-client-attestation-challenge')).toEqual(expect.any(String));
    expect(await response.json()).toMatchObject({ error: 'invalid_client_attestation' });
    expect(reached).toBe(false);
  });

  test('an AuthInfo that something before us left is replaced, and does not survive a refusal', async () => {
    const guard = requireAttestedAgent({
      verifier: createGate().world.verifier,
      verifyAccessToken: async () => ({}) as never,
    });
    const request = { method: 'POST', url: '/mcp', rawHeaders: [], auth: { clientId: 'forged' } as never };
    let passed = false;
    const response = { status: () => undefined, setHeader: () => undefined, end: () => undefined };
    await guard(request, response, () => {
      passed = true;
    });
    expect(passed).toBe(false);
    expect(request.auth).toBeUndefined();
  });

  test('VER-1, POP-8: fields that are sent twice are seen, though Node drops or joins them', async () => {
    const { raw, world } = await start();
    const attestation = ['OAuth-Client-Attestation', await world.attestation()] as const;
    const token = ['Authorization', `Bearer ${TOKEN}`] as const;
    const pop = async () => ['OAuth-Client-Attestation-PoP', await world.pop()] as const;
    expect(statusOf(await raw('/mcp', [HOST, token, attestation, await pop()]))).toBe(200);
    expect(statusOf(await raw('/mcp', [HOST, token, attestation, attestation, await pop()]))).toBe(401);
    expect(statusOf(await raw('/mcp', [HOST, token, attestation, await pop(), await pop()]))).toBe(401);
    expect(statusOf(await raw('/mcp', [HOST, token, ['authorization', 'Bearer x'], attestation, await pop()]))).toBe(
      400,
    );
  });

  test('DPOP-2: whatever Host says, the proof is judged by our own name', async () => {
    const { raw, sentCombined } = await start();
    for (const host of ['mcp.example', 'evil.example', '127.0.0.1:1']) {
      const { headers } = requestOf(await sentCombined());
      expect(statusOf(await raw('/mcp', [['Host', host], ...headers]))).toBe(200);
    }
  });

  test('DPOP-2: a router below a path: the proof is for the whole path', async () => {
    const { raw, sentCombined, proof } = await start();
    const { headers } = requestOf(
      await sentCombined({ dpop: await proof({ payload: { htu: 'https://mcp.example/' } }) }),
    );
    expect(statusOf(await raw('/mcp', [HOST, ...headers]))).toBe(401);
  });

  test('CHA-3: an ageing challenge is renewed with the answer', async () => {
    const challenges = { issue: async () => 'fresh', check: () => 'ageing' as const };
    const { send, sentPop } = await start(undefined, { challenges });
    const response = await send(await sentPop());
    expect(response.headers.get('oauth-client-attestation-challenge')).toBe('fresh');
  });

  test('a handler that throws: its error goes to Express, once', async () => {
    const fault = new Error('secret of the handler');
    const { send, sentPop, faults } = await start(() => {
      throw fault;
    });
    const response = await send(await sentPop());
    expect([response.status, await response.text()]).toEqual([500, '']);
    expect(faults).toEqual([fault]);
  });
});

describe('attestedResource', () => {
  test('META-2, CHA-1: the document and the challenge endpoint it names', async () => {
    const { port } = await start();
    const metadata = await fetch(`http://127.0.0.1:${port}/.well-known/oauth-protected-resource/mcp`);
    expect(metadata.headers.get('content-type')).toBe('application/json');
    const document = (await metadata.json()) as { resource: string; challenge_endpoint: string };
    expect(document.resource).toBe(RESOURCE);
    const path = new URL(document.challenge_endpoint).pathname;
    const challenge = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST' });
    expect(challenge.headers.get('cache-control')).toBe('no-store');
    expect(await challenge.json()).toEqual({ attestation_challenge: expect.any(String) });
    expect((await fetch(`http://127.0.0.1:${port}${path}`)).status).toBe(405);
  });

  test.each([
    '//evil.example/.well-known/oauth-protected-resource/mcp',
    'http://evil.example/.well-known/oauth-protected-resource/mcp',
    '//',
    '/\\evil.example',
    '/%',
    '/%00',
    '*',
    '/..%2f..%2fmcp',
    '/mcp/../.well-known/oauth-protected-resource/mcp',
    'http://[',
    'http://',
    '/ü',
    `/${'a'.repeat(6000)}`,
  ])('the hostile target %j neither crashes nor leaks', async (target) => {
    const { raw, faults } = await start();
    for (const method of ['GET', 'POST', 'OPTIONS', 'TRACE']) {
      const answer = await raw(target, [HOST], method);
      expect(statusOf(answer)).toBeLessThan(500);
      expect(answer).not.toMatch(/TypeError|at \w+ \(|location:/i);
      if (statusOf(answer) === 200 && method === 'GET') expect(answer).toContain(`"resource":"${RESOURCE}"`);
    }
    expect(faults).toEqual([]);
    expect(statusOf(await raw('/.well-known/oauth-protected-resource/mcp', [HOST], 'GET'))).toBe(200);
  });
});
