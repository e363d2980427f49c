import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { createAttestation, createDpopProof, createPop } from 'attested';
import { generateSigner } from 'attested/keys';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { listen } from '../../src/cli/demo/serve.ts';
import { signJwt } from '../../src/core/jwt.ts';
import { toNodeListener } from '../../src/integrations/node.ts';
import { attested } from './harness.ts';

const AUDIENCE = 'https://as.example.com';
const attester = generateSigner('ES256', 'a1');
const instance = generateSigner('ES256');
const exp = Math.floor(Date.now() / 1000) + 600;

let directory: string;
let jwks: string;
let attestation: string;
let pop: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attested-verify-'));
  jwks = join(directory, 'jwks.json');
  await writeFile(jwks, JSON.stringify({ keys: [attester.publicJwk] }));
  attestation = await createAttestation({ sub: 'client-1', exp, cnf: { jwk: instance.publicJwk } }, attester);
  pop = await createPop({ audience: AUDIENCE, challenge: 'c-1' }, instance);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const verify = (...argv: string[]) => attested(['verify', '--audience', AUDIENCE, '--jwks', jwks, ...argv]);

describe('attested verify', () => {
  test('accepts what a server would accept', async () => {
    const { code, out } = await verify('--attestation', attestation, '--pop', pop, '--client-id', 'client-1', '--json');
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      accepted: true,
      client: { clientId: 'client-1', thumbprint: instance.thumbprint, method: 'attestation_pop_jwt' },
    });
  });

  test('says it for people too', async () => {
    const { code, out } = await verify('--attestation', attestation, '--pop', pop);
    expect(code).toBe(0);
    expect(out).toMatch(/^accepted\n/);
    expect(out).toContain(instance.thumbprint);
  });

  test('reads header lines from standard input and from a file', async () => {
    const text = `POST /token HTTP/1.1\r\noauth-client-attestation: ${attestation}\r\nOAuth-Client-Attestation-PoP: ${pop}\r\n\r\nbody: x`;
    const file = join(directory, 'headers');
    await writeFile(file, text);
    expect((await verify('--header-file', file)).code).toBe(0);
    const piped = await attested(['verify', '--audience', AUDIENCE, '--jwks', jwks, '--header-file', '-'], {
      stdin: text,
    });
    expect(piped.code).toBe(0);
  });

  test('combined mode, with the request', async () => {
    const url = `${AUDIENCE}/token`;
    const dpop = await createDpopProof({ method: 'POST', url, nonce: 'n-1' }, instance);
    const argv = ['--attestation', attestation, '--dpop', dpop, '--method', 'POST', '--url', url];
    expect((await verify(...argv, '--challenge', 'n-1')).code).toBe(0);
    const other = await verify(...argv, '--challenge', 'n-2', '--json');
    expect(JSON.parse(other.out).error).toMatchObject({ code: 'use_dpop_nonce' });
    const wrongMethod = await verify('--attestation', attestation, '--dpop', dpop, '--method', 'GET', '--url', url);
    expect([wrongMethod.code, wrongMethod.out]).toEqual([1, expect.stringContaining('invalid_dpop_proof')]);
    expect((await verify('--attestation', attestation, '--dpop', dpop)).code).toBe(2);
  });

  test.each<[string, () => Promise<string[]>, string, string]>([
    [
      'another audience',
      async () => ['--pop', await createPop({ audience: `${AUDIENCE}/` }, instance)],
      'invalid_client_attestation',
      'POP-2',
    ],
    [
      'another key',
      async () => ['--pop', await createPop({ audience: AUDIENCE }, attester)],
      'invalid_client_attestation',
      'POP-6',
    ],
    ['another client_id', async () => ['--pop', pop, '--client-id', 'client-2'], 'invalid_client_attestation', 'VER-6'],
    ['another challenge', async () => ['--pop', pop, '--challenge', 'c-2'], 'use_attestation_challenge', 'POP-5'],
    ['two PoPs', async () => ['--pop', pop, '--header-file', '-'], 'invalid_client_attestation', 'POP-8'],
    ['no proof', async () => [], 'invalid_client_attestation', 'POP-8'],
  ])('%s is refused with code and rule', async (_what, more, code, rule) => {
    const argv = [
      'verify',
      '--audience',
      AUDIENCE,
      '--jwks',
      jwks,
      '--attestation',
      attestation,
      ...(await more()),
      '--json',
    ];
    const ran = await attested(argv, { stdin: `OAuth-Client-Attestation-PoP: ${pop}` });
    expect(ran.code).toBe(1);
    expect(JSON.parse(ran.out)).toEqual({ accepted: false, error: { code, rule, message: expect.any(String) } });
  });

  test('an attester that is not in the file, and an attestation that has expired', async () => {
    const forged = await createAttestation(
      { sub: 'client-1', exp, cnf: { jwk: instance.publicJwk } },
      generateSigner(),
    );
    const stranger = await verify('--attestation', forged, '--pop', pop, '--json');
    expect(JSON.parse(stranger.out).error.rule).toBe('VER-3');
    const late = await attested(
      ['verify', '--audience', AUDIENCE, '--jwks', jwks, '--attestation', attestation, '--pop', pop, '--json'],
      { at: exp + 3600 },
    );
    expect(JSON.parse(late.out).error).toMatchObject({ code: 'use_fresh_attestation', rule: 'ATT-3' });
  });

  test('--jwks-url: keys and status list are fetched from the attester, and a revoked attestation is refused', async () => {
    const http = await listen();
    const uri = `${http.origin}/status/1`;
    const list = new Uint8Array(128);
    const answers: Record<string, () => Promise<Response>> = {
      '/jwks': async () => Response.json({ keys: [attester.publicJwk] }),
      '/status/1': async () => {
        const iat = Math.floor(Date.now() / 1000);
        const lst = deflateSync(list).toString('base64url');
        const claims = { sub: uri, iat, ttl: 60, status_list: { bits: 1, lst } };
        const token = await signJwt({ typ: 'statuslist+jwt', kid: 'a1' }, claims, attester);
        return new Response(token, { headers: { 'content-type': 'application/statuslist+jwt' } });
      },
    };
    http.answerWith(toNodeListener(({ url }) => answers[new URL(url).pathname]!(), { url: http.origin }));
    const status = { status_list: { idx: 9, uri } };
    const listed = await createAttestation({ sub: 'c', exp, cnf: { jwk: instance.publicJwk }, status }, attester);
    const tokens = ['--attestation', listed, '--pop', pop, '--json'];
    const argv = ['verify', '--audience', AUDIENCE, '--jwks-url', `${http.origin}/jwks`, ...tokens];
    expect(JSON.parse((await attested(argv)).out)).toMatchObject({ accepted: true, client: { status: 'valid' } });
    list[1] = 0b10;
    const revoked = await attested(argv);
    expect(revoked.code).toBe(1);
    expect(JSON.parse(revoked.out).error.rule).toBe('Token Status List §8.3');
    await http.close();
    const gone = await attested(argv);
    expect(JSON.parse(gone.out).error.code).toBe('temporarily_unavailable');
  });

  test('folded header lines are no header lines at a server, so they are none here', async () => {
    const folded = `OAuth-Client-Attestation: ${attestation.slice(0, 60)}\n${attestation.slice(60)}`;
    const ran = await attested(['verify', '--audience', AUDIENCE, '--jwks', jwks, '--header-file', '-'], {
      stdin: folded,
    });
    expect(ran.code).toBe(2);
  });
});
