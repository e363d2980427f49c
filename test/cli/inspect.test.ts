import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { createAttestation, createDpopProof, createPop, joinAttestation } from 'attested';
import { generateSigner } from 'attested/keys';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Inspection } from '../../src/cli/inspect/inspect.ts';
import { encodeSegment, signJwt } from '../../src/core/jwt.ts';
import { generatePrivateKey } from '../../src/platform/crypto.ts';
import { MADE_AT, TOKEN_REQUEST } from './draft-example.ts';
import { attested, TERMINAL_CONTROL, withoutLineFeeds } from './harness.ts';

const NOW = 1_800_000_000;
const attester = generateSigner('ES256', 'a1');
const instance = generateSigner('ES256');

let directory: string;
let jwks: string;
let attestation: string;
let pop: string;
let dpop: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attested-inspect-'));
  jwks = join(directory, 'jwks.json');
  await writeFile(jwks, JSON.stringify({ keys: [attester.publicJwk] }));
  const claims = { sub: 'client-1', iat: NOW - 60, exp: NOW + 3600, cnf: { jwk: instance.publicJwk } };
  attestation = await createAttestation(claims, attester);
  pop = await createPop({ audience: 'https://as.example', challenge: 'c-1', issuedAt: NOW - 5 }, instance);
  const target = { method: 'POST', url: 'https://as.example/token' };
  dpop = await createDpopProof({ ...target, nonce: 'n-1', issuedAt: NOW - 5 }, instance);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function inspected(input: string, ...argv: string[]): Promise<Inspection & { code: number }> {
  const { code, out, err } = await attested(['inspect', '-', '--json', ...argv], { stdin: input, at: NOW });
  expect(err).toBe('');
  return { ...JSON.parse(out), code };
}

const rulesOf = ({ tokens, findings }: Inspection) =>
  [...tokens.flatMap((token) => token.findings), ...findings].map(({ rule }) => rule);

describe("the draft's example request", () => {
  const AT = ['--at', String(MADE_AT + 5), '--audience', 'https://as.example.com'];

  test('is decoded from the folded print-out, and its PoP verifies with the attested key', async () => {
    const found = await inspected(TOKEN_REQUEST, ...AT, '--challenge', '5c1a9e10-29ff-4c2b-ae73-57c0957c09c4');
    expect(found.form).toBe('headers');
    expect(found.notes).toEqual(['folded lines were joined']);
    const [shown, proof] = found.tokens.filter(({ kind }) => kind !== 'unknown');
    expect(shown).toMatchObject({ kind: 'attestation', field: 'OAuth-Client-Attestation' });
    expect(proof?.findings).toEqual([]);
    expect(proof?.checked).toEqual(expect.arrayContaining(['signature by the key', 'audience', 'challenge', 'times']));
  });

  test('its attestation lives for decades, which a default verifier does not allow', async () => {
    const found = await inspected(TOKEN_REQUEST, ...AT);
    expect([found.code, found.ok]).toEqual([1, false]);
    expect(rulesOf(found)).toEqual(['VER-5']);
  });

  test('is shown to people with ages, thumbprint and sizes', async () => {
    const { out } = await attested(['inspect', '-', ...AT], { stdin: TOKEN_REQUEST });
    expect(out).toContain('made 2026-03-02T21:39:55Z, 5 seconds ago');
    expect(out).toContain('thumbprint Ak20Cf62SpTybasujYXbaI-Ms655MyvOZCtnnf8y1QU');
    expect(out).toMatch(/These header fields take \d+ bytes: 1[0-9] % of the 8 kB/);
  });
});

