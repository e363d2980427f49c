import { createHmac } from 'node:crypto';
import { describe, it } from 'vitest';
import { encodeBase64url } from '../../src/core/bytes.ts';
import { generatePrivateKey, signBytes } from '../../src/platform/crypto.ts';
import { jwks } from '../../src/verifier/index.ts';
import {
  base64urlOf,
  ED25519_P,
  ed25519Jwk,
  newRsaJwk,
  P256,
  privateMembers,
  rocaModulus,
  rsaJwk,
  smallPoint,
} from '../support/keys.ts';
import { expectRowRefused, type Row } from '../support/rows.ts';
import { newSigner } from '../support/tokens.ts';
import { CLIENT_ID, type World } from '../support/world.ts';

const ATTESTATION = 'oauth-client-attestation+jwt';
const POP = 'oauth-client-attestation-pop+jwt';
const stranger = newSigner();

const jwkOf = ({ instance }: World) => instance.publicJwk;
const zeros = (length: number) => Buffer.alloc(length);
const halves = (r: bigint, s: bigint) =>
  Buffer.concat([Buffer.from(base64urlOf(r, 32), 'base64url'), Buffer.from(base64urlOf(s, 32), 'base64url')]);

/** One bad header or signature; the same for both tokens but for the rule that is broken. */
const algorithmRows: { name: string; alg: unknown; known?: true }[] = [
  { name: 'none', alg: 'none' },
  { name: 'None', alg: 'None' },
  { name: 'missing', alg: undefined },
  { name: 'empty', alg: '' },
  { name: 'a number', alg: 256 },
  { name: 'a list', alg: ['ES256'] },
  { name: 'unknown', alg: 'ES256K' },
  { name: 'a member of every object', alg: 'toString' },
  { name: '__proto__', alg: '__proto__' },
  { name: 'an encryption algorithm', alg: 'RSA-OAEP' },
  { name: 'in lower case', alg: 'es256' },
];

describe('alg', () => {
  it.each(algorithmRows)('VER-2, ATT-1: attestation whose alg is $name', ({ name, alg }) =>
    expectRowRefused({ name, rule: 'ATT-1', attestation: () => ({ header: { alg } as never }) }),
  );
  it.each(algorithmRows)('VER-2, POP-1: PoP whose alg is $name', ({ name, alg }) =>
    expectRowRefused({ name, rule: 'POP-1', pop: () => ({ header: { alg } as never }) }),
  );

  const rows: Row[] = [
    {
      name: 'attestation off the server list',
      rule: 'VER-2',
      world: () => ({ policy: { algorithms: ['ES256'] }, attester: newSigner('ES256') }),
      attestation: () => ({ header: { alg: 'ES384' }, signer: newSigner('ES384') }),
    },
    {
      name: 'PoP off the server list',
      rule: 'VER-2',
      world: () => ({ policy: { algorithms: ['ES256'] } }),
      pop: () => ({ header: { alg: 'EdDSA' }, signer: newSigner('EdDSA') }),
    },
    {
      name: 'attestation of an algorithm that the attester key is not for',
      rule: 'VER-3',
      attestation: () => ({ header: { alg: 'RS256' } }),
    },
    {
      name: 'attestation RS256 where the trusted key says PS256',
      rule: 'VER-3',
      world: () => {
        const attester = newSigner('PS256');
        return {
          attester,
          trust: [jwks({ keys: [{ ...attester.publicJwk, alg: 'PS256' }] }), jwks({ keys: [newSigner().publicJwk] })],
        };
      },
      attestation: () => ({ header: { alg: 'RS256' } }),
    },
    {
      name: 'PoP ES384 with an attested P-256 key',
      rule: 'POP-1',
      pop: () => ({ header: { alg: 'ES384' } }),
    },
    {
      name: 'PoP RS256 over an ECDSA signature',
      rule: 'POP-1',
      pop: () => ({ header: { alg: 'RS256' } }),
    },
    {
      name: 'attestation HS256 with the text of the attester public key as secret',
      rule: 'VER-2',
      attestation: ({ attester }) => ({
        header: { alg: 'HS256' },
        signer: hmacSigner(JSON.stringify(attester.publicJwk)),
      }),
    },
    {
      name: 'attestation HS256 with the public x coordinate as secret',
      rule: 'VER-2',
      attestation: ({ attester }) => ({
        header: { alg: 'HS256' },
        signer: hmacSigner(Buffer.from(String(attester.publicJwk.x), 'base64url')),
      }),
    },
    {
      name: 'PoP HS256 with the attested public key as secret',
      rule: 'POP-1',
      pop: ({ instance }) => ({ header: { alg: 'HS256' }, signer: hmacSigner(JSON.stringify(instance.publicJwk)) }),
    },
  ];
  it.each(rows)('VER-2: $name', (row) => expectRowRefused(row));
});

