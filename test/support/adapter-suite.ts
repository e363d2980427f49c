/** What every server adapter owes: one table of good and bad requests, over a real connection. */
import { describe, expect, test } from 'vitest';
import type { ProtectOptions, ToolDemands } from '../../src/mcp/index.ts';
import { calls, type Listening, type RawAnswer } from './adapters.ts';
import { createGate, type GateWorld, METADATA_URL, RESOURCE, TOKEN } from './gate.ts';
import { CLIENT_ID, requestOf, type Sent, type WorldOptions } from './world.ts';

type Line = readonly [string, string];

const HOST: Line = ['Host', 'mcp.example'];
const JSON_TYPE: Line = ['Content-Type', 'application/json'];
const ACCEPT: Line = ['Accept', 'application/json, text/event-stream'];
const STANDARD: readonly Line[] = [HOST, JSON_TYPE, ACCEPT];
const METADATA_PATH = '/.well-known/oauth-protected-resource/mcp';
const CHALLENGE_PATH = '/mcp/attestation-challenge';

export const rpc = (method: string, params: object = {}, id: number | string = 1): object => ({
  jsonrpc: '2.0',
  id,
  method,
  params,
});
export const callTool = (name: string, id?: number): object => rpc('tools/call', { name, arguments: {} }, id);

export interface Suite {
  listen(options: ProtectOptions): Promise<Listening>;
  /** The adapter sees the messages, so `tools` works at its gate. Default true. */
  tools?: boolean;
  /** The adapter has web `Headers` only. */
  joined?: boolean;
}

interface Running extends GateWorld {
  server: Listening;
  post(sent: Sent, body: unknown, headers?: readonly Line[]): Promise<RawAnswer>;
}

async function start(
  suite: Suite,
  { tools, ...world }: { tools?: ToolDemands } & Partial<WorldOptions> = {},
): Promise<Running> {
  const gate = createGate({}, world);
  const { verifier, clock } = gate.world;
  const server = await suite.listen({
    verifier,
    authorizationServers: ['https://as.example'],
    verifyAccessToken: async (token) => {
      if (token !== TOKEN) throw new Error('unknown token');
      return gate.token;
    },
    onRefusal: (error) => gate.refusals.push(error),
    now: () => clock.now,
    ...(tools !== undefined && { tools }),
  });
  const post: Running['post'] = (sent, body, headers = STANDARD) => {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const lines = requestOf(sent).headers.filter(([name]) => name !== 'Accept');
    return server.raw('/mcp', [...headers, ...lines], 'POST', text);
  };
  calls.length = 0;
  return { ...gate, server, post };
}

/** Bad transport of the tokens: what to do to honest header lines, and the status that has to come of it. */
interface BadHeaders {
  name: string;
  status: number;
  /** The wire's error code; none where the request has no credentials. */
  error: string;
  /** The proof was judged, and is spent. */
  spends?: true;
  lines: (honest: Honest) => Line[];
  /** Where repeated fields arrive as one, joined by a comma, it is no access token. */
  joined?: { status: number; error: string };
}

const BAD_HEADERS: readonly BadHeaders[] = [
  { name: 'no tokens at all', status: 401, error: '', lines: () => [] },
  { name: 'no access token', status: 401, error: '', lines: ({ attestation, pop }) => [attestation, pop] },
  {
    name: 'no attestation',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, pop }) => [token, pop],
  },
  {
    name: 'no proof',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation }) => [token, attestation],
  },
  {
    name: 'the attestation twice',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation, pop }) => [token, attestation, attestation, pop],
  },
  {
    name: 'the attestation twice, in two cases of its name',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation, pop }) => [token, attestation, [attestation[0].toUpperCase(), attestation[1]], pop],
  },
  {
    name: 'the proof twice',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation, pop }) => [token, attestation, pop, pop],
  },
  {
    name: 'the attestation comma-joined',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation: [name, value], pop }) => [token, [name, `${value},${value}`], pop],
  },
  {
    name: 'an empty attestation',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation: [name], pop }) => [token, [name, ''], pop],
  },
  {
    name: 'an attestation that is not token68',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation: [name, value], pop }) => [token, [name, `"${value}"`], pop],
  },
  {
    name: 'an attestation in another case of its value',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation: [name, value], pop }) => [token, [name, value.toUpperCase()], pop],
  },
  {
    name: 'an attestation over the verifier’s limit',
    status: 401,
    error: 'invalid_client_attestation',
    lines: ({ token, attestation: [name, value], pop }) => [token, [name, value + 'A'.repeat(9000)], pop],
  },
  {
    name: 'headers over what Node reads',
    status: 431,
    error: '',
    lines: ({ token, attestation: [name, value], pop }) => [token, [name, value + 'A'.repeat(20_000)], pop],
  },
  {
    name: 'Authorization twice',
    status: 400,
    error: 'invalid_request',
    joined: { status: 401, error: '' },
    lines: ({ token, attestation, pop }) => [token, ['authorization', 'Bearer other'], attestation, pop],
  },
  {
    name: 'another token scheme',
    status: 401,
    error: '',
    lines: ({ attestation, pop }) => [['Authorization', `Basic ${TOKEN}`], attestation, pop],
  },
  {
    name: 'another access token',
    status: 401,
    error: 'invalid_token',
    spends: true,
    lines: ({ attestation, pop }) => [['Authorization', 'Bearer stolen'], attestation, pop],
  },
];

