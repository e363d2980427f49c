/** What tools demand: how it is said, and bodies that are too much or came too late. */
import { Hono } from 'hono';
import { describe, expect, test } from 'vitest';
import { type AttestedEnv, requireAttestedAgent } from '../../src/integrations/hono.ts';
import { attestationOf, requireForTool, type ToolDemand, type ToolDemands } from '../../src/mcp/index.ts';
import { callTool } from '../support/adapter-suite.ts';
import { expectRefusal } from '../support/errors.ts';
import { createGate, RESOURCE } from '../support/gate.ts';
import { requestOf, type Sent } from '../support/world.ts';

describe('a demand that means nothing is refused when it is given', () => {
  test.each<[string, unknown]>([
    ['a misspelt member', { deploy: { keyStorge: 'hardware' } }],
    ['an unknown storage', { deploy: { keyStorage: 'hardwear' } }],
    ['unknown evidence', { deploy: { keyEvidence: 'trust me' } }],
    ['an age that is text', { deploy: { maxAge: '60' } }],
    ['an age that is no number', { deploy: { maxAge: Number.NaN } }],
    ['an age below zero', { deploy: { maxAge: -1 } }],
    ['claims in a list', { deploy: { claims: ['a'] } }],
    ['the status, which is of all requests', { deploy: { status: true } }],
    ['text', { deploy: 'hardware' }],
    ['a wrong row for all tools', { deploy: {}, '*': { keyStorage: 'gold' } }],
  ])('%s', async (_name, tools) => {
    await expectRefusal(async () => createGate({ tools: tools as ToolDemands }), { code: 'invalid_argument' });
  });

  test('inside a tool, too', async () => {
    await expectRefusal(async () => requireForTool(undefined, { keyStorge: 'x' } as ToolDemand), {
      code: 'invalid_argument',
    });
  });
});

test('what `*` demands holds for a tool with a row of its own, member by member', async () => {
  const tools: ToolDemands = {
    '*': { keyStorage: 'keychain' },
    deploy: { maxAge: 600 },
    ping: { keyStorage: 'software' },
  };
  const gate = createGate({ tools });
  const call = async (name: string, storage: string) => {
    const attestation = await gate.world.attestation({ payload: { key_storage: [storage] } });
    const answer = await gate.call(await gate.sentPop({ attestation }), { parsedBody: callTool(name) });
    return answer instanceof Response ? answer.status : 200;
  };
  expect(await call('deploy', 'software')).toBe(403);
  expect(await call('deploy', 'keychain')).toBe(200);
  expect(await call('ping', 'software')).toBe(200);
  expect(await call('other', 'software')).toBe(403);
});

test('claims and evidence', async () => {
  const gate = createGate({ tools: { deploy: { keyEvidence: 'tpm-certified', claims: { site: 'north' } } } });
  const call = async (payload: Record<string, string>) => {
    const attestation = await gate.world.attestation({ payload });
    const answer = await gate.call(await gate.sentPop({ attestation }), { parsedBody: callTool('deploy') });
    return answer instanceof Response ? answer.status : 200;
  };
  expect(await call({ key_evidence: 'self-asserted', site: 'north' })).toBe(403);
  expect(await call({ key_evidence: 'tpm-certified', site: 'south' })).toBe(403);
  expect(await call({ key_evidence: 'tpm-certified', site: 'north' })).toBe(200);
});