function hmacSigner(secret: string | Uint8Array) {
  return { sign: async (data: Uint8Array) => createHmac('sha256', secret).update(data).digest() };
}

describe('keys that a header brings along select nothing', () => {
  const headers: { name: string; header: (w: World) => object }[] = [
    { name: 'jwk', header: () => ({ jwk: stranger.publicJwk }) },
    { name: 'jku', header: () => ({ jku: 'https://attacker.example/jwks.json', kid: 'attester-1' }) },
    { name: 'x5u', header: () => ({ x5u: 'https://attacker.example/chain.pem' }) },
    { name: 'x5c', header: () => ({ x5c: ['MIIBszCCAVmgAwIBAgIUQ0ZB'] }) },
    { name: 'the thumbprint of the trusted key as kid', header: (w) => ({ kid: w.attester.thumbprint }) },
    { name: 'a kid with a path', header: () => ({ kid: '../../../../dev/null' }) },
    { name: 'a kid with NUL', header: () => ({ kid: 'attester-1\0' }) },
    { name: 'a kid with SQL', header: () => ({ kid: "' OR 1=1; DROP TABLE keys; --" }) },
  ];
  it.each(headers)('VER-3: attestation of a stranger, with $name', ({ name, header }) =>
    expectRowRefused({ name, rule: 'VER-3', attestation: (w) => ({ header: header(w) as never, signer: stranger }) }),
  );
  it.each(headers)('POP-6: PoP of a stranger, with $name', ({ name, header }) =>
    expectRowRefused({ name, rule: 'POP-6', pop: (w) => ({ header: header(w) as never, signer: stranger }) }),
  );
  it('IMPL-3: an attestation whose kid makes it larger than the limit', () =>
    expectRowRefused({ name: '', rule: 'IMPL-3', attestation: () => ({ header: { kid: 'k'.repeat(10_000) } }) }));
  it('IMPL-3: a PoP whose kid makes it larger than the limit', () =>
    expectRowRefused({ name: '', rule: 'IMPL-3', pop: () => ({ header: { kid: 'k'.repeat(10_000) } }) }));
});