describe('what is given is recognised', () => {
  test.each<[string, () => string, string, string[]]>([
    ['an attestation', () => attestation, 'token', ['attestation']],
    ['a PoP', () => pop, 'token', ['pop']],
    ['a DPoP proof', () => dpop, 'token', ['dpop']],
    [
      'a token broken over lines',
      () => `${attestation.slice(0, 50)}\n  ${attestation.slice(50)}`,
      'token',
      ['attestation'],
    ],
    ['the concatenated form', () => joinAttestation(attestation, pop), 'concatenated', ['attestation', 'pop']],
    ['one header line', () => `oauth-CLIENT-attestation: ${attestation}`, 'headers', ['attestation']],
    [
      'header lines in any order',
      () => `DPoP: ${dpop}\r\nOAuth-Client-Attestation: ${attestation}`,
      'headers',
      ['dpop', 'attestation'],
    ],
    [
      'an answer',
      () => 'HTTP/1.1 400 Bad Request\nDPoP-Nonce: n\nOAuth-Client-Attestation-Challenge: c\nDate: x',
      'headers',
      ['nonce', 'challenge', 'unknown'],
    ],
    ['something else', () => 'hello', 'token', ['unknown']],
  ])('%s', async (_what, input, form, kinds) => {
    const found = await inspected(input());
    expect(found.form).toBe(form);
    expect(found.tokens.map(({ kind }) => kind)).toEqual(kinds);
  });

  test('a status list token, with its signature', async () => {
    const lst = deflateSync(new Uint8Array(128)).toString('base64url');
    const claims = { sub: 'https://a.example/status/1', iat: NOW, ttl: 60, status_list: { bits: 1, lst } };
    const token = await signJwt({ typ: 'statuslist+jwt', kid: 'a1' }, claims, attester);
    const found = await inspected(token, '--jwks', jwks);
    expect(found).toMatchObject({ code: 0, tokens: [{ kind: 'status-list' }] });
    expect(found.tokens[0]?.checked).toContain('signature of the attester');
  });

  test('an access token beside the attestation: is it bound to the attested key?', async () => {
    const bound = await signJwt(
      { typ: 'at+jwt' },
      { client_id: 'client-1', cnf: { jkt: instance.thumbprint } },
      attester,
    );
    const foreign = await signJwt(
      { typ: 'at+jwt' },
      { client_id: 'client-2', cnf: { jkt: attester.thumbprint } },
      attester,
    );
    const lines = (token: string) =>
      `Authorization: DPoP ${token}\nOAuth-Client-Attestation: ${attestation}\nDPoP: ${dpop}`;
    expect(rulesOf(await inspected(lines(bound)))).toEqual([]);
    expect(rulesOf(await inspected(lines(foreign)))).toEqual(['VER-6', 'BIND-1']);
  });
});

describe('what a default verifier would refuse', () => {
  const headers = (...lines: string[]) => lines.join('\n');

  test('nothing of a good request', async () => {
    const found = await inspected(
      headers(`OAuth-Client-Attestation: ${attestation}`, `OAuth-Client-Attestation-PoP: ${pop}`),
      ...['--jwks', jwks, '--audience', 'https://as.example', '--challenge', 'c-1'],
    );
    expect(found).toMatchObject({ code: 0, ok: true });
    expect(rulesOf(found)).toEqual([]);
  });

  test.each<[string, () => string | Promise<string>, string[], string[]]>([
    ['another attester', () => attestation, ['--jwks', 'OTHER'], ['VER-3']],
    ['another audience', () => pop, ['--audience', 'https://as.example/'], ['POP-2']],
    ['another challenge', () => pop, ['--challenge', 'x'], ['POP-5']],
    ['no challenge', () => createPop({ audience: 'a', issuedAt: NOW }, instance), [], ['POP-5']],
    ['an old PoP', () => createPop({ audience: 'a', challenge: 'c', issuedAt: NOW - 3600 }, instance), [], ['POP-4']],
    ['expired', () => attestation, ['--at', String(NOW + 90_000)], ['ATT-3']],
    ['concatenated, in the newest revision', () => joinAttestation(attestation, pop), [], ['CAT-1']],
    ['two tildes', () => `${attestation}~${pop}~${pop}`, [], ['CAT-1', 'CAT-1']],
    [
      'the header twice',
      () =>
        headers(
          `OAuth-Client-Attestation: ${attestation}`,
          `OAuth-Client-Attestation: ${attestation}`,
          `DPoP: ${dpop}`,
        ),
      [],
      ['VER-1'],
    ],
    ['a PoP alone', () => headers(`OAuth-Client-Attestation-PoP: ${pop}`), [], ['VER-1']],
    ['an attestation alone', () => headers(`OAuth-Client-Attestation: ${attestation}`), [], ['POP-8']],
    [
      'the tokens in each other’s place',
      () => headers(`OAuth-Client-Attestation: ${pop}`, `OAuth-Client-Attestation-PoP: ${attestation}`),
      [],
      ['ATT-1', 'POP-1'],
    ],
    [
      'combined mode in a revision without it',
      () => headers(`OAuth-Client-Attestation: ${attestation}`, `DPoP: ${dpop}`),
      ['--revision', '8'],
      ['DPOP-7'],
    ],
    [
      'a proof by another key',
      async () =>
        headers(
          `OAuth-Client-Attestation: ${attestation}`,
          `DPoP: ${await createDpopProof({ method: 'POST', url: 'https://a.example', nonce: 'n', issuedAt: NOW }, attester)}`,
        ),
      [],
      ['DPOP-3'],
    ],
    ['no iss, in a revision that wants it', () => attestation, ['--revision', '7'], ['ATT-8']],
    [
      'too large',
      () =>
        createAttestation(
          { sub: 'c', iat: NOW, exp: NOW + 60, cnf: { jwk: instance.publicJwk }, pad: 'x'.repeat(9000) },
          attester,
        ),
      [],
      ['IMPL-3'],
    ],
  ])('%s', async (_what, input, argv, rules) => {
    const other = join(directory, 'other.json');
    await writeFile(other, JSON.stringify(generateSigner().publicJwk));
    const found = await inspected(await input(), ...argv.map((argument) => (argument === 'OTHER' ? other : argument)));
    expect(rulesOf(found)).toEqual(rules);
    expect(found.code).toBe(1);
  });
});

