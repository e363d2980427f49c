import { createAttester } from 'attested/attester';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { get, ISSUER, newSigner, post, setUp } from './helpers.ts';

const good = { client_id: 'c', challenge: 'x', evidence: { kind: 'software' } };

describe('attester on the wire', () => {
  test('gives a challenge, not to be cached', async () => {
    const { attester } = setUp();
    const { status, headers, body } = await post(attester, '/challenge', {});
    expect(status).toBe(200);
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('content-type')).toBe('application/json');
    expect(body).toEqual({ challenge: expect.any(String), expires_in: 60, evidence: ['software'] });
    const bare = await attester.handler(new Request(`${ISSUER}/challenge`, { method: 'POST' }));
    expect(bare.status).toBe(200);
  });

  test.each([
    ['/challenge', 'GET', 'POST'],
    ['/attestation', 'GET', 'POST'],
    ['/attestation', 'DELETE', 'POST'],
    ['/jwks', 'POST', 'GET'],
    ['/status/1', 'POST', 'GET'],
  ])('%s answers %s with 405', async (path, method, allowed) => {
    const response = await get(setUp().attester, path, { method });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe(allowed);
    expect(await response.json()).toMatchObject({ error: 'invalid_request' });
  });

  test.each(['', '/', '/status/2', '/status', '/challenge/', '/Challenge', '/constructor', '/../challenge'])(
    'there is nothing at %s',
    async (path) => {
      const response = await get(setUp().attester, path, { method: 'POST' });
      expect(response.status).toBe(404);
      expect(response.headers.get('cache-control')).toBe('no-store');
    },
  );

  test("paths lie below the issuer's own path, and an issuer without one works too", async () => {
    const { attester } = setUp();
    for (const url of ['https://attester.example/challenge', 'https://attester.example/tenant2/challenge']) {
      expect((await attester.handler(new Request(url, { method: 'POST' }))).status).toBe(404);
    }
    const root = setUp({ issuer: 'https://attester.example' }).attester;
    expect((await post(root, '/challenge', {})).status).toBe(200);
    const behindProxy = new Request('http://10.0.0.7:8080/tenant/challenge?x=1', { method: 'POST' });
    expect((await attester.handler(behindProxy)).status).toBe(200);
  });

  const text = JSON.stringify(good);
  test.each<[string, string]>([
    ['no object', '[]'],
    ['nothing', ''],
    ['no JSON', '{'],
    ['two objects', '{}{}'],
    ['a member twice', text.replace('{', '{"client_id":"d",')],
    ['__proto__', text.replace('{', '{"__proto__":{},')],
    ['deep nesting', text.replace('{', `{"x":${'['.repeat(20)}${']'.repeat(20)},`)],
    ['no client_id', JSON.stringify({ ...good, client_id: undefined })],
    ['an empty client_id', JSON.stringify({ ...good, client_id: '' })],
    ['a client_id with a line break', JSON.stringify({ ...good, client_id: 'a\nb' })],
    ['a client_id that ends in a line break', JSON.stringify({ ...good, client_id: 'a\n' })],
    ['a client_id too long', JSON.stringify({ ...good, client_id: 'a'.repeat(2049) })],
    ['a numeric client_id', JSON.stringify({ ...good, client_id: 1 })],
    ['no challenge', JSON.stringify({ ...good, challenge: undefined })],
    ['a challenge too long', JSON.stringify({ ...good, challenge: 'a'.repeat(3000) })],
    ['no evidence', JSON.stringify({ ...good, evidence: undefined })],
    ['evidence in a list', JSON.stringify({ ...good, evidence: [good.evidence] })],
    ['evidence of no kind', JSON.stringify({ ...good, evidence: {} })],
    ['a token that is no string', JSON.stringify({ ...good, enrolment_token: null })],
    ['an empty token', JSON.stringify({ ...good, enrolment_token: '' })],
    ['a token too long', JSON.stringify({ ...good, enrolment_token: 'a'.repeat(513) })],
  ])('an attestation request with %s is malformed, and costs no challenge', async (_what, body) => {
    const { attester, events } = setUp();
    const { status, body: answer } = await post(attester, '/attestation', body);
    expect([status, answer.error]).toEqual([400, 'invalid_request']);
    expect(answer.challenge).toBeUndefined();
    expect(events).toMatchObject([{ type: 'refused', code: 'invalid_request' }]);
  });

  test('bytes that are not UTF-8 are malformed', async () => {
    const { attester } = setUp();
    const init = { body: new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]) };
    expect(await post(attester, '/attestation', '', init)).toMatchObject({
      status: 400,
      body: { error: 'invalid_request' },
    });
  });

  test.each(['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', ''])(
    'a body of content type "%s" is refused',
    async (contentType) => {
      const { attester } = setUp();
      const init = { headers: contentType === '' ? {} : { 'content-type': contentType } };
      for (const path of ['/attestation', '/challenge']) {
        expect(await post(attester, path, text, init)).toMatchObject({
          status: 400,
          body: { error: 'invalid_request' },
        });
      }
    },
  );

  test('a body over 64 KiB is refused, without reading the rest of it', async () => {
    const { attester } = setUp();
    let pulled = 0;
    const endless = new ReadableStream({
      pull: (controller) => {
        pulled += 1;
        controller.enqueue(new Uint8Array(16 * 1024).fill(0x20));
      },
    });
    const init = { body: endless, duplex: 'half' } as RequestInit;
    for (const path of ['/attestation', '/challenge']) {
      const big = await post(attester, path, ' '.repeat(64 * 1024 + 1));
      expect(big).toMatchObject({ status: 413, body: { error: 'invalid_request' } });
    }
    expect((await post(attester, '/attestation', '', init)).status).toBe(413);
    expect(pulled).toBeLessThan(10);
  });

  test.each(['/challenge', '/attestation'])(
    'a body of %s that breaks off is the asker’s fault, not ours',
    async (path) => {
      const { attester, events } = setUp();
      const body = new ReadableStream({
        start(controller) {
          controller.enqueue(new TextEncoder().encode('{"client_id":'));
          controller.error(new Error('aborted'));
        },
      });
      const init = { body, duplex: 'half' } as RequestInit;
      expect(await post(attester, path, undefined, init)).toMatchObject({
        status: 400,
        body: { error: 'invalid_request' },
      });
      expect(events).toMatchObject([{ type: 'refused' }]);
    },
  );

  test('whatever is sent, the answer is JSON with a 4xx and no stack', async () => {
    const { attester } = setUp();
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), fc.json()), async (body) => {
        const { status, body: answer } = await post(attester, '/attestation', body);
        expect(status).toBe(400);
        expect(answer).toEqual({ error: 'invalid_request', error_description: expect.any(String) });
      }),
    );
  });

  test('after close everything that needs the store is a 503', async () => {
    const { attester } = setUp();
    await attester.close();
    expect(await post(attester, '/challenge', {})).toMatchObject({
      status: 503,
      body: { error: 'temporarily_unavailable' },
    });
    expect((await get(attester, '/status/1')).status).toBe(503);
  });

  test.each([
    'http://attester.example',
    'https://attester.example/',
    'https://attester.example/?a=1',
    'https://attester.example/x?',
    'https://attester.example/x#a',
    'https://user:secret@attester.example',
    'attester.example',
    '',
  ])('an issuer "%s" is refused', (issuer) => {
    expect(() => createAttester({ issuer, signer: newSigner(), policy: { clients: {} } })).toThrow(
      expect.objectContaining({ code: 'invalid_argument' }),
    );
  });
});