describe('JOSE extensions and the form of the token', () => {
  /** Header members that demand what is not supported. */
  const demands: { name: string; header: object }[] = [
    { name: 'an unknown crit', header: { crit: ['x-unknown'], 'x-unknown': true } },
    { name: 'an empty crit', header: { crit: [] } },
    { name: 'a duplicate crit', header: { crit: ['exp', 'exp'] } },
    { name: 'a crit that names a standard parameter', header: { crit: ['alg'] } },
    { name: 'a crit that is no list', header: { crit: 'exp' } },
    { name: 'crit null', header: { crit: null } },
    { name: 'b64 false', header: { b64: false, crit: ['b64'] } },
    { name: 'b64 false without crit', header: { b64: false } },
    { name: 'a kid that is a number', header: { kid: 1 } },
    { name: 'a kid that is null', header: { kid: null } },
    { name: 'a kid that is an object', header: { kid: { toString: 1 } } },
  ];
  it.each(demands)('ATT-8: attestation with $name', ({ name, header }) =>
    expectRowRefused({ name, rule: 'ATT-8', attestation: () => ({ header: header as never }) }),
  );
  it.each(demands)('POP-1: PoP with $name', ({ name, header }) =>
    expectRowRefused({ name, rule: 'POP-1', pop: () => ({ header: header as never }) }),
  );

  /** The whole text of a valid token, spoilt. */
  const texts: { name: string; spoil: (token: string) => string }[] = [
    { name: 'five parts', spoil: (token) => `${token}.AAAA.AAAA` },
    { name: 'four parts', spoil: (token) => `${token}.AAAA` },
    { name: 'two parts', spoil: (token) => token.slice(0, token.lastIndexOf('.')) },
    { name: 'an empty signature', spoil: (token) => token.slice(0, token.lastIndexOf('.') + 1) },
    { name: 'an empty header', spoil: (token) => token.slice(token.indexOf('.')) },
    { name: 'an empty payload', spoil: (token) => token.replace(/\..*\./, '..') },
    { name: 'padding', spoil: (token) => `${token}==` },
    { name: 'padding inside', spoil: (token) => token.replace('.', '=.') },
    { name: 'leading white space', spoil: (token) => ` ${token}` },
    { name: 'trailing white space', spoil: (token) => `${token} ` },
    { name: 'a tab inside', spoil: (token) => token.replace('.', '.\t') },
    { name: 'standard base64', spoil: (token) => `${token.slice(0, -2)}+/` },
    { name: 'non-zero trailing bits', spoil: (token) => token.slice(0, -1) + nextCharacter(token.at(-1) as string) },
    { name: 'a letter outside ASCII', spoil: (token) => `${token.slice(0, -1)}É` },
    { name: 'a dot more', spoil: (token) => token.replace('.', '..') },
    { name: 'JSON in place of a token', spoil: () => '{"alg":"ES256"}' },
  ];
  it.each(texts)('ATT-8, ATT-9: attestation with $name', ({ name, spoil }) =>
    expectRowRefused({ name, rule: 'ATT-8', sent: (honest) => ({ attestation: spoil(String(honest.attestation)) }) }),
  );
  it.each(texts)('POP-1, POP-8: PoP with $name', ({ name, spoil }) =>
    expectRowRefused({ name, rule: 'POP-1', sent: (honest) => ({ pop: spoil(String(honest.pop)) }) }),
  );

  /** Raw JSON that no honest writer makes. `members` are the honest members as JSON text, without braces. */
  const jsons: { name: string; raw: (members: string) => string | Uint8Array }[] = [
    { name: 'a list', raw: (members) => `[{${members}}]` },
    { name: 'null', raw: () => 'null' },
    { name: 'a string', raw: () => '"text"' },
    { name: 'two objects', raw: (members) => `{${members}}{}` },
    { name: 'a trailing comma', raw: (members) => `{${members},}` },
    { name: 'NaN', raw: (members) => `{${members},"n":NaN}` },
    { name: 'a byte order mark', raw: (members) => `\uFEFF{${members}}` },
    {
      name: 'bytes that are not UTF-8',
      raw: (members) => Buffer.concat([Buffer.from(`{${members},"n":"`), Buffer.from([0xc3, 0x28]), Buffer.from('"}')]),
    },
    { name: '__proto__', raw: (members) => `{${members},"__proto__":{"admin":true}}` },
    { name: '__proto__ behind an escape', raw: (members) => `{${members},"__pr\\u006fto__":{}}` },
    { name: 'deep nesting', raw: (members) => `{${members},"n":${'['.repeat(60)}${']'.repeat(60)}}` },
    { name: 'a duplicate unknown member', raw: (members) => `{${members},"n":1,"n":1}` },
    { name: 'a duplicate in a nested object', raw: (members) => `{${members},"n":{"a":1,"\\u0061":2}}` },
  ];
  const payloadMembers = (w: World, kind: 'attestation' | 'pop') => {
    const { kty, crv, x, y } = jwkOf(w);
    const claims =
      kind === 'attestation'
        ? { sub: CLIENT_ID, iat: w.seconds(), exp: w.seconds() + 600, cnf: { jwk: { kty, crv, x, y } } }
        : { aud: w.verifier.audience, jti: 'jti-of-the-raw-token', iat: w.seconds() };
    return JSON.stringify(claims).slice(1, -1);
  };
  it.each(jsons)('ATT-8: attestation whose payload is or has $name', ({ name, raw }) =>
    expectRowRefused({
      name,
      rule: 'ATT-8',
      attestation: (w) => ({ rawPayload: raw(payloadMembers(w, 'attestation')) }),
    }),
  );
  it.each(jsons)('POP-1: PoP whose payload is or has $name', ({ name, raw }) =>
    expectRowRefused({ name, rule: 'POP-1', pop: (w) => ({ rawPayload: raw(payloadMembers(w, 'pop')) }) }),
  );
  it.each(jsons)('ATT-8: attestation whose header is or has $name', ({ name, raw }) =>
    expectRowRefused({
      name,
      rule: 'ATT-8',
      attestation: () => ({ rawHeader: raw(`"typ":"${ATTESTATION}","alg":"ES256"`) }),
    }),
  );
  it.each(jsons)('POP-1: PoP whose header is or has $name', ({ name, raw }) =>
    expectRowRefused({ name, rule: 'POP-1', pop: () => ({ rawHeader: raw(`"typ":"${POP}","alg":"ES256"`) }) }),
  );

  it.each(['sub', 'exp', 'iat', 'cnf', 's\\u0075b'])('ATT-8: attestation with the claim %s twice', (claim) =>
    expectRowRefused({
      name: claim,
      rule: 'ATT-8',
      attestation: (w) => ({ rawPayload: `{"${claim}":1,${payloadMembers(w, 'attestation')}}` }),
    }),
  );
  it.each(['aud', 'jti', 'iat', '\\u0061ud'])('POP-1: PoP with the claim %s twice', (claim) =>
    expectRowRefused({
      name: claim,
      rule: 'POP-1',
      pop: (w) => ({ rawPayload: `{"${claim}":1,${payloadMembers(w, 'pop')}}` }),
    }),
  );
  it.each(['alg', 'typ', '\\u0061lg'])('ATT-8: attestation with the header parameter %s twice', (name) =>
    expectRowRefused({
      name,
      rule: 'ATT-8',
      attestation: () => ({ rawHeader: `{"${name}":"none","typ":"${ATTESTATION}","alg":"ES256"}` }),
    }),
  );
});

