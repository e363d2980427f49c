/** One attestation for many requests, renewed ahead of time; and attesters that misbehave. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createAgent } from '../../src/agent/index.ts';
import { createAttestation } from '../../src/core/attestation.ts';
import { AttestedError } from '../../src/errors.ts';
import { openKeys } from '../../src/keys/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { drip, flood, startServer } from '../support/http.ts';
import { newSigner } from '../support/tokens.ts';
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
  type TestAttester,
  tokenRequest,
} from './support.ts';

const ok = () => startFakeAs((_request, response) => json(response, { access_token: 'a', token_type: 'Bearer' }));
const issued = ({ seen }: TestAttester) => seen.filter(({ path }) => path === '/attestation');

async function directory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'attested-agent-'));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

describe('renewal', () => {
  test('IMPL-1: an attestation is reused, renewed in the background past 80 % of its life, and replaced', async () => {
    const as = await ok();
    const { agent, attester, clock } = await newAgent({ lifetime: 1000 });
    const attestations = () => new Set(asked(as, '/token').map(({ headers }) => headers['oauth-client-attestation']));
    await tokenRequest(agent, as.issuer);
    clock.offset = 790_000;
    await tokenRequest(agent, as.issuer);
    expect([attestations().size, issued(attester).length]).toEqual([1, 1]);
    clock.offset = 810_000;
    await tokenRequest(agent, as.issuer);
    expect(attestations().size).toBe(1); // the old one is still good and was not waited for
    await agent.close();
    await tokenRequest(agent, as.issuer);
    expect([attestations().size, issued(attester).length]).toEqual([2, 2]);
  });

  test('IMPL-1: many requests at once share one enrolment, one attestation, one metadata fetch and one challenge', async () => {
    const as = await startFakeAs(
      (request, response) =>
        request.path === '/challenge'
          ? json(response, { attestation_challenge: 'c' })
          : json(response, { access_token: 'a', token_type: 'Bearer' }),
      (origin) => ({ challenge_endpoint: `${origin}/challenge` }),
    );
    const { agent, attester } = await newAgent();
    await Promise.all(Array.from({ length: 20 }, () => tokenRequest(agent, as.issuer)));
    expect(issued(attester)).toHaveLength(1);
    expect(asked(as, '/challenge')).toHaveLength(1);
    expect(asked(as, '/.well-known/oauth-authorization-server')).toHaveLength(1);
    expect(asked(as, '/token')).toHaveLength(20);
  });

  test('IMPL-1: while the attester is down, the attestation in use serves to its end, and the tries get rarer', async () => {
    const as = await ok();
    const { agent, attester, clock, warnings } = await newAgent({ lifetime: 1000 });
    await tokenRequest(agent, as.issuer);
    attester.outage = () => new Response('no', { status: 503 });
    const before = attester.seen.length;
    for (let second = 810; second < 960; second++) {
      clock.offset = second * 1000;
      expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const tries = attester.seen.length - before;
    expect(tries).toBeGreaterThan(3);
    expect(tries).toBeLessThan(16);
    expect(warnings[0]).toMatchObject({ code: 'renewal_failed' });
    clock.offset = 1_000_000;
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'attester_unavailable' });
    attester.outage = undefined;
    clock.offset = 2_000_000;
    expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
  });

  test('IMPL-1: an attester that has just failed is not asked again at once, also when nothing works without it', async () => {
    const as = await ok();
    const { agent, attester, clock } = await newAgent();
    attester.outage = () => new Response(null, { status: 503 });
    for (let i = 0; i < 20; i++) {
      await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'attester_unavailable' });
    }
    expect(attester.seen).toHaveLength(1);
    clock.offset = 1001;
    attester.outage = undefined;
    expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
  });

  test('IMPL-1: attestations survive a restart; after the clock went back they are not trusted', async () => {
    const stateDirectory = await directory();
    const as = await ok();
    const keys = await openKeys('software');
    const attester = newAttester();
    const first = await newAgent({ stateDirectory, keys, attester });
    await tokenRequest(first.agent, as.issuer);
    await first.agent.close();
    const second = await newAgent({ stateDirectory, keys, attester });
    await tokenRequest(second.agent, as.issuer);
    expect(issued(attester)).toHaveLength(1);
    const third = await newAgent({ stateDirectory, keys, attester });
    third.clock.offset = -86_400_000;
    attester.outage = () => new Response(null, { status: 503 });
    await expectRefusal(() => tokenRequest(third.agent, as.issuer), { code: 'attester_unavailable' });
  });

  test('a key store that fails once is asked again', async () => {
    const as = await ok();
    const keys = await openKeys('software');
    let broken = true;
    const { agent } = await newAgent({
      keys: {
        ...keys,
        listKeys: async () => {
          if (broken) throw new AttestedError('key_store_corrupt', 'a file is damaged');
          return keys.listKeys();
        },
      },
    });
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'key_store_corrupt' });
    broken = false;
    expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
  });

  test('IMPL-1: after a key was deleted and made again, nothing of the old one comes back from the state file', async () => {
    const stateDirectory = await directory();
    const as = await ok();
    const keys = await openKeys('software');
    const attester = newAttester();
    const first = await newAgent({ stateDirectory, keys, attester });
    await tokenRequest(first.agent, as.issuer);
    await first.agent.close();
    const label = (await keys.listKeys()).map((key) => key.label).find((name) => !name.endsWith(':enrolment'));
    await keys.deleteKey(label as string);
    const second = await newAgent({ stateDirectory, keys, attester });
    for (let i = 0; i < 2; i++) await tokenRequest(second.agent, as.issuer);
    const shownKeys = asked(as, '/token').map((request) => shown(request).key);
    expect(new Set(shownKeys).size).toBe(2);
    expect(shownKeys[2]).toBe(shownKeys[1]);
  });

  test("IMPL-1: the life of an attestation is counted by this machine's clock, so that one minutes ahead does not renew for ever", async () => {
    const as = await ok();
    const attester = newAttester({ lifetime: 40 });
    const { agent, clock } = await newAgent({ attester });
    clock.offset = 45_000;
    for (let i = 0; i < 3; i++) await tokenRequest(agent, as.issuer);
    expect(issued(attester)).toHaveLength(1);
  });

  test('ERR-4: a server that always wants a fresher attestation cannot use up what the attester grants the instance', async () => {
    const as = await startFakeAs((_request, response) => json(response, { error: 'use_fresh_attestation' }, 400));
    const { agent, attester, clock } = await newAgent();
    for (let i = 0; i < 60; i++) {
      clock.offset += 6_000;
      await tokenRequest(agent, as.issuer);
    }
    expect(issued(attester).length).toBeLessThan(15);
  });

  test('ERR-4: use_fresh_attestation gets a new attestation and one more try, and a second one at once is not believed', async () => {
    const as = await startFakeAs((_request, response) => json(response, { error: 'use_fresh_attestation' }, 400));
    const { agent, attester, clock } = await newAgent();
    // also when what we have is seconds old: the server's clock may be ahead, or the attester's behind
    expect((await tokenRequest(agent, as.issuer)).status).toBe(400);
    expect(issued(attester)).toHaveLength(2);
    expect(new Set(asked(as, '/token').map(({ headers }) => headers['oauth-client-attestation'])).size).toBe(2);
    expect(asked(as, '/token')).toHaveLength(2);
    await tokenRequest(agent, as.issuer);
    expect(issued(attester)).toHaveLength(2);
    expect(asked(as, '/token')).toHaveLength(3);
    clock.offset = 60_000;
    await tokenRequest(agent, as.issuer);
    expect(issued(attester)).toHaveLength(3);
    expect(asked(as, '/token')).toHaveLength(5);
  });
});

describe('enrolment', () => {
  test('two first requests at once spend the one-time token once', async () => {
    const attester = newAttester({ policy: { clients: { [CLIENT_ID]: { enrolment: { tokens: true } } } } });
    const enrolmentToken = await attester.createEnrolmentToken({ clientId: CLIENT_ID });
    const servers = [await ok(), await ok(), await ok()];
    const { agent } = await newAgent({ attester, enrolmentToken });
    const answers = await Promise.all(servers.map(({ issuer }) => tokenRequest(agent, issuer)));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(issued(attester).filter(({ body }) => body.enrolment_token !== undefined)).toHaveLength(1);
    expect(await attester.instances()).toHaveLength(1);
  });

  test('an instance that is not enrolled gets a clear refusal, and the server nothing', async () => {
    const attester = newAttester({ policy: { clients: { [CLIENT_ID]: { enrolment: { tokens: true } } } } });
    const as = await ok();
    const { agent } = await newAgent({ attester, enrolmentToken: 'wrong' });
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'attester_refused' });
    expect(asked(as, '/token')).toEqual([]);
  });

  test('PRIV-3: nothing that the attester gets names a server', async () => {
    const as = await ok();
    const { agent, attester } = await newAgent();
    await tokenRequest(agent, as.issuer, { resource: 'https://secret-server.example/mcp' });
    const decoded = JSON.stringify(attester.seen).replace(
      /[\w-]{20,}/g,
      (text) => `${text} ${Buffer.from(text, 'base64url').toString('latin1')}`,
    );
    expect(decoded).toContain(CLIENT_ID);
    expect(decoded).not.toContain('secret-server');
    expect(decoded).not.toContain(new URL(as.issuer).host);
  });

  test('PRIV-3: key labels do not name servers either', async () => {
    const as = await ok();
    const { agent, keys } = await newAgent();
    await tokenRequest(agent, as.issuer, { resource: 'https://secret-server.example/mcp' });
    const labels = (await keys.listKeys()).map(({ label }) => label);
    expect(labels).toHaveLength(2);
    expect(labels).toContain(`attested:${CLIENT_ID}:enrolment`);
    for (const label of labels) expect(label).not.toMatch(/secret-server|127\.0\.0\.1/);
  });

  test('an agent starts while the attester cannot be reached', async () => {
    const keys = await openKeys('software');
    const agent = await createAgent({ clientId: CLIENT_ID, keys, attester: 'https://attester.invalid' });
    expect(agent.identities()).toEqual([]);
    await agent.close();
  });
});

describe('an attester that misbehaves', () => {
  const give = (attestation: unknown) =>
    new Response(JSON.stringify({ attestation, expires_at: 1, instance_id: 'i' }), {
      headers: { 'content-type': 'application/json' },
    });
  const other = newSigner();
  const claims = (changes: object = {}) => {
    const iat = Math.floor(Date.now() / 1000);
    return { sub: CLIENT_ID, iat, exp: iat + 60, cnf: { jwk: other.publicJwk }, ...changes };
  };

  test.each<[string, () => Promise<Response> | Response]>([
    ['an attestation for another key', async () => give(await createAttestation(claims(), attesterSigner))],
    [
      'an attestation for another client',
      async () => give(await createAttestation(claims({ sub: 'x' }), attesterSigner)),
    ],
    ['an attestation that is no JWT', () => give('nonsense')],
    ['no attestation', () => give(undefined)],
    ['a page', () => new Response('<html>', { headers: { 'content-type': 'text/html' } })],
    ['broken JSON', () => new Response('{', { headers: { 'content-type': 'application/json' } })],
    ['a redirect', () => new Response(null, { status: 307, headers: { location: 'https://elsewhere.example/' } })],
    ['status 500', () => new Response(null, { status: 500 })],
    ['status 429', () => new Response(null, { status: 429 })],
  ])('gives %s: attester_unavailable, and nothing reaches the server', async (_name, answer) => {
    const as = await ok();
    const attester = newAttester();
    const real = attester.handler;
    const { agent } = await newAgent({ attester });
    attester.handler = async (request) => {
      if (new URL(request.url).pathname !== '/attestation') return real(request);
      return answer();
    };
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'attester_unavailable' });
    expect(asked(as, '/token')).toEqual([]);
  });

  test('asks for a fresh challenge without end: two requests, then attester_refused', async () => {
    const as = await ok();
    const { agent, attester } = await newAgent();
    const real = attester.handler;
    attester.handler = async (request) => {
      const answer = await real(request);
      if (new URL(request.url).pathname !== '/attestation') return answer;
      return new Response('{"error":"use_attestation_challenge"}', {
        status: 400,
        headers: { 'content-type': 'application/json' },
      });
    };
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'attester_refused' });
    expect(issued(attester)).toHaveLength(2);
  });

  test.each<[string, Parameters<typeof startServer>[0]]>([
    ['never answers', () => undefined],
    ['drips its answer', (_request, response) => drip(response.writeHead(200, { 'content-type': 'application/json' }))],
    [
      'answers 100 MB',
      (_request, response) =>
        flood(response.writeHead(200, { 'content-type': 'application/json' }), 100 * 1024 * 1024, { bytes: 0 }),
    ],
    ['hangs up', (request) => request.socket.destroy()],
  ])('%s: attester_unavailable within the time limit', async (_name, handler) => {
    const server = await startServer(handler);
    onTestFinished(() => server.close());
    const as = await ok();
    const keys = await openKeys('software');
    const agent = await createAgent({ clientId: CLIENT_ID, keys, attester: server.origin, timeout: 300 });
    const start = performance.now();
    await expectRefusal(() => tokenRequest(agent, as.issuer), { code: 'attester_unavailable' });
    expect(performance.now() - start).toBeLessThan(3000);
    expect(server.seen).toEqual(['/challenge']);
  });

  test('an attester without TLS is not asked', async () => {
    const keys = await openKeys('software');
    await expectRefusal(() => createAgent({ clientId: CLIENT_ID, keys, attester: 'http://attester.example' }), {
      code: 'invalid_argument',
    });
    expect(ATTESTER).toMatch(/^https:/);
  });
});
