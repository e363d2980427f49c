/** JWT access tokens of an AS (RFC 9068): what is accepted, and what an AS that misbehaves comes to. */
import { createHmac } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { describe, expect, onTestFinished, test } from 'vitest';
import { encodeBase64url, utf8 } from '../../src/core/bytes.ts';
import { type JwtAccessTokenOptions, jwtAccessTokens } from '../../src/mcp/access-tokens.ts';
import { expectRefusal, refusalOf } from '../support/errors.ts';
import { createGate } from '../support/gate.ts';
import { drip, flood, sendJson, startServer } from '../support/http.ts';
import { forge, newSigner } from '../support/tokens.ts';

const ISSUER = 'https://as.example';
const AUDIENCE = 'https://mcp.example/mcp';
const NOW = Date.UTC(2026, 10, 22, 12);
const seconds = NOW / 1000;
const signer = newSigner('ES256', 'as-1');
const rsa = newSigner('RS256', 'as-rsa');
const published = { keys: [signer.publicJwk, rsa.publicJwk] };

async function start(
  options: Partial<JwtAccessTokenOptions> = {},
  answer: (request: IncomingMessage, response: ServerResponse) => void = (_, response) => sendJson(response, published),
) {
  const server = await startServer(answer);
  onTestFinished(() => server.close());
  const verify = jwtAccessTokens({
    issuer: ISSUER,
    audience: AUDIENCE,
    jwksUri: `${server.origin}/jwks`,
    now: () => NOW,
    timeout: 300,
    ...options,
  });
  return { server, verify };
}

interface Changes {
  header?: object;
  payload?: object;
  signer?: typeof signer | undefined;
}

const tokenOf = ({ header, payload, ...rest }: Changes = {}) =>
  forge({
    header: { alg: 'ES256', typ: 'at+jwt', kid: 'as-1', ...header },
    payload: {
      iss: ISSUER,
      aud: AUDIENCE,
      client_id: 'client',
      sub: 'alice',
      scope: 'mcp mail',
      iat: seconds,
      exp: seconds + 60,
      ...payload,
    },
    signer: 'signer' in rest ? rest.signer : signer,
  });

describe('accepted', () => {
  test('RFC 9068 §2.2: what it says, in the shape of the gate', async () => {
    const { verify } = await start();
    const token = await tokenOf({ payload: { cnf: { jkt: 'thumb' }, client_instance_jkt: 'instance' } });
    expect(await verify(token)).toEqual({
      token,
      clientId: 'client',
      scopes: ['mcp', 'mail'],
      expiresAt: seconds + 60,
      resource: new URL(AUDIENCE),
      jkt: 'thumb',
      instance: 'instance',
      extra: { subject: 'alice' },
    });
  });

  const rows: [string, Changes, Partial<JwtAccessTokenOptions>?][] = [
    ['no scope', { payload: { scope: undefined } }],
    ['an empty scope', { payload: { scope: '' } }],
    ['no subject', { payload: { sub: undefined } }],
    ['typ as a media type', { header: { typ: 'application/at+jwt' } }],
    ['several audiences, ours among them', { payload: { aud: ['https://other.example', AUDIENCE] } }],
    ['RSA', { header: { alg: 'RS256', kid: 'as-rsa' }, signer: rsa }],
    ['expired within the tolerance', { payload: { exp: seconds - 4 } }],
    [
      'an audience without path, with a slash',
      { payload: { aud: 'https://mcp.example/' } },
      { audience: 'https://mcp.example' },
    ],
    ['a claim of another name', { payload: { instance: 'x' } }, { instanceClaim: 'instance' }],
  ];
  test.each(rows)('%s', async (_, changes, options) => {
    const { verify } = await start(options);
    expect(await verify(await tokenOf(changes))).toMatchObject({ clientId: 'client' });
  });

  test('the keys are fetched once', async () => {
    const { verify, server } = await start();
    for (let i = 0; i < 3; i++) await verify(await tokenOf());
    expect(server.seen).toEqual(['/jwks']);
  });
});