/** The neighbour in the alphabet: differs in the lowest bit, which is a trailing bit in a 64-byte signature. */
function nextCharacter(character: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return alphabet[alphabet.indexOf(character) ^ 1] as string;
}

describe('signatures', () => {
  const { n } = P256;
  const signatures: { name: string; signature: Uint8Array }[] = [
    { name: 'r and s zero (CVE-2022-21449)', signature: zeros(64) },
    { name: 'r zero', signature: halves(0n, 1n) },
    { name: 's zero', signature: halves(1n, 0n) },
    { name: 'r = n', signature: halves(n, 1n) },
    { name: 's = n', signature: halves(1n, n) },
    { name: 'r and s over n', signature: Buffer.alloc(64, 0xff) },
    { name: 'one byte', signature: zeros(1) },
    { name: '63 bytes', signature: zeros(63) },
    { name: '65 bytes', signature: zeros(65) },
    { name: 'DER', signature: Buffer.from('3006020101020101', 'hex') },
    { name: '4 kB', signature: Buffer.alloc(4096, 1) },
  ];
  it.each(signatures)('VER-3: attestation with a signature that has $name', ({ name, signature }) =>
    expectRowRefused({ name, rule: 'VER-3', attestation: () => ({ signature: encodeBase64url(signature) }) }),
  );
  it.each(signatures)('POP-6: PoP with a signature that has $name', ({ name, signature }) =>
    expectRowRefused({ name, rule: 'POP-6', pop: () => ({ signature: encodeBase64url(signature) }) }),
  );
});