interface Honest {
  token: Line;
  attestation: Line;
  pop: Line;
}

async function honestLines({ world }: GateWorld): Promise<Honest> {
  return {
    token: ['Authorization', `Bearer ${TOKEN}`],
    attestation: ['OAuth-Client-Attestation', await world.attestation()],
    pop: ['OAuth-Client-Attestation-PoP', await world.pop()],
  };
}

export function describeAdapter(name: string, suite: Suite): void {
  describe(name, () => {
    test('what is known of the caller is there in the tool', async () => {
      const running = await start(suite);
      const { world } = running;
      const attestation = await world.attestation({
        payload: { key_storage: ['keychain'], key_evidence: 'self-asserted' },
      });
      const answer = await running.post(await running.sentPop({ attestation }), callTool('whoami'));
      expect(answer.status).toBe(200);
      const { result } = messageOf(answer) as { result: { content: { text: string }[] } };
      expect(JSON.parse(result.content[0]?.text ?? '')).toEqual({
        client: CLIENT_ID,
        thumbprint: world.instance.thumbprint,
        keyStorage: 'keychain',
        keyEvidence: 'self-asserted',
        attester: expect.any(String),
        sub: CLIENT_ID,
      });
    });

    test('DPOP-1: combined mode, whatever Host says', async () => {
      const running = await start(suite);
      const headers: Line[] = [['Host', 'elsewhere.example'], JSON_TYPE, ACCEPT];
      expect((await running.post(await running.sentCombined(), callTool('whoami'), headers)).status).toBe(200);
    });

    test.each(BAD_HEADERS)('VER-1, POP-8: $name', async ({ lines, joined, spends, ...row }) => {
      const { status, error } = (suite.joined && joined) || row;
      const running = await start(suite);
      const honest = await honestLines(running);
      const body = JSON.stringify(callTool('whoami'));
      const refused = await running.server.raw('/mcp', [...STANDARD, ...lines(honest)], 'POST', body);
      expect(refused.status, refused.text).toBe(status);
      expect(calls).toEqual([]);
      for (const [, value] of [honest.attestation, honest.pop]) expect(refused.text).not.toContain(value);
      if (status === 431) return; // Node's own answer, before any of us is asked
      if (error !== '') expect(refused.text).toContain(`"error":"${error}"`);
      const authenticate = refused.headers.get('www-authenticate');
      if (status === 401) {
        expect(authenticate).toContain(`resource_metadata="${METADATA_URL}"`);
        if (error === '') expect(authenticate).not.toContain('error=');
        else expect(authenticate).toContain(`error="${error}"`);
        expect(refused.headers.get('oauth-client-attestation-challenge')).toEqual(expect.any(String));
      } else expect(authenticate).toBeNull();
      expect(refused.headers.get('cache-control')).toBe('no-store');
      if (spends) return;
      // nothing was spent: the same honest lines get in
      const { token, attestation, pop } = honest;
      const admitted = await running.server.raw('/mcp', [...STANDARD, token, attestation, pop], 'POST', body);
      expect(admitted.status).toBe(200);
      // and are spent then
      expect((await running.server.raw('/mcp', [...STANDARD, token, attestation, pop], 'POST', body)).status).toBe(401);
    });

    test('META-2, META-3: the metadata document, for GET and HEAD only', async () => {
      const { server } = await start(suite);
      const answer = await fetch(server.origin + METADATA_PATH);
      expect(answer.headers.get('content-type')).toMatch(/^application\/json/);
      expect(await answer.json()).toMatchObject({
        resource: RESOURCE,
        authorization_servers: ['https://as.example'],
        client_attestation_pop_methods_supported: ['attestation_pop_jwt', 'dpop_combined'],
        client_attestation_signing_alg_values_supported: expect.arrayContaining(['ES256']),
        challenge_endpoint: `https://mcp.example${CHALLENGE_PATH}`,
      });
      expect((await server.raw(METADATA_PATH, [HOST], 'HEAD')).status).toBe(200);
      expect((await server.raw(METADATA_PATH, [HOST], 'POST')).status).toBe(405);
    });

    test('CHA-1: the challenge endpoint, for POST only, and never cached', async () => {
      const { server } = await start(suite);
      const answer = await server.raw(CHALLENGE_PATH, [HOST]);
      expect(answer.status).toBe(200);
      expect(answer.headers.get('cache-control')).toBe('no-store');
      expect(answer.text).toContain('"attestation_challenge":"');
      const wrong = await server.raw(CHALLENGE_PATH, [HOST], 'GET');
      expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST']);
    });

    if (suite.tools !== false) describeTools(suite);
  });
}

