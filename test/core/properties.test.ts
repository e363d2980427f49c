import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readAttestationFields } from '../../src/core/headers.ts';
import { readPublicJwk } from '../../src/core/jwk.ts';
import { parseJwt } from '../../src/core/jwt.ts';
import { readServerNeeds } from '../../src/core/metadata.ts';
import { parseChallenges } from '../../src/core/oauth-errors.ts';
import { revisions } from '../../src/core/revisions.ts';
import { parseStatusListToken, readStatusReference } from '../../src/core/status-list.ts';
import { readKeyStatement } from '../../src/core/storage.ts';
import { AttestedError, parseAttestation, parseDpopProof, parsePop, splitAttestation } from '../../src/index.ts';
import { forge, newSigner, part } from '../support/tokens.ts';
import { createWorld } from '../support/world.ts';

const kind = { name: 'Token', typ: 't', code: 'invalid_request', headerRule: 'H', jwtRule: 'J' } as const;
const parsers: Record<string, (text: string) => unknown> = {
  parseJwt: (text) => parseJwt(text, kind),
  parseAttestation,
  parsePop,
  parseDpopProof: (text) => parseDpopProof(text),
  parseStatusListToken,
  splitAttestation,
  parseChallenges,
  readAttestationFields: (text) => readAttestationFields({ 'OAuth-Client-Attestation': text, DPoP: text }),
};

/** A result, or an AttestedError with a code and a rule; nothing else, and at once. */
function settles(parse: () => unknown): void {
  const startedAt = performance.now();
  try {
    parse();
  } catch (error) {
    expect(error).toBeInstanceOf(AttestedError);
    expect((error as AttestedError).code).toMatch(/^[a-z_]+$/);
    expect((error as AttestedError).rule).toMatch(/./);
  }
  expect(performance.now() - startedAt).toBeLessThan(500);
}

const json = fc.jsonValue({ maxDepth: 3 });
const claimNames = [
  'sub',
  'exp',
  'iat',
  'nbf',
  'cnf',
  'aud',
  'jti',
  'challenge',
  'nonce',
  'htm',
  'htu',
  'ath',
  'status_list',
  'ttl',
  'iss',
];
const typs = ['oauth-client-attestation+jwt', 'oauth-client-attestation-pop+jwt', 'dpop+jwt', 'statuslist+jwt', 't'];
/** Tokens that get far into the parser: known types and algorithms, claims with arbitrary values. */
const almostTokens = fc
  .record({
    typ: fc.constantFrom(...typs),
    alg: fc.constantFrom('ES256', 'EdDSA', 'RS256', 'HS256', 'none'),
    more: fc.dictionary(fc.constantFrom('kid', 'jwk', 'crit', 'b64', 'x5c', 'jku'), json),
    claims: fc.dictionary(
      fc.constantFrom(...claimNames),
      fc.oneof(json, fc.integer(), fc.constant({ jwk: {} }), fc.string()),
    ),
  })
  .map(({ typ, alg, more, claims }) => `${part({ typ, alg, ...more })}.${part(claims)}.AAAA`);
const anyTexts = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary' }),
  fc
    .array(fc.constantFrom('.', '~', 'e30', 'AAAA', '=', ' ', ',', '"', '{}'), { maxLength: 12 })
    .map((pieces) => pieces.join('')),
  fc
    .tuple(json, json)
    .map(([header, payload]) => `${part(JSON.stringify(header))}.${part(JSON.stringify(payload))}.AAAA`),
  almostTokens,
);

describe('readers of hostile text', () => {
  it.each(Object.entries(parsers))('ATT-8, POP-7: %s gives a result or an AttestedError', (_, parse) => {
    fc.assert(
      fc.property(anyTexts, (text) => settles(() => parse(text))),
      { numRuns: 1000 },
    );
  });

  it('ATT-8, POP-7: and so for mutations of valid tokens, in every revision', async () => {
    const signer = newSigner();
    const world = createWorld({ attester: signer, instance: signer });
    const list = { sub: 'u', iat: 1, status_list: { bits: 1, lst: 'eNrbuRgAAhcBXQ' } };
    const tokens = [
      await world.attestation({ payload: { iss: 'a' } }),
      await world.pop({ payload: { iss: 'c', exp: world.seconds() + 60 } }),
      await world.dpop(),
      await forge({ header: { typ: 'statuslist+jwt', alg: 'ES256' }, payload: list, signer }),
    ];
    const mutations = fc.record({
      token: fc.constantFrom(...tokens),
      cuts: fc.array(fc.tuple(fc.nat(2000), fc.nat(20), fc.string({ maxLength: 5 })), { minLength: 1, maxLength: 3 }),
    });
    fc.assert(
      fc.property(mutations, ({ token, cuts }) => {
        let text = token;
        for (const [at, length, insert] of cuts) {
          const start = at % (text.length + 1);
          text = text.slice(0, start) + insert + text.slice(start + length);
        }
        for (const parse of Object.values(parsers)) settles(() => parse(text));
        for (const revision of Object.values(revisions)) {
          settles(() => parseAttestation(text, revision));
          settles(() => parsePop(text, revision));
        }
      }),
      { numRuns: 500 },
    );
  });

  it('ATT-8, POP-7: and for megabytes', () => {
    const big = [
      '.'.repeat(1e6),
      'a'.repeat(1e6),
      `${'a'.repeat(5e5)}.${'a'.repeat(5e5)}.a`,
      '~'.repeat(1e6),
      `${part('['.repeat(3e5))}.e30.AA`,
    ];
    for (const text of big) for (const parse of Object.values(parsers)) settles(() => parse(text));
  });
});

describe('readers of hostile JSON', () => {
  const values = fc.oneof(
    json,
    fc.dictionary(
      fc.constantFrom('kty', 'crv', 'x', 'y', 'n', 'e', 'd', 'use', 'key_ops'),
      fc.oneof(json, fc.constantFrom('EC', 'P-256', 'OKP', 'Ed25519', 'RSA', 'AQAB', 'A'.repeat(43))),
    ),
  );
  it('VER-4, META-4: keys, metadata, status references and statements are read or refused', () => {
    const names = fc.constantFrom(
      'token_endpoint_auth_methods_supported',
      'client_attestation_pop_methods_supported',
      'challenge_endpoint',
      'status',
      'key_storage',
      'key_evidence',
    );
    fc.assert(
      fc.property(values, fc.dictionary(names, values), (value, object) => {
        settles(() => readPublicJwk(value));
        settles(() => readServerNeeds(object as never));
        settles(() => readStatusReference(object as never));
        settles(() => readKeyStatement(object as never));
      }),
      { numRuns: 2000 },
    );
  });
});
