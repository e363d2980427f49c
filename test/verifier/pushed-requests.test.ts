/** The helpers by which any AS binds codes and refresh tokens to instances. */
import { describe, expect, test } from 'vitest';
import { sha256Base64url } from '../../src/platform/crypto.ts';
import { memoryGrantStore, pushedRequests, sealedTokens } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';

const mine = { clientId: 'client', thumbprint: 'key-1' };
const others = { clientId: 'client', thumbprint: 'key-2' };
const VERIFIER = 'v'.repeat(43);
const REQUEST = { response_type: 'code', code_challenge: sha256Base64url(VERIFIER), code_challenge_method: 'S256' };
const KEY = new Uint8Array(32).fill(7);

describe('sealed tokens', () => {
  const { seal, open, isSealed } = sealedTokens({ keys: [KEY] });

  test('BIND-1: are opened by their instance only, as often as it likes, and show nothing', async () => {
    const text = seal('refresh-0815', mine);
    expect(text).not.toContain('refresh');
    expect(isSealed(text)).toBe(true);
    await expectRefusal(() => open(text, others), { code: 'invalid_grant', rule: 'BIND-1' });
    await expectRefusal(() => open(text, { ...mine, clientId: 'other' }), { code: 'invalid_grant' });
    expect([open(text, mine), open(text, mine)]).toEqual(['refresh-0815', 'refresh-0815']);
    expect(seal('refresh-0815', mine)).not.toBe(text);
  });

  test('BIND-1: client and thumbprint do not run into one another', async () => {
    const text = seal('t', { clientId: 'a', thumbprint: 'bc' });
    await expectRefusal(() => open(text, { clientId: 'ab', thumbprint: 'c' }), { code: 'invalid_grant' });
  });

  test('BIND-1: every change of the text is noticed', async () => {
    const text = seal('refresh-0815', mine);
    for (let i = 0; i < text.length; i++) {
      const changed = text.slice(0, i) + (text[i] === 'A' ? 'B' : 'A') + text.slice(i + 1);
      await expectRefusal(() => open(changed, mine), { code: 'invalid_grant' });
    }
    for (const bad of [
      '',
      'attested.',
      'refresh-0815',
      text.slice(0, -1),
      `${text}A`,
      `${text}=`,
      'attested.'.repeat(9_999),
    ]) {
      await expectRefusal(() => open(bad, mine), { code: 'invalid_grant' });
    }
  });

  test('BIND-1: keys roll over', async () => {
    const next = new Uint8Array(32).fill(8);
    const text = seal('old', mine);
    expect(sealedTokens({ keys: [next, KEY] }).open(text, mine)).toBe('old');
    await expectRefusal(() => sealedTokens({ keys: [next] }).open(text, mine), { code: 'invalid_grant' });
  });

  test.each([[[]], [['short']], [[new Uint8Array(31)]], [undefined], [[undefined]]])(
    'keys %o are refused',
    async (keys) => {
      await expectRefusal(() => sealedTokens({ keys: keys as never }), { code: 'invalid_argument' });
    },
  );
});