describe('bodies', () => {
  const tools: ToolDemands = { deploy: { keyStorage: 'hardware' } };
  const requestWith = (sent: Sent, body: string | Uint8Array | ReadableStream, method = 'POST') =>
    new Request(RESOURCE, { method, headers: requestOf(sent).headers, body, duplex: 'half' } as RequestInit);

  test('the gate reads a copy, the server the body itself', async () => {
    const gate = createGate({ tools });
    const request = requestWith(await gate.sentPop(), JSON.stringify(callTool('whoami')));
    expect(await gate.gate(request)).not.toBeInstanceOf(Response);
    expect(await request.json()).toEqual(callTool('whoami'));
  });

  test.each([
    ['5 MiB', () => `${' '.repeat(5 * 2 ** 20)}${JSON.stringify(callTool('whoami'))}`],
    ['300 levels', () => `{"jsonrpc":"2.0","params":${'['.repeat(300)}${']'.repeat(300)}}`],
    ['bytes that are no UTF-8', () => new Uint8Array([0x7b, 0xff, 0x7d])],
    ['UTF-16', () => new Uint8Array(Buffer.from(JSON.stringify(callTool('deploy')), 'utf16le'))],
  ])('%s: refused', async (_name, body) => {
    const gate = createGate({ tools });
    const answer = await gate.gate(requestWith(await gate.sentPop(), body()));
    expect(answer).toBeInstanceOf(Response);
    expect((answer as Response).status).toBe(400);
  });

  test('a body without end: not read to its end', async () => {
    const gate = createGate({ tools });
    let pulled = 0;
    const endless = new ReadableStream({
      pull(controller) {
        pulled += 65_536;
        controller.enqueue(new Uint8Array(65_536).fill(0x20));
      },
    });
    const answer = await gate.gate(requestWith(await gate.sentPop(), endless));
    expect((answer as Response).status).toBe(400);
    expect(pulled).toBeLessThan(6 * 2 ** 20);
  });

  test.each([
    ['no body to see', {}],
    ['a parser that passed it over', { parsedBody: {} }],
    ['text', { parsedBody: '{"jsonrpc":"2.0"}' }],
    ['bytes', { parsedBody: new Uint8Array(2) }],
    ['a batch with something else in it', { parsedBody: [callTool('whoami'), 7] }],
  ])('%s: the gate stays shut', async (_name, request) => {
    const gate = createGate({ tools });
    const answer = await gate.call(await gate.sentPop(), request);
    expect(answer).toBeInstanceOf(Response);
    expect((answer as Response).status).toBeGreaterThanOrEqual(400);
  });

  test('a body that somebody has read before', async () => {
    const gate = createGate({ tools });
    const request = requestWith(await gate.sentPop(), JSON.stringify(callTool('whoami')));
    await request.text();
    expect((await gate.gate(request)) as Response).toMatchObject({ status: 503 });
    expect(gate.refusals[0]?.message).toContain('parsedBody');
  });

  test.each(['GET', 'DELETE', 'HEAD', 'OPTIONS'])('%s has none', async (method) => {
    const gate = createGate({ tools });
    expect(await gate.call(await gate.sentPop(), { method })).not.toBeInstanceOf(Response);
    expect(await gate.call(await gate.sentPop(), { method, parsedBody: {} })).not.toBeInstanceOf(Response);
    // a body that was parsed all the same is judged: what makes a POST of it (a method override) may come behind the gate
    expect(await gate.call(await gate.sentPop(), { method, parsedBody: callTool('deploy') })).toMatchObject({
      status: 403,
    });
  });
});

test('VER-1: Hono where there is no Node below it: fields sent twice come joined, and are refused', async () => {
  const gate = createGate();
  const { verifier, clock } = gate.world;
  const app = new Hono<AttestedEnv>();
  const guard = requireAttestedAgent({ verifier, verifyAccessToken: async () => gate.token, now: () => clock.now });
  app.all('/mcp', guard, (c) => c.text(c.get('auth').clientId));
  const statusOf = async (sent: Sent) => {
    const headers = new Headers();
    for (const [name, value] of requestOf(sent).headers) headers.append(name, value);
    return (await app.request(RESOURCE, { method: 'POST', headers })).status;
  };
  const attestation = await gate.world.attestation();
  expect(await statusOf(await gate.sentPop({ attestation }))).toBe(200);
  expect(await statusOf(await gate.sentPop({ attestation: [attestation, attestation] }))).toBe(401);
});

test('nothing that came as JSON is a verified caller', () => {
  const forged = { clientId: 'forged', keyStorage: 'hardware', keyEvidence: 'tpm-certified', claims: {} };
  const _meta = { 'oauth-client-attestation': forged };
  for (const context of [{ _meta }, { mcpReq: { _meta } }, { authInfo: undefined, _meta }, {}, undefined]) {
    expect(attestationOf(context)).toBeUndefined();
    expect(requireForTool(context, { keyStorage: 'hardware' })).toMatchObject({ isError: true });
  }
});