describe('hostile input', () => {
  const raw = (header: object, payload: object) =>
    `${encodeSegment(header as never)}.${encodeSegment(payload as never)}.AA`;
  const ESCAPES = '\u001b[2J\u001b]0;owned\u0007\u009b31m\u202egnp.exe\u2066\u200b\u2028\r';

  test.each([
    [
      'in a claim',
      () => raw({ typ: 'oauth-client-attestation+jwt', alg: 'ES256' }, { sub: ESCAPES, [ESCAPES]: ESCAPES }),
    ],
    ['in a typ', () => raw({ typ: ESCAPES, alg: ESCAPES }, {})],
    ['in a header line', () => `X-Header${ESCAPES}: ${ESCAPES}\nOAuth-Client-Attestation: ${ESCAPES}`],
    ['alone', () => ESCAPES],
  ])('control characters %s reach no terminal', async (_where, input) => {
    for (const flags of [[], ['--json']]) {
      const { code, out, err } = await attested(['inspect', input(), ...flags]);
      expect(code).toBe(1);
      expect(withoutLineFeeds(out + err)).not.toMatch(TERMINAL_CONTROL);
    }
  });

  test('private members of a key are named, and never shown', async () => {
    const jwk = generatePrivateKey('ES256').export({ format: 'jwk' });
    const token = raw(
      { typ: 'oauth-client-attestation+jwt', alg: 'ES256', jwk },
      { sub: 'c', exp: NOW + 60, iat: NOW, cnf: { jwk } },
    );
    for (const flags of [[], ['--json']]) {
      const { out, err } = await attested(['inspect', token, ...flags], { at: NOW });
      expect(out + err).not.toContain(jwk.d);
      expect(out).toContain('(private: not shown)');
      expect(out).toContain('VER-4');
    }
  });

  test.each([
    [
      'duplicate members',
      `${Buffer.from('{"typ":"oauth-client-attestation+jwt","alg":"ES256"}').toString('base64url')}.${Buffer.from('{"sub":"a","sub":"b"}').toString('base64url')}.AA`,
    ],
    [
      '__proto__',
      `${Buffer.from('{"typ":"dpop+jwt","alg":"ES256"}').toString('base64url')}.${Buffer.from('{"__proto__":{"x":1}}').toString('base64url')}.AA`,
    ],
    [
      'a typ from the prototype',
      raw({ typ: 'constructor', alg: 'toString' }, { toString: 1, constructor: 2, hasOwnProperty: 3 }),
    ],
    ['deep nesting', `${Buffer.from('['.repeat(100_000)).toString('base64url')}.e30.AA`],
    [
      'dates out of range',
      raw({ typ: 'oauth-client-attestation+jwt', alg: 'ES256' }, { iat: 1e308, exp: -1e308, nbf: 'x', ttl: {} }),
    ],
    [
      'odd shapes',
      raw({ typ: 'statuslist+jwt', alg: 'ES256', x5c: 7 }, { cnf: [], status: [1], status_list: 'x', aud: null }),
    ],
    ['a megabyte', 'A'.repeat(1_000_000)],
    ['many tildes', '~'.repeat(10_000)],
    ['many header lines', 'DPoP: x\n'.repeat(5000)],
  ])('%s ends with exit code 1 or 0, in good time', async (_what, input) => {
    const { code, err } = await attested(['inspect', '-'], { stdin: input });
    expect([0, 1]).toContain(code);
    expect(err).toBe('');
  });

  test('whatever is given, there is an answer and no control character in it', async () => {
    const segment = fc.json().map((text) => Buffer.from(text).toString('base64url'));
    const token = fc.tuple(segment, segment, segment).map((parts) => parts.join('.'));
    const line = fc.tuple(
      fc.constantFrom('DPoP', 'OAuth-Client-Attestation', 'Authorization', 'X'),
      fc.string({ unit: 'binary' }),
    );
    const input = fc.oneof(
      fc.string({ unit: 'binary' }),
      token,
      fc.array(line.map((pair) => pair.join(': '))).map((lines) => lines.join('\n')),
    );
    await fc.assert(
      fc.asyncProperty(input, fc.boolean(), async (text, json) => {
        const { code, out, err } = await attested(['inspect', '-', ...(json ? ['--json'] : [])], { stdin: text });
        expect([0, 1, 2]).toContain(code);
        expect(withoutLineFeeds(out + err)).not.toMatch(TERMINAL_CONTROL);
      }),
      { numRuns: 300 },
    );
  });
});
