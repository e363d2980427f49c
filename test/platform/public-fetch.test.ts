/** The fetch for URLs that strangers chose. */
import type { RequestListener } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo, LookupFunction } from 'node:net';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { fetchJson } from '../../src/platform/http.ts';
import { isPublicAddress, publicFetch } from '../../src/platform/public-fetch.ts';
import { CA_USAGE, issueCertificate, SIGN_USAGE } from '../support/certificates.ts';
import { expectRefusal } from '../support/errors.ts';
import { drip } from '../support/http.ts';

describe('addresses', () => {
  test.each([
    '127.0.0.1',
    '127.9.9.9',
    '0.0.0.0',
    '10.1.2.3',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '192.0.0.8',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '::1',
    '::',
    'fe80::1',
    'fc00::1',
    'fd12::1',
    'ff02::1',
    '::ffff:127.0.0.1',
    '::ffff:8.8.8.8',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    '2001:0:1::',
    '2001:db8::1',
    '3fff::1',
    '1.2.3',
    'localhost',
    '',
  ])('%s is not public', (address) => expect(isPublicAddress(address)).toBe(false));
  test.each(['8.8.8.8', '172.32.0.1', '100.128.0.1', '2606:4700::1111', '2a00:1450::1'])('%s is', (address) =>
    expect(isPublicAddress(address)).toBe(true),
  );
});

/** A resolver that says this, and counts. */
function resolver(...addresses: string[]) {
  const asked: string[] = [];
  const lookup = ((hostname: string, _: unknown, callback: (...results: unknown[]) => void) => {
    asked.push(hostname);
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    );
  }) as unknown as LookupFunction;
  return { lookup, asked };
}

test.each([
  'http://public.example/',
  'ftp://public.example/',
  'https://127.0.0.1/',
  'https://[::1]/',
  'https://2130706433/',
  'https://0x7f.1/',
  'https://[::ffff:10.0.0.1]/',
  'https://169.254.169.254/latest/meta-data/',
])('%s is refused before any name is asked for', async (url) => {
  const { lookup, asked } = resolver('127.0.0.1');
  await expectRefusal(() => publicFetch({ lookup })(url), { code: 'http_failed', rule: 'SSRF' });
  expect(asked).toEqual([]);
});

test.each([[['127.0.0.1']], [['8.8.8.8', '10.0.0.1']], [['::1']], [['::ffff:127.0.0.1']]])(
  'a name that leads to %s is refused, and resolved once',
  async (addresses) => {
    const { lookup, asked } = resolver(...addresses);
    await expectRefusal(() => publicFetch({ lookup })('https://rebinding.example/'), {
      code: 'http_failed',
      rule: 'SSRF',
    });
    expect(asked).toEqual(['rebinding.example']);
  },
);

test('nothing but GET', async () => {
  const { lookup } = resolver('8.8.8.8');
  const fetch = publicFetch({ lookup });
  await expectRefusal(() => fetch('https://public.example/', { method: 'POST' }), { code: 'http_failed' });
});

describe('over TLS', () => {
  const certificate = issueCertificate({ name: 'documents.example', ca: true, usage: CA_USAGE | SIGN_USAGE });
  const before = getCACertificates();
  afterAll(() => setDefaultCACertificates(before));

  async function start(answer: RequestListener, name = 'documents.example') {
    setDefaultCACertificates([certificate.pem]);
    const key = certificate.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
    const server = createServer({ key, cert: certificate.pem }, answer);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      server.close();
      server.closeAllConnections();
    });
    const url = `https://${name}:${(server.address() as AddressInfo).port}/client`;
    const { lookup, asked } = resolver('127.0.0.1');
    return { url, asked, fetch: publicFetch({ lookup, mayReach: (address) => address === '127.0.0.1' }) };
  }

  test('a document arrives with status and headers, bounded and without redirects', async () => {
    const { url, fetch, asked } = await start((request, response) => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ accept: request.headers.accept, host: request.headers.host }));
    });
    const { status, json } = await fetchJson(url, {}, { fetch });
    expect([status, json]).toEqual([200, { accept: 'application/json', host: new URL(url).host }]);
    await expectRefusal(() => fetchJson(url, {}, { fetch, maxBytes: 10 }), { code: 'http_too_large' });
    expect(asked).toEqual(['documents.example', 'documents.example']);
    const away = await start((_, response) => void response.writeHead(302, { location: url }).end());
    await expectRefusal(() => fetchJson(away.url, {}, { fetch: away.fetch }), { code: 'http_failed' });
  });

  test('a server that says nothing, or drips, is given up', async () => {
    const silent = await start(() => undefined);
    const dripping = await start((_, response) => drip(response, '{'));
    for (const { url, fetch } of [silent, dripping]) {
      await expectRefusal(() => fetchJson(url, {}, { fetch, timeout: 200 }), { code: 'http_timeout' });
    }
  });

  test("a certificate of another name is not the publisher's", async () => {
    const { url, fetch } = await start((_, response) => void response.end('{}'), 'other.example');
    await expectRefusal(() => fetchJson(url, {}, { fetch }), { code: 'http_failed' });
  });
});
