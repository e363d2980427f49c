/** `attested client-metadata`: what it writes passes its own check and a verifier's; hostile documents do not. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { DocumentCheck } from '../../src/cli/client-metadata/check.ts';
import { checkClientDocument } from '../../src/platform/client-document.ts';
import { sendJson, startServer } from '../support/http.ts';
import { attested, TERMINAL_CONTROL, withoutLineFeeds } from './harness.ts';

const URL_ = 'https://agents.example/client';
const ISSUER = 'https://attester.example/acme';
const GOOD = {
  client_id: URL_,
  grant_types: ['client_credentials'],
  token_endpoint_auth_method: 'attest_jwt_client_auth',
  client_attesters: [{ issuer: ISSUER, jwks_uri: `${ISSUER}/jwks` }],
};

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attested-cimd-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

let files = 0;
async function fileWith(text: string): Promise<string> {
  const path = join(directory, `${files++}.json`);
  await writeFile(path, text);
  return path;
}
async function check(document: unknown, ...argv: string[]): Promise<DocumentCheck & { code: number }> {
  const text = typeof document === 'string' ? document : JSON.stringify(document);
  const { code, out, err } = await attested(['client-metadata', '--check', await fileWith(text), '--json', ...argv]);
  expect(err).toBe('');
  return { ...JSON.parse(out), code };
}

describe('writing', () => {
  test('META-5: method, algorithms, redirects and endorsed attesters, and nothing that is secret', async () => {
    const { code, out } = await attested([
      'client-metadata',
      ...['--url', URL_, '--name', 'Agent', '--scope', 'mcp'],
      ...['--redirect-uri', 'http://127.0.0.1/callback https://agents.example/back'],
      ...['--attester', `${ISSUER} urn:other,https://keys.example/jwks`, '--alg', 'ES256 ES384'],
    ]);
    expect(code).toBe(0);
    const document = JSON.parse(out);
    expect(document).toMatchObject({
      client_id: URL_,
      client_name: 'Agent',
      scope: 'mcp',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['http://127.0.0.1/callback', 'https://agents.example/back'],
      token_endpoint_auth_method: 'attest_jwt_client_auth_dpop',
      client_attestation_pop_methods_supported: ['dpop_combined', 'attestation_pop_jwt'],
      client_attestation_pop_signing_alg_values_supported: ['ES256', 'ES384'],
      client_attesters: [
        { issuer: ISSUER, jwks_uri: `${ISSUER}/jwks` },
        { issuer: 'urn:other', jwks_uri: 'https://keys.example/jwks' },
      ],
    });
    expect(document).not.toHaveProperty('jwks');
    const checked = await check(document, '--url', URL_);
    expect(checked).toMatchObject({ ok: true, code: 0 });
    expect(checked.findings.map(({ severity }) => severity)).toEqual(['warning']); // the second attester's keys
  });

  test('META-5: an agent without a person, with one method', async () => {
    const argv = ['--url', URL_, '--attester', ISSUER, '--method', 'attest_jwt_client_auth'];
    const document = JSON.parse((await attested(['client-metadata', ...argv])).out);
    expect(document).toMatchObject({ grant_types: ['client_credentials'], redirect_uris: [] });
    expect(await check(document)).toMatchObject({ ok: true, method: 'attest_jwt_client_auth', findings: [] });
  });

  test.each([
    [[]],
    [['--url', 'http://agents.example/client']],
    [['--url', 'https://agents.example']],
    [['--url', 'https://agents.example/']],
    [['--url', 'https://agents.example/a/../b']],
    [['--url', `${URL_}#x`]],
    [['--url', URL_, '--method', 'none']],
    [['--url', URL_, '--alg', 'HS256']],
    [['--url', URL_, '--alg', 'none']],
    [['--url', URL_, '--attester', 'http://attester.example']],
    [['--url', URL_, '--online']],
    [['--check', 'x', '--private']],
    [['--check', 'x', '--name', 'y']],
    [['--check', '/nonexistent/file']],
    [['--check', 'http://agents.example/client']],
    [['extra']],
  ])('a call that makes no sense is told so: %j', async (argv) => {
    const { code, out } = await attested(['client-metadata', ...argv]);
    expect([code, out]).toEqual([2, '']);
  });
});

describe('checking', () => {
  const rows: [string, object, string][] = [
    ['another client_id', { client_id: `${URL_}/` }, 'CIMD'],
    ['no client_id', { client_id: undefined }, 'CIMD'],
    ['a secret', { client_secret: 's3cr3t-value' }, 'CIMD'],
    ['a secret that expires', { client_secret_expires_at: 0 }, 'CIMD'],
    ['Basic', { token_endpoint_auth_method: 'client_secret_basic' }, 'CIMD'],
    ['a shared key', { token_endpoint_auth_method: 'client_secret_jwt' }, 'CIMD'],
    ['no method', { token_endpoint_auth_method: undefined }, 'META-5'],
    ['an unknown method', { token_endpoint_auth_method: 'attest' }, 'META-5'],
    ['a method of the wrong type', { token_endpoint_auth_method: ['none'] }, 'META-5'],
    ['no proof', { client_attestation_pop_methods_supported: [] }, 'META-5'],
    ['an unknown proof', { client_attestation_pop_methods_supported: ['mtls'] }, 'META-5'],
    ['the other proof only', { client_attestation_pop_methods_supported: ['dpop_combined'] }, 'META-5'],
    ['alg none', { client_attestation_signing_alg_values_supported: ['none'] }, 'VER-2'],
    ['HS256', { client_attestation_pop_signing_alg_values_supported: ['HS256'] }, 'VER-2'],
    ['no algorithms', { client_attestation_pop_signing_alg_values_supported: 'ES256' }, 'META-5'],
    ['a private key', { jwks: { keys: [{ kty: 'EC', d: 'AAAA' }] } }, 'VER-4'],
    ['no redirect', { grant_types: ['authorization_code'] }, 'RFC 7591 §2'],
    ['a script', { redirect_uris: ['javascript:alert(1)'] }, 'RFC 6749 §3.1.2'],
    ['a wildcard', { redirect_uris: ['https://*.example/cb'] }, 'RFC 6749 §3.1.2'],
    ['a relative redirect', { redirect_uris: ['/cb'] }, 'RFC 6749 §3.1.2'],
    ['http', { redirect_uris: ['http://agents.example/cb'] }, 'RFC 8252 §7.3'],
    ['http at a name that looks alike', { redirect_uris: ['http://127.0.0.1.evil.example/cb'] }, 'RFC 8252 §7.3'],
    ['redirects of the wrong type', { redirect_uris: [1] }, 'RFC 7591 §2'],
    ['an attester twice', { client_attesters: Array(2).fill(GOOD.client_attesters[0]) }, 'client_attesters'],
    ['an attester without keys', { client_attesters: [{ issuer: ISSUER }] }, 'client_attesters'],
    [
      'an attester under http',
      { client_attesters: [{ issuer: ISSUER, jwks_uri: 'http://a.example/' }] },
      'client_attesters',
    ],
    ['attesters of the wrong type', { client_attesters: 'x' }, 'client_attesters'],
  ];
  test.each(rows)('META-5: a document with %s is refused', async (_, change, rule) => {
    const { ok, code, findings } = await check({ ...GOOD, ...change }, '--url', URL_);
    expect([ok, code]).toEqual([false, 1]);
    expect(findings.filter(({ severity }) => severity === 'refused').map((finding) => finding.rule)).toEqual([rule]);
    expect(JSON.stringify(findings)).not.toContain('s3cr3t');
  });

  test.each([
    ['no attester', { client_attesters: undefined }],
    ['no demand for an attestation', { token_endpoint_auth_method: 'none' }],
    ['keys of its own', { jwks_uri: 'https://agents.example/jwks' }],
    ['keys elsewhere', { client_attesters: [{ issuer: ISSUER, jwks_uri: 'https://other.example/jwks' }] }],
    ['a scheme of its own', { redirect_uris: ['com.example.app:/cb'] }],
    ['localhost', { redirect_uris: ['http://localhost/cb'] }],
  ])('META-5: a document with %s is worth a warning', async (_, change) => {
    const { ok, code, findings } = await check({ ...GOOD, ...change });
    expect([ok, code, findings.map(({ severity }) => severity)]).toEqual([true, 0, ['warning']]);
  });

  test.each([['{'], ['[]'], ['{"client_id":"a","client_id":"b"}'], [`{"x":"${'y'.repeat(6000)}"}`]])(
    'META-5: what is no document is refused: %.40s',
    async (text) => expect(await check(text, '--url', URL_)).toMatchObject({ ok: false, code: 1 }),
  );

  test('META-5: any JSON gets findings, never another exception', () => {
    const names = [...Object.keys(GOOD), 'redirect_uris', 'jwks', 'client_attestation_pop_methods_supported'];
    const documents = fc.dictionary(fc.constantFrom(...names), fc.jsonValue());
    fc.assert(
      fc.property(documents, fc.oneof(fc.string(), fc.webUrl()), (document, url) => {
        expect(Array.isArray(checkClientDocument(document as never, url))).toBe(true);
      }),
    );
  });

  test('what the document says cannot write on the terminal', async () => {
    const path = await fileWith(
      JSON.stringify({ ...GOOD, client_id: 'https://x/\u001b[2J\u202e', token_endpoint_auth_method: 'a\u0007' }),
    );
    const { out, code } = await attested(['client-metadata', '--check', path]);
    expect(code).toBe(1);
    expect(withoutLineFeeds(out)).not.toMatch(TERMINAL_CONTROL);
    expect(out).toContain('A server would refuse this.');
  });
});

describe('over the network', () => {
  async function serve(document: object, type?: string, status?: number) {
    const server = await startServer((_, response) => sendJson(response, document, type, status));
    onTestFinished(() => server.close());
    return `${server.origin}/client`;
  }
  const at = async (url: string, ...argv: string[]) => {
    const { out, code } = await attested(['client-metadata', '--check', url, '--json', ...argv]);
    return { ...(JSON.parse(out) as DocumentCheck), code };
  };

  test('META-5: a document is fetched; that it is not under https is found', async () => {
    const url = await serve(GOOD);
    const { findings, code } = await at(url);
    expect(code).toBe(1);
    expect(findings.map(({ message }) => message)).toEqual([
      expect.stringContaining('is not https'),
      expect.stringContaining("not the document's URL"),
    ]);
    expect((await at(url, '--url', URL_)).findings).toEqual([]);
  });

  test.each([
    ['a page', 'text/html', 200, 'not labelled as JSON'],
    ['a redirect', 'application/json', 302, 'redirect'],
    ['nothing', 'application/json', 404, 'status 404'],
  ])('META-5: %s in its place is found', async (_, type, status, message) => {
    const { findings, ok } = await at(await serve(GOOD, type, status), '--url', URL_);
    expect(ok).toBe(false);
    expect(findings[0]?.message).toContain(message);
  });

  test('META-5: with --online the attesters have to publish keys', async () => {
    // no name under .invalid leads anywhere (RFC 6761)
    const client_attesters = [{ issuer: 'https://attester.invalid', jwks_uri: 'https://attester.invalid/jwks' }];
    const { attesters, findings, code } = await check({ ...GOOD, client_attesters }, '--online');
    expect([code, attesters]).toEqual([
      1,
      [{ issuer: 'https://attester.invalid', jwksUri: 'https://attester.invalid/jwks', keys: 0 }],
    ]);
    expect(findings).toEqual([expect.objectContaining({ rule: 'client_attesters' })]);
  });

  test('META-5: keys at a private address are asked for only when that is wanted', async () => {
    let connections = 0;
    const service = createServer((socket) => {
      connections++;
      socket.destroy();
    });
    await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void service.close());
    const issuer = `https://127.0.0.1:${(service.address() as AddressInfo).port}`;
    const document = { ...GOOD, client_attesters: [{ issuer, jwks_uri: `${issuer}/jwks` }] };
    const { code, findings } = await check(document, '--online');
    expect([code, connections]).toEqual([1, 0]);
    expect(findings).toMatchObject([{ message: expect.stringContaining('not one of the public Internet') }]);
    expect(await check(document, '--online', '--private')).toMatchObject({ code: 1 });
    expect(connections).toBe(1);
  });
});