describe('cnf.jwk', () => {
  const point = smallPoint();
  const secrets = privateMembers();
  const p256 = (x: bigint, y: bigint) => ({ kty: 'EC', crv: 'P-256', x: base64urlOf(x, 32), y: base64urlOf(y, 32) });
  const keys: { name: string; jwk: (w: World) => unknown; rule: string }[] = [
    ...Object.entries(secrets).map(([member, value]) => ({
      name: `the private or symmetric member ${member}`,
      rule: 'VER-4',
      jwk: (w: World) => ({ ...jwkOf(w), [member]: value }),
    })),
    { name: 'the private member d with the value null', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), d: null }) },
    { name: 'a symmetric key', rule: 'VER-4', jwk: () => ({ kty: 'oct', k: 'AAAA' }) },
    { name: 'a symmetric key without k', rule: 'VER-4', jwk: () => ({ kty: 'oct' }) },
    { name: 'an unknown kty', rule: 'VER-4', jwk: () => ({ kty: 'AKP', alg: 'ML-DSA-44', pub: 'AAAA' }) },
    {
      name: 'no kty',
      rule: 'VER-4',
      jwk: ({ instance }) => ({ crv: 'P-256', x: instance.publicJwk.x, y: instance.publicJwk.y }),
    },
    { name: 'an unsupported curve', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), crv: 'secp256k1' }) },
    { name: 'the curve of another algorithm', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), crv: 'P-384' }) },
    { name: 'an encryption key', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), use: 'enc' }) },
    { name: 'key_ops without verify', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), key_ops: ['sign'] }) },
    { name: 'X25519', rule: 'VER-4', jwk: () => ({ kty: 'OKP', crv: 'X25519', x: 'A'.repeat(43) }) },
    { name: 'a point off the curve', rule: 'VER-2', jwk: () => p256(point.x, point.y + 1n) },
    { name: 'the point (0, 0)', rule: 'VER-2', jwk: () => p256(0n, 0n) },
    { name: 'a coordinate over p', rule: 'VER-2', jwk: () => p256(point.x + P256.p, point.y) },
    { name: 'a coordinate of 31 bytes', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), x: base64urlOf(point.x, 31) }) },
    { name: 'a coordinate of 33 bytes', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), x: base64urlOf(point.x, 33) }) },
    { name: 'no y', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), y: undefined }) },
    { name: 'a coordinate with padding', rule: 'VER-4', jwk: (w) => ({ ...jwkOf(w), x: `${jwkOf(w).x}=` }) },
    { name: 'the identity of Ed25519', rule: 'VER-4', jwk: () => ed25519Jwk(1n, 0) },
    { name: 'a non-canonical Ed25519 point', rule: 'VER-4', jwk: () => ed25519Jwk(ED25519_P + 3n, 0) },
    { name: 'RSA of 1024 bits', rule: 'VER-4', jwk: () => newRsaJwk(1024) },
    { name: 'RSA with e = 1', rule: 'VER-4', jwk: () => rsaJwk(2n ** 2047n + 1n, 1n) },
    { name: 'RSA with e = 3', rule: 'VER-4', jwk: () => newRsaJwk(2048, 3) },
    { name: 'RSA with the ROCA structure', rule: 'VER-4', jwk: () => rsaJwk(rocaModulus()) },
  ];
  it.each(keys)('VER-4: with $name', ({ name, jwk, rule }) =>
    expectRowRefused({ name, rule, attestation: (w) => ({ payload: { cnf: { jwk: jwk(w) as never } } }) }),
  );

  it('VER-4: with a signature that would verify under a small-order key', () =>
    expectRowRefused({
      name: '',
      rule: 'VER-4',
      attestation: () => ({ payload: { cnf: { jwk: ed25519Jwk(0n, 0) as never } } }),
      pop: () => ({
        header: { alg: 'EdDSA' },
        signer: { sign: async (data) => signBytes('EdDSA', generatePrivateKey('EdDSA'), data) },
      }),
    }));
});