describe('pushed requests', () => {
  const request = (changes: Record<string, string> = {}) => new URLSearchParams({ ...REQUEST, ...changes });

  test('BIND-2: are taken once, by their client, with what was pushed', async () => {
    const { push, take } = pushedRequests();
    const { request_uri, expires_in } = await push(request({ scope: 'a b' }), mine);
    expect(expires_in).toBe(60);
    await expectRefusal(() => take(request_uri, 'other'), { code: 'invalid_request' });
    expect(Object.fromEntries(await take(request_uri, 'client'))).toEqual({
      ...REQUEST,
      scope: 'a b',
      client_id: 'client',
    });
    await expectRefusal(() => take(request_uri, 'client'), { code: 'invalid_request' });
    await expectRefusal(() => take('urn:ietf:params:oauth:request_uri:guess', 'client'), { code: 'invalid_request' });
  });

  test('BIND-2: exactly one of many who ask at once gets it', async () => {
    const { push, take } = pushedRequests();
    const { request_uri } = await push(request(), mine);
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => take(request_uri, 'client')));
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  test('BIND-2: whoever redeems shows the verifier of the instance that pushed; others burn nothing', async () => {
    const { push, assertBound } = pushedRequests();
    await push(request(), mine);
    for (let i = 0; i < 2; i++) {
      await expectRefusal(() => assertBound(VERIFIER, others), { code: 'invalid_grant', rule: 'BIND-1' });
    }
    expect(await assertBound(VERIFIER, mine)).toBe(true);
    expect(await assertBound('w'.repeat(43), others)).toBe(false);
  });

  test('BIND-2: a challenge that somebody saw cannot be taken over', async () => {
    const { push, assertBound } = pushedRequests();
    await push(request(), mine);
    await expectRefusal(() => push(request(), others), { code: 'invalid_request' });
    await push(request(), mine); // a second try of the same instance
    await expectRefusal(() => assertBound(VERIFIER, others), { code: 'invalid_grant' });
  });

  test('BIND-2: they and their bindings end', async () => {
    const clock = { now: 0 };
    const store = memoryGrantStore({ now: () => clock.now });
    const { push, take, assertBound } = pushedRequests({ store, ttl: 10, codeTtl: 100 });
    const { request_uri } = await push(request(), mine);
    clock.now = 10_000;
    await expectRefusal(() => take(request_uri, 'client'), { code: 'invalid_request' });
    await expectRefusal(() => assertBound(VERIFIER, others), { code: 'invalid_grant' });
    clock.now = 100_000;
    expect(await assertBound(VERIFIER, others)).toBe(false);
  });

  test('BIND-2: one instance cannot fill the store for the others', async () => {
    const clock = { now: 0 };
    const requests = pushedRequests({ store: memoryGrantStore({ now: () => clock.now }) });
    const another = (i: number) => request({ code_challenge: sha256Base64url(String(i)) });
    let pushed = 0;
    const fill = async () => {
      for (; pushed < 1000; pushed++) await requests.push(another(pushed), others);
    };
    await expectRefusal(fill, { code: 'temporarily_unavailable', rule: 'BIND-2' });
    await requests.push(request(), mine);
    clock.now = 3_600_001;
    await requests.push(another(pushed), others);
  });

  test('BIND-2: a full store refuses new requests and forgets none; one that is down is an outage', async () => {
    const full = pushedRequests({ store: memoryGrantStore({ maxEntries: 2 }) });
    await full.push(request(), mine);
    const another = request({ code_challenge: sha256Base64url('x') });
    await expectRefusal(() => full.push(another, others), { code: 'temporarily_unavailable', rule: 'BIND-2' });
    await expectRefusal(() => full.assertBound(VERIFIER, others), { code: 'invalid_grant' });
    const fail = () => Promise.reject(new Error('down'));
    const down = pushedRequests({ store: { put: fail, get: fail, take: fail } });
    await expectRefusal(() => down.push(request(), mine), { code: 'temporarily_unavailable' });
    await expectRefusal(() => down.assertBound(VERIFIER, mine), { code: 'temporarily_unavailable' });
  });

  test.each([
    ['without a challenge', { code_challenge: '' }],
    ['with a plain challenge', { code_challenge_method: 'plain' }],
    ['with no hash', { code_challenge: 'x' }],
    ['with a request_uri', { request_uri: 'urn:x' }],
    ['with a request object', { request: 'e30.e30.x' }],
    ['of 10 kB', { state: 's'.repeat(10_000) }],
  ])('BIND-2: one %s is refused', async (_, changes) => {
    await expectRefusal(() => pushedRequests().push(request(changes), mine), { code: 'invalid_request' });
  });

  test.each([{ ttl: 0 }, { ttl: Number.NaN }, { ttl: 100, codeTtl: 10 }])('%o makes no sense', async (options) => {
    await expectRefusal(() => pushedRequests(options), { code: 'invalid_argument' });
  });
});