describe('refused as invalid_token', () => {
  const publicKeyAsSecret = {
    sign: async (data: Uint8Array) =>
      new Uint8Array(createHmac('sha256', JSON.stringify(signer.publicJwk)).update(data).digest()),
  };
  const rows: [string, Changes, Partial<JwtAccessTokenOptions>?][] = [
    ['another issuer', { payload: { iss: 'https://evil.example' } }],
    ['the issuer with a slash', { payload: { iss: `${ISSUER}/` } }],
    ['no issuer', { payload: { iss: undefined } }],
    ['another audience', { payload: { aud: 'https://other.example/mcp' } }],
    ['an audience that begins like ours', { payload: { aud: `${AUDIENCE}2` } }],
    ['other audiences', { payload: { aud: ['https://other.example', ISSUER] } }],
    ['no audience', { payload: { aud: undefined } }],
    ['an ID token', { header: { typ: 'JWT' } }],
    ['no typ', { header: { typ: undefined } }],
    ['an attestation', { header: { typ: 'oauth-client-attestation+jwt' } }],
    ['alg none', { header: { alg: 'none' }, signer: undefined }],
    ['HS256 with the public key as secret', { header: { alg: 'HS256' }, signer: publicKeyAsSecret as never }],
    ['an algorithm that is not accepted', {}, { algorithms: ['RS256'] }],
    ['an algorithm that does not fit the key', { header: { alg: 'RS256' } }],
    ['expired', { payload: { exp: seconds - 6 } }],
    ['no end', { payload: { exp: undefined } }],
    ['an end that is no number', { payload: { exp: 'tomorrow' } }],
    ['not yet valid', { payload: { nbf: seconds + 60 } }],
    ['an unknown key', { header: { kid: 'other' } }],
    ['a key of its own in the header', { header: { kid: undefined, jwk: newSigner().publicJwk }, signer: newSigner() }],
    ['a critical extension', { header: { crit: ['x'], x: 1 } }],
    ['another signer', { signer: newSigner() }],
    ['no signature', { signer: undefined }],
    ['no client', { payload: { client_id: undefined } }],
    ['a client that is no string', { payload: { client_id: 1 } }],
    ['an instance that is no string', { payload: { client_instance_jkt: ['a'] } }],
    ['bound to a certificate (RFC 8705)', { payload: { cnf: { 'x5t#S256': 'AAAA' } } }],
    ['bound to a certificate and a key', { payload: { cnf: { jkt: 'thumb', 'x5t#S256': 'AAAA' } } }],
    ['a thumbprint that is no string', { payload: { cnf: { jkt: 1 } } }],
    ['a binding that is no object', { payload: { cnf: 'thumb' } }],
    ['no binding in the binding', { payload: { cnf: {} } }],
  ];
  test.each(rows)('%s', async (_, changes, options) => {
    const { verify } = await start(options);
    const token = await tokenOf(changes);
    const { message } = await expectRefusal(() => verify(token), { code: 'invalid_token' });
    expect(message).not.toContain(token);
  });

  test.each(['', 'x', 'a.b', 'a.b.c', '..', 'a.b.c.d.e', `${encodeBase64url(utf8('{}'))}..`])(
    'the text %j',
    async (text) => {
      const { verify } = await start();
      await expectRefusal(() => verify(text), { code: 'invalid_token' });
    },
  );

  test('IMPL-5: unknown keys do not make us hammer the AS', async () => {
    const { verify, server } = await start();
    await verify(await tokenOf());
    for (let i = 0; i < 5; i++) {
      const token = await tokenOf({ header: { kid: `unknown-${i}` } });
      await expectRefusal(() => verify(token), { code: 'invalid_token' });
    }
    expect(server.seen).toEqual(['/jwks']);
  });
});

describe('an AS whose keys cannot be had says nothing about the token: 503', () => {
  const answers: [string, (request: IncomingMessage, response: ServerResponse) => void][] = [
    ['500', (_, response) => sendJson(response, {}, 'application/json', 500)],
    ['404', (_, response) => sendJson(response, {}, 'application/json', 404)],
    ['no JSON', (_, response) => sendJson(response, '<html>')],
    ['JSON that is no key set', (_, response) => sendJson(response, { keys: 'none' })],
    ['a redirect', (_, response) => void response.writeHead(302, { location: 'https://evil.example' }).end()],
    ['a connection that breaks', (_, response) => void response.destroy()],
    ['no answer', () => undefined],
    ['one byte now and then', (_, response) => drip(response, '{')],
  ];
  test.each(answers)('%s', async (_, answer) => {
    const { verify } = await start({}, answer);
    const token = await tokenOf();
    const error = await refusalOf(() => verify(token));
    expect(error.code).toBe('temporarily_unavailable');
    const gate = createGate({ verifyAccessToken: verify }, { startAt: NOW });
    const response = (await gate.call(await gate.sentPop({ authorization: `Bearer ${token}` }))) as Response;
    expect([response.status, response.headers.get('retry-after')]).toEqual([503, '1']);
    expect(response.headers.has('www-authenticate')).toBe(false);
  });

  test('100 MB, of which little is read', async () => {
    const written = { bytes: 0 };
    const { verify } = await start({ timeout: 5000 }, (_, response) => {
      response.setHeader('content-type', 'application/json');
      flood(response, 100e6, written);
    });
    const token = await tokenOf();
    await expectRefusal(() => verify(token), { code: 'temporarily_unavailable' });
    expect(written.bytes).toBeLessThan(20e6);
  });

  test('and when it is back, tokens are judged again', async () => {
    let down = true;
    const { verify } = await start({}, (_, response) =>
      sendJson(response, published, 'application/json', down ? 503 : 200),
    );
    const token = await tokenOf();
    await expectRefusal(() => verify(token), { code: 'temporarily_unavailable' });
    down = false;
    expect(await verify(token)).toMatchObject({ clientId: 'client' });
  });
});

test.each([
  ['keys without TLS', { jwksUri: 'http://as.example/jwks' }],
  ['keys that are no URL', { jwksUri: 'jwks' }],
  ['credentials in the URL', { jwksUri: 'https://a:b@as.example/jwks' }],
  ['an audience that is no URL', { audience: 'mcp' }],
])('%s are refused at once', async (_, options) => {
  const make = () => jwtAccessTokens({ issuer: ISSUER, audience: AUDIENCE, jwksUri: `${ISSUER}/jwks`, ...options });
  await expectRefusal(make, { code: 'invalid_argument' });
});
