import { sign } from 'node:crypto';
import fc from 'fast-check';
import { base64url, decodeJwt, decodeProtectedHeader, SignJWT } from 'jose';
import { describe, expect, test } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { signJwt } from '../../src/core/jwt.ts';
import type { Signer } from '../../src/core/signer.ts';
import { evidenceCheck } from '../../src/evidence/index.ts';
import { checkSoftware } from '../../src/evidence/software/check.ts';
import { proveSoftware } from '../../src/evidence/software/prove.ts';
import { generatePrivateKey, signerOf } from '../../src/platform/crypto.ts';

const NOW = 1_800_000_000;
const context = {
  attester: 'https://attester.example',
  clientId: 'client',
  challenge: 'challenge-1',
  now: () => NOW * 1000,
};
const newSigner = (alg: 'ES256' | 'Ed25519' | 'ES384' = 'ES256'): Signer => signerOf(generatePrivateKey(alg), alg);
const enrolmentSigner = newSigner();
const instanceSigner = newSigner();
const prove = (changes: object = {}) => proveSoftware({ ...context, enrolmentSigner, instanceSigner, ...changes });

/** What an agent that follows no rules could send in place of one of the proofs. */
interface Forgery {
  header?: object;
  claims?: object;
  signer?: Signer;
}
async function forge(
  honest: string,
  signer: Signer,
  { header = {}, claims = {}, signer: by = signer }: Forgery,
): Promise<string> {
  const { alg: _, ...rest } = decodeProtectedHeader(honest);
  return signJwt({ ...rest, ...header } as JsonObject, { ...decodeJwt(honest), ...claims } as JsonObject, by);
}
async function forged(enrolment: Forgery | undefined, instance?: Forgery): Promise<JsonObject> {
  const honest = await prove();
  return {
    kind: 'software',
    enrolment_proof: enrolment
      ? await forge(honest.enrolment_proof, enrolmentSigner, enrolment)
      : honest.enrolment_proof,
    key_proof: instance ? await forge(honest.key_proof, instanceSigner, instance) : honest.key_proof,
  };
}

const refused = expect.objectContaining({ code: 'invalid_client_attestation' });

