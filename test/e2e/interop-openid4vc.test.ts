/**
 * @openid4vc/oauth2 0.4.6, in both directions. By what it writes and demands it implements revisions -04 and -05: `iss` in
 * attestation and PoP, `exp` in the PoP, its challenge in the claim `nonce`. It has no concept of a challenge endpoint, and
 * its client authentication puts no challenge in at all, so a server that wants its clients makes challenges optional.
 */
import { randomBytes } from 'node:crypto';
import {
  type CallbackContext,
  clientAuthenticationClientAttestationJwt,
  createClientAttestationJwt,
  type Jwk,
  Oauth2AuthorizationServer,
} from '@openid4vc/oauth2';
import { calculateJwkThumbprint, importJWK, jwtVerify } from 'jose';
import { describe, expect, test } from 'vitest';
import { createAttestation } from '../../src/core/attestation.ts';
import { createPop } from '../../src/core/pop.ts';
import { type RevisionNumber, revisionOf } from '../../src/core/revisions.ts';
import { createVerifier, jwks, type VerifierOptions } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { decode, forge, newSigner } from '../support/tokens.ts';

const ISSUER = 'https://as.example';
const CLIENT_ID = 'https://agent.example/client';
const attester = newSigner('ES256', 'attester-1');
const instance = newSigner();
const attesterJwk = attester.publicJwk as unknown as Jwk;
const instanceJwk = instance.publicJwk as unknown as Jwk;
const seconds = () => Math.floor(Date.now() / 1000);

const signJwt: CallbackContext['signJwt'] = async (signer, { header, payload }) => {
  // an attester names its key by `kid`, a proof's signer is the key itself
  const [key, signerJwk] = signer.method === 'custom' ? [attester, attesterJwk] : [instance, instanceJwk];
  return { jwt: await forge({ header, payload, signer: key }), signerJwk };
};

const verifyJwt: CallbackContext['verifyJwt'] = async (signer, { compact }) => {
  const jwk = signer.method === 'jwk' ? signer.publicJwk : attesterJwk;
  if (signer.method === 'custom' && signer.kid !== attester.publicJwk.kid) return { verified: false };
  try {
    await jwtVerify(compact, await importJWK(jwk as never, signer.alg));
    return { verified: true, signerJwk: jwk };
  } catch {
    return { verified: false };
  }
};

const callbacks = { signJwt, verifyJwt, generateRandom: (bytes: number) => randomBytes(bytes) };

async function theirHeaders(): Promise<Headers> {
  const clientAttestationJwt = await createClientAttestationJwt({
    issuer: 'https://attester.example',
    clientId: CLIENT_ID,
    expiresAt: new Date(Date.now() + 3600_000),
    confirmation: { jwk: instanceJwk },
    signer: { method: 'custom', alg: 'ES256', kid: attester.publicJwk.kid as string },
    callbacks,
  });
  const headers = new Headers();
  const authenticate = clientAuthenticationClientAttestationJwt({ clientAttestationJwt, callbacks });
  await authenticate({ headers, authorizationServerMetadata: { issuer: ISSUER } } as never);
  return headers;
}

const newVerifier = (revision?: RevisionNumber, options: Partial<VerifierOptions> = {}) =>
  createVerifier({
    role: 'as',
    audience: ISSUER,
    trust: jwks({ keys: [attester.publicJwk] }),
    policy: { challenge: 'optional' },
    ...(revision !== undefined && { revision }),
    ...options,
  });

describe('@openid4vc/oauth2 0.4.6 to us', () => {
  test('its tokens are those of revisions -04 and -05', async () => {
    const headers = await theirHeaders();
    const attestation = decode(headers.get('oauth-client-attestation') as string);
    const pop = decode(headers.get('oauth-client-attestation-pop') as string);
    expect(Object.keys(attestation.payload).sort()).toEqual(['cnf', 'exp', 'iat', 'iss', 'sub']);
    expect(Object.keys(pop.payload).sort()).toEqual(['aud', 'exp', 'iat', 'iss', 'jti']);
    expect(pop.payload.iss).toBe(CLIENT_ID);
  });

  test.each([4, 5] as const)('ATT-1, POP-1: revision -0%s accepts them', async (revision) => {
    const client = await newVerifier(revision).verify({ headers: await theirHeaders(), clientId: CLIENT_ID });
    const thumbprint = await calculateJwkThumbprint(instanceJwk as never);
    expect(client).toMatchObject({ clientId: CLIENT_ID, thumbprint, method: 'attestation_pop_jwt' });
  });

  // what those revisions no longer ask for is an unknown claim to them
  test.each([6, 7, 8, 9, 10, 11, 12] as const)(
    'ATT-6, POP-7: revision %s accepts them too, where a challenge is optional',
    async (revision) => {
      await expect(newVerifier(revision).verify({ headers: await theirHeaders() })).resolves.toBeDefined();
    },
  );

  test('POP-5: where challenges are required they are refused, as they carry none', async () => {
    for (const revision of [4, 12] as const) {
      const verifier = newVerifier(revision, { policy: {} });
      const headers = await theirHeaders();
      await expectRefusal(() => verifier.verify({ headers }), { code: 'use_attestation_challenge', rule: 'POP-5' });
    }
  });

  test('VER-8: their PoP is accepted once', async () => {
    const verifier = newVerifier(4);
    const headers = await theirHeaders();
    await verifier.verify({ headers });
    await expectRefusal(() => verifier.verify({ headers }), { code: 'invalid_client_attestation', rule: 'VER-8' });
  });
});

describe('we to @openid4vc/oauth2 0.4.6', () => {
  const server = new Oauth2AuthorizationServer({ callbacks: { ...callbacks, hash: () => new Uint8Array() } as never });

  async function ours(number: RevisionNumber, audience = ISSUER) {
    const revision = revisionOf(number);
    const clientAttestationJwt = await createAttestation(
      {
        sub: CLIENT_ID,
        iat: seconds(),
        exp: seconds() + 3600,
        cnf: { jwk: instance.publicJwk },
        ...(revision.attestationIss && { iss: 'https://attester.example' }),
      },
      attester,
    );
    const clientAttestationPopJwt = await createPop(
      { audience, jti: randomBytes(16).toString('hex'), issuedAt: seconds(), clientId: CLIENT_ID, revision },
      instance,
    );
    return { clientAttestationJwt, clientAttestationPopJwt, authorizationServer: ISSUER };
  }

  test.each([4, 5] as const)('ATT-1, POP-1: it accepts our tokens of revision -0%s', async (revision) => {
    const verified = await server.verifyClientAttestation(await ours(revision));
    expect(verified.clientAttestation.payload).toMatchObject({ sub: CLIENT_ID });
    expect(verified.clientAttestationPop.payload).toMatchObject({ iss: CLIENT_ID, aud: ISSUER });
  });

  test.each([6, 7, 8, 9, 10, 11, 12] as const)(
    'it refuses those of revision %s, which lack what it demands',
    async (revision) => {
      await expect(server.verifyClientAttestation(await ours(revision))).rejects.toMatchObject({
        // a claim that is not there counts as its own fault, not as the client's
        errorResponse: { error: 'server_error' },
        cause: { message: expect.stringMatching(/"(iss|exp)"/) },
      });
    },
  );

  test('POP-2: it refuses a PoP that we made for another server', async () => {
    await expect(server.verifyClientAttestation(await ours(4, 'https://other.example'))).rejects.toThrow(/'aud'/);
  });
});