function messageOf({ text }: RawAnswer): unknown {
  return JSON.parse(/(\{"(?:jsonrpc|result|error|id)".*\})\s*$/m.exec(text)?.[1] ?? text);
}

const DEMANDS: ToolDemands = { deploy: { keyStorage: 'hardware' }, '*': { keyStorage: 'software' } };
const batch = (...messages: object[]): object[] => messages;

/** Bodies sent with a key in software, where `deploy` demands hardware. */
const BODIES: readonly { name: string; body: unknown; headers?: readonly Line[]; status?: number }[] = [
  { name: 'the tool itself', body: callTool('deploy'), status: 403 },
  { name: 'in a batch', body: batch(rpc('tools/list'), callTool('deploy', 2)), status: 403 },
  { name: 'in a batch behind one that may', body: batch(callTool('whoami'), callTool('deploy', 2)), status: 403 },
  { name: 'in a batch in a batch', body: [[callTool('deploy')]] },
  {
    name: 'as a notification',
    body: { jsonrpc: '2.0', method: 'tools/call', params: { name: 'deploy' } },
    status: 403,
  },
  { name: 'with the method in another case', body: rpc('Tools/Call', { name: 'deploy' }), status: 403 },
  { name: 'with space around the method', body: rpc(' tools/call ', { name: 'deploy' }), status: 403 },
  {
    name: 'with a second name, the harmless one last',
    body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"deploy","name":"whoami"}}',
  },
  {
    name: 'with a second name, the harmless one first',
    body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","name":"deploy"}}',
  },
  {
    name: 'with a second method',
    body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"deploy"},"\\u006dethod":"tools/list"}',
  },
  {
    name: 'with its letters escaped',
    body: '{"jsonrpc":"2.0","id":1,"method":"tools\\u002fcall","params":{"name":"\\u0064eploy"}}',
    status: 403,
  },
  { name: 'with a byte order mark', body: `\ufeff${JSON.stringify(callTool('deploy'))}` },
  {
    name: 'under another charset',
    body: callTool('deploy'),
    headers: [HOST, ['Content-Type', 'application/json; charset=utf-16le'], ACCEPT],
  },
  { name: 'as text', body: callTool('deploy'), headers: [HOST, ['Content-Type', 'text/plain'], ACCEPT] },
  { name: 'without a type', body: callTool('deploy'), headers: [HOST, ACCEPT] },
  { name: 'as no JSON', body: '{"jsonrpc":' },
  { name: 'as an empty body', body: '' },
  {
    name: 'as __proto__',
    body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"__proto__":{"name":"deploy"}}}',
  },
];