describe('software evidence', () => {
  test("shows possession of both keys, and storage on the agent's word only", async () => {
    expect(checkSoftware(await prove(), context)).toEqual({
      enrolmentThumbprint: enrolmentSigner.thumbprint,
      instanceKey: instanceSigner.publicJwk,
      instanceThumbprint: instanceSigner.thumbprint,
      storage: 'software',
      evidence: 'self-asserted',
    });
    expect(checkSoftware(await prove({ storage: 'keychain' }), context)).toMatchObject({
      storage: 'keychain',
      evidence: 'self-asserted',
    });
  });

  test.each(['Ed25519', 'ES384'] as const)('works with %s keys', async (alg) => {
    const other = newSigner(alg);
    expect(checkSoftware(await prove({ instanceSigner: other }), context).instanceThumbprint).toBe(other.thumbprint);
    expect(checkSoftware(await prove({ enrolmentSigner: other }), context).enrolmentThumbprint).toBe(other.thumbprint);
  });

  test('a forgery that changes nothing is accepted, so it is the change that the table below tests', async () => {
    expect(checkSoftware(await forged({}, {}), context).evidence).toBe('self-asserted');
  });

  test('no two proofs are the same', async () => {
    const [a, b] = [await prove(), await prove()];
    expect(decodeJwt(a.key_proof).jti).not.toBe(decodeJwt(b.key_proof).jti);
    expect(decodeJwt(a.key_proof).jti).not.toBe(decodeJwt(a.enrolment_proof).jti);
  });

  test('the agent does not prove with one key in both roles', async () => {
    await expect(prove({ instanceSigner: enrolmentSigner })).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  const other = newSigner();
  const secret = new TextEncoder().encode('x'.repeat(32));
  const withPrivate = { header: { jwk: { ...instanceSigner.publicJwk, d: 'AAAA' } } };
  const table: [string, () => Promise<JsonObject>][] = [
    [
      'the two proofs exchanged',
      async () => {
        const { enrolment_proof, key_proof } = await prove();
        return { kind: 'software', enrolment_proof: key_proof, key_proof: enrolment_proof };
      },
    ],
    [
      'the two proofs exchanged, where neither claims a storage',
      async () => {
        const { enrolment_proof, key_proof } = await forged({ claims: { storage: undefined } });
        return { kind: 'software', enrolment_proof: key_proof, key_proof: enrolment_proof } as JsonObject;
      },
    ],
    [
      'an elliptic signature under the name of an RSA algorithm',
      async () => {
        const key = generatePrivateKey('ES256');
        const signer: Signer = {
          ...signerOf(key, 'ES256'),
          alg: 'RS256',
          sign: async (data) => sign('sha256', data, key),
        };
        return prove({ instanceSigner: signer });
      },
    ],
    ['one proof in both places', async () => ({ ...(await prove()), key_proof: (await prove()).enrolment_proof })],
    [
      'the key proof of another enrolment key',
      async () => ({
        ...(await prove()),
        key_proof: (await prove({ enrolmentSigner: other })).key_proof,
      }),
    ],
    [
      'the enrolment proof made for another key',
      async () => ({
        ...(await prove()),
        enrolment_proof: (await prove({ instanceSigner: other })).enrolment_proof,
      }),
    ],
    ['another challenge', () => prove({ challenge: 'challenge-2' })],
    ['another challenge in the key proof only', () => forged(undefined, { claims: { challenge: 'challenge-2' } })],
    ['no challenge', () => forged({ claims: { challenge: undefined } })],
    ['another client', () => prove({ clientId: 'client-2' })],
    ['another client in the key proof only', () => forged(undefined, { claims: { sub: 'client-2' } })],
    ['another attester', () => prove({ attester: 'https://evil.example' })],
    ['the attester with a trailing slash', () => prove({ attester: 'https://attester.example/' })],
    ['several attesters', () => forged({ claims: { aud: [context.attester] } })],
    ['another typ', () => forged({ header: { typ: 'oauth-client-attestation-pop+jwt' } })],
    ['no typ', () => forged(undefined, { header: { typ: undefined } })],
    ['no role', () => forged({ claims: { role: undefined } })],
    ['no jti', () => forged({ claims: { jti: undefined } })],
    ['an empty jti', () => forged({ claims: { jti: '' } })],
    ['no iat', () => forged({ claims: { iat: undefined } })],
    ['a fractional iat', () => forged({ claims: { iat: NOW + 0.5 } })],
    ['a stale iat', () => prove({ now: () => (NOW - 361) * 1000 })],
    ['an iat in the future', () => prove({ now: () => (NOW + 61) * 1000 })],
    ['a stale iat in the key proof only', () => forged(undefined, { claims: { iat: NOW - 361 } })],
    ['hardware on its own word', () => prove({ storage: 'hardware' })],
    ['storage that nobody knows', () => prove({ storage: 'vault' })],
    ['storage that is no string', () => forged({ claims: { storage: ['hardware'] } })],
    ['a claim of storage in the key proof', () => forged(undefined, { claims: { storage: 'keychain' } })],
    [
      'one key in both roles',
      async () => {
        const honest = await prove();
        const self = {
          claims: { for: enrolmentSigner.thumbprint },
          header: { jwk: enrolmentSigner.publicJwk },
          signer: enrolmentSigner,
        };
        return {
          kind: 'software',
          enrolment_proof: await forge(honest.enrolment_proof, enrolmentSigner, self),
          key_proof: await forge(honest.key_proof, instanceSigner, self),
        };
      },
    ],
    ['a key proof signed by another key than it carries', () => forged(undefined, { signer: other })],
    ['an enrolment proof signed by another key than it carries', () => forged({ signer: other })],
    ['a key that somebody else holds', () => forged(undefined, { header: { jwk: other.publicJwk } })],
    ['private members in the jwk', () => forged(undefined, withPrivate)],
    ['a symmetric jwk', () => forged(undefined, { header: { jwk: { kty: 'oct', k: 'AAAA' } } })],
    ['no jwk', () => forged({ header: { jwk: undefined } })],
    [
      'a point that is not on the curve',
      () =>
        forged(undefined, {
          header: { jwk: { ...instanceSigner.publicJwk, y: base64url.encode(new Uint8Array(32).fill(1)) } },
        }),
    ],
    ['an alg that does not fit the key', () => forged(undefined, { header: { alg: 'ES384' } })],
    ['crit', () => forged({ header: { crit: ['exp'] } })],
    [
      'alg none',
      async () => {
        const honest = await prove();
        const [, payload] = honest.key_proof.split('.');
        const header = base64url.encode(JSON.stringify({ ...decodeProtectedHeader(honest.key_proof), alg: 'none' }));
        return { ...honest, key_proof: `${header}.${payload}.` };
      },
    ],
    [
      'HS256 with the public key as secret',
      async () => {
        const honest = await prove();
        const header = { ...decodeProtectedHeader(honest.key_proof), alg: 'HS256' };
        return {
          ...honest,
          key_proof: await new SignJWT(decodeJwt(honest.key_proof)).setProtectedHeader(header).sign(secret),
        };
      },
    ],
    [
      'a signature changed in one bit',
      async () => {
        const honest = await prove();
        const [header, payload, signature] = honest.key_proof.split('.') as [string, string, string];
        const bytes = base64url.decode(signature);
        bytes[0]! ^= 1;
        return { ...honest, key_proof: `${header}.${payload}.${base64url.encode(bytes)}` };
      },
    ],
    [
      'a payload of another proof',
      async () => {
        const [honest, second] = [await prove(), await prove()];
        const [header, , signature] = honest.key_proof.split('.');
        return { ...honest, key_proof: `${header}.${second.key_proof.split('.')[1]}.${signature}` };
      },
    ],
    ['a proof that is no JWT', async () => ({ ...(await prove()), key_proof: 'a.b' })],
  ];
  test.each(table)('is refused with %s', async (_what, make) => {
    const evidence = await make();
    expect(() => checkSoftware(evidence, context)).toThrow(refused);
  });

  test('VER-4: the message of a refused private key does not show it', async () => {
    const d = 'c2VjcmV0LW1hdGVyaWFs';
    const evidence = await forged(undefined, { header: { jwk: { ...instanceSigner.publicJwk, d } } });
    try {
      checkSoftware(evidence, context);
      expect.unreachable();
    } catch (error) {
      expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(d);
    }
  });

  test('times at the edges of the window are accepted', async () => {
    for (const now of [NOW - 360, NOW + 60]) {
      expect(checkSoftware(await prove({ now: () => now * 1000 }), context).evidence).toBe('self-asserted');
    }
    const strict = { ...context, clockTolerance: 0, maxAge: 10 };
    const old = await prove({ now: () => (NOW - 11) * 1000 });
    expect(() => checkSoftware(old, strict)).toThrow(refused);
  });

  test.each([
    ['no proof', { kind: 'software' }],
    ['one proof', { kind: 'software', enrolment_proof: 'a.b.c' }],
    ['a proof that is no string', { kind: 'software', enrolment_proof: 'a.b.c', key_proof: {} }],
    ['another kind', { kind: 'tpm', enrolment_proof: 'a.b.c', key_proof: 'a.b.c' }],
  ])('is malformed with %s', (_what, evidence) => {
    expect(() => checkSoftware(evidence as JsonObject, context)).toThrow(
      expect.objectContaining({ code: 'invalid_request' }),
    );
  });

  test('whatever the two proofs are, the answer is a refusal with a code', () => {
    const part = fc.oneof(
      fc.string(),
      fc.array(fc.base64String(), { maxLength: 4 }).map((parts) => parts.join('.')),
    );
    fc.assert(
      fc.property(part, part, (enrolment_proof, key_proof) => {
        expect(() => checkSoftware({ kind: 'software', enrolment_proof, key_proof }, context)).toThrow(refused);
      }),
    );
  });

  test('the table of kinds has no member that nobody put there', () => {
    expect(evidenceCheck('software')).toBe(checkSoftware);
    for (const kind of ['tpm2', '__proto__', 'constructor', 'toString', ''])
      expect(evidenceCheck(kind)).toBeUndefined();
  });
});
