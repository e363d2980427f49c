/** Signing in: what the loopback address accepts, and what page a browser is sent to. */
import { createHash } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import type * as oauth from 'oauth4webapi';
import { describe, expect, test } from 'vitest';
import { type LoginOptions, type OAuthOptions, type SignedIn, signIn } from '../../src/bridge/auth/login.ts';
import { expectRefusal } from '../support/errors.ts';

const ISSUER = 'https://as.example';
const AS = {
  issuer: ISSUER,
  authorization_endpoint: `${ISSUER}/authorize?tenant=7`,
  code_challenge_methods_supported: ['S256'],
  authorization_response_iss_parameter_supported: true,
};

interface Begun {
  page: URL;
  redirect: URL;
  state: string;
  done: Promise<SignedIn>;
}

function begin(metadata: object = {}, login: Partial<LoginOptions> = {}): Promise<Begun> {
  return new Promise((resolve, reject) => {
    const done = signIn({
      as: { ...AS, ...metadata } as oauth.AuthorizationServer,
      client: { client_id: 'client' },
      agent: undefined as never, // only for pushed requests
      options: {} as OAuthOptions,
      parameters: { resource: 'https://mcp.example/mcp' },
      login: {
        show: (page) => {
          const redirect = new URL(page.searchParams.get('redirect_uri') ?? '');
          resolve({ page, redirect, state: page.searchParams.get('state') ?? '', done });
        },
        timeout: 5000,
        port: undefined,
        signal: new AbortController().signal,
        ...login,
      },
    });
    done.catch(reject);
  });
}

function visit(url: URL, { method = 'GET', host = url.host } = {}): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const { hostname, port, pathname, search } = url;
    const request = httpRequest(
      { hostname, port, path: pathname + search, method, headers: { host } },
      async (response) => {
        let text = '';
        for await (const chunk of response.setEncoding('utf8') as AsyncIterable<string>) text += chunk;
        resolve({ status: response.statusCode ?? 0, text });
      },
    );
    request.once('error', reject);
    request.end();
  });
}

const back = ({ redirect, state }: Begun, params: Record<string, string> = {}): URL => {
  const url = new URL(redirect);
  url.search = new URLSearchParams({ code: 'the-code', state, iss: ISSUER, ...params }).toString();
  return url;
};

test('the page gets PKCE, state, resource and a redirect to a free port of this machine; its own query stays', async () => {
  const begun = await begin();
  const { page, redirect } = begun;
  expect(page.origin + page.pathname).toBe(`${ISSUER}/authorize`);
  const asked = Object.fromEntries(page.searchParams);
  expect(asked).toMatchObject({
    tenant: '7',
    client_id: 'client',
    response_type: 'code',
    resource: 'https://mcp.example/mcp',
    code_challenge_method: 'S256',
  });
  expect([redirect.hostname, redirect.pathname]).toEqual(['127.0.0.1', '/callback']);
  const answer = await visit(back(begun));
  expect([answer.status, answer.text.includes('the-code')]).toEqual([200, false]);
  const { answer: params, redirectUri, verifier } = await begun.done;
  expect(params.get('code')).toBe('the-code');
  expect(redirectUri).toBe(redirect.href);
  expect(createHash('sha256').update(verifier).digest('base64url')).toBe(asked.code_challenge);
  await expect(visit(back(begun))).rejects.toThrow(); // nobody listens any more
});

describe('what else comes to the port changes nothing', () => {
  test.each<[string, (begun: Begun) => [URL, { method?: string; host?: string }?]]>([
    ['another state', (begun) => [back(begun, { state: 'x'.repeat(43) })]],
    ['no state', ({ redirect }) => [new URL('?code=x', redirect)]],
    ['two states', (begun) => [new URL(`${back(begun).href}&state=x`)]],
    ['an error without the state', ({ redirect }) => [new URL('?error=access_denied', redirect)]],
    ['another path', (begun) => [new URL(back(begun).href.replace('/callback', '/'))]],
    ['another method', (begun) => [back(begun), { method: 'POST' }]],
    ['another name for this machine', (begun) => [back(begun), { host: 'evil.example' }]],
  ])('%s', async (_what, request) => {
    const begun = await begin();
    const [url, how] = request(begun);
    expect((await visit(url, how)).status).toBe(400);
    await visit(back(begun));
    expect((await begun.done).answer.get('code')).toBe('the-code');
  });
});

describe('what ends it', () => {
  test.each<[string, Record<string, string>]>([
    ['another server’s answer (mix-up)', { iss: 'https://evil.example' }],
    ['a no', { error: 'access_denied' }],
  ])('%s', async (_what, params) => {
    const begun = await begin();
    const failed = expect(begun.done).rejects.toBeInstanceOf(Error);
    await visit(back(begun, params));
    await failed;
  });

  test('an answer that does not say whose it is, from a server that says it does', async () => {
    const begun = await begin();
    const url = back(begun);
    url.searchParams.delete('iss');
    const failed = expect(begun.done).rejects.toBeInstanceOf(Error);
    await visit(url);
    await failed;
  });

  test('nobody comes', async () => {
    const { done } = await begin({}, { timeout: 100 });
    await expectRefusal(() => done, { code: 'authorization_failed' });
  });

  test('the program is asked to end', async () => {
    const stop = new AbortController();
    const { done } = await begin({}, { signal: stop.signal });
    stop.abort();
    await expectRefusal(() => done, { code: 'authorization_failed' });
  });

  test('the port is taken', async () => {
    const { redirect, done } = await begin({}, { timeout: 500 });
    await expectRefusal(() => begin({}, { port: Number(redirect.port) }), { code: 'authorization_failed' });
    await done.catch(() => undefined);
  });
});

describe('no browser is sent', () => {
  test.each<[string, object, 'metadata_mismatch' | 'server_unsupported' | 'invalid_argument']>([
    ['to a file', { authorization_endpoint: 'file:///etc/passwd' }, 'invalid_argument'],
    ['to a script', { authorization_endpoint: 'javascript:alert(1)' }, 'invalid_argument'],
    ['to another program', { authorization_endpoint: 'calculator:x' }, 'invalid_argument'],
    ['over plain HTTP', { authorization_endpoint: 'http://as.example/authorize' }, 'invalid_argument'],
    ['to nowhere', { authorization_endpoint: '' }, 'metadata_mismatch'],
    ['to a service of this machine', { authorization_endpoint: 'http://127.0.0.1:8080/x' }, 'metadata_mismatch'],
    ['without a page', { authorization_endpoint: undefined }, 'server_unsupported'],
    ['without PKCE', { code_challenge_methods_supported: undefined }, 'server_unsupported'],
    ['with plain PKCE only', { code_challenge_methods_supported: ['plain'] }, 'server_unsupported'],
  ])('%s', async (_what, metadata, code) => {
    await expectRefusal(() => begin(metadata), { code });
  });
});