function describeTools(suite: Suite): void {
  test.each(BODIES)('a demand cannot be got around: $name', async ({ body, headers, status }) => {
    const running = await start(suite, { tools: DEMANDS });
    const attestation = await running.world.attestation({ payload: { key_storage: ['software'] } });
    const answer = await running.post(await running.sentPop({ attestation }), body, headers);
    // a body that its parser understood as another call is that call: what is judged is what is served
    expect(calls).not.toContain('deploy');
    if (status === undefined) return;
    expect(answer.status, answer.text).toBe(status);
    expect(answer.text).toContain('"error":"access_denied"');
    expect(answer.text).toContain('this tool requires an attestation with a key in hardware storage');
    expect(answer.headers.get('www-authenticate')).toBeNull();
  });

  test.each<[string, string, Line[]]>([
    ['PUT', 'PUT', []],
    ['PATCH', 'PATCH', []],
    ['a POST that would be another method', 'POST', [['X-HTTP-Method-Override', 'GET']]],
    ['what resumes a stream', 'POST', [['Last-Event-ID', '1']]],
    ['another path, by a field', 'POST', [['X-Original-URL', '/elsewhere']]],
    ['an encoding that is none', 'POST', [['Content-Encoding', 'identity']]],
    ['an encoding that is not the body’s', 'POST', [['Content-Encoding', 'gzip']]],
  ])('a demand cannot be got around by %s', async (_how, method, more) => {
    const running = await start(suite, { tools: DEMANDS });
    const attestation = await running.world.attestation({ payload: { key_storage: ['software'] } });
    const lines = requestOf(await running.sentPop({ attestation })).headers.filter(([name]) => name !== 'Accept');
    const body = JSON.stringify(callTool('deploy'));
    const answer = await running.server.raw('/mcp', [...STANDARD, ...more, ...lines], method, body);
    expect(calls).not.toContain('deploy');
    expect(answer.status).toBeGreaterThanOrEqual(400);
  });

  test.each([
    ['a tool that demands less', callTool('whoami')],
    ['a tool of which nothing is said, by another case of the name', callTool('Deploy')],
    ['tools/list', rpc('tools/list')],
    ['a resource', rpc('resources/read', { uri: 'note://1' })],
    ['prompts', rpc('prompts/list')],
    ['a tool that is not there', callTool('constructor')],
  ])('the demand of one tool does not touch %s', async (_name, message) => {
    const running = await start(suite, { tools: DEMANDS });
    const attestation = await running.world.attestation({ payload: { key_storage: ['software'] } });
    expect((await running.post(await running.sentPop({ attestation }), message)).status).toBe(200);
    expect(running.refusals).toEqual([]);
  });

  test('a key that is good enough calls the tool; `*` holds for the tools that are not named', async () => {
    const running = await start(suite, { tools: DEMANDS });
    const hardware = await running.world.attestation({ payload: { key_storage: ['hardware'] } });
    expect((await running.post(await running.sentPop({ attestation: hardware }), callTool('deploy'))).status).toBe(200);
    expect(calls).toEqual(['deploy']);
    // this one says nothing of its storage
    expect((await running.post(await running.sentPop(), callTool('other'))).status).toBe(403);
    expect((await running.post(await running.sentPop(), callTool('__proto__'))).status).toBe(403);
    expect(calls).toEqual(['deploy']);
  });

  test('ERR-4: an attestation that is too old for a tool: the agent is told to fetch another', async () => {
    const running = await start(suite, { tools: { deploy: { maxAge: 30 } } });
    const answer = await running.post(await running.sentPop(), callTool('deploy'));
    expect(answer.status).toBe(401);
    expect(answer.headers.get('www-authenticate')).toContain('error="use_fresh_attestation"');
    expect(calls).toEqual([]);
    const fresh = await running.world.attestation({ payload: { iat: running.world.seconds() - 10 } });
    expect((await running.post(await running.sentPop({ attestation: fresh }), callTool('deploy'))).status).toBe(200);
  });

  test('without an attestation, where it is optional, a tool that demands one is not called', async () => {
    const policy = { popMethods: ['attestation_pop_jwt', 'none'] as const };
    const running = await start(suite, { tools: { deploy: { keyStorage: 'software' } }, policy });
    delete running.token.instance;
    const bare = () => running.sentPop({ attestation: null, pop: null });
    expect((await running.post(await bare(), callTool('deploy'))).status).toBe(401);
    expect((await running.post(await bare(), callTool('whoami'))).status).toBe(200);
    expect(calls).toEqual(['whoami']);
  });

  test('inside a tool: a result that says no', async () => {
    const running = await start(suite);
    const sent = async (storage: string) =>
      running.sentPop({ attestation: await running.world.attestation({ payload: { key_storage: [storage] } }) });
    expect(messageOf(await running.post(await sent('software'), callTool('guarded')))).toMatchObject({
      result: {
        isError: true,
        content: [{ type: 'text', text: 'this tool requires an attestation with a key in hardware storage' }],
        _meta: { 'oauth-client-attestation-error': 'access_denied' },
      },
    });
    expect(messageOf(await running.post(await sent('hardware'), callTool('guarded')))).toMatchObject({
      result: { content: [{ text: 'done' }] },
    });
  });
}
