import { describe, expect, it } from 'vitest';
import { parseAttestation, parsePop } from '../../src/index.ts';
import { importPublicKey, verifySignature } from '../../src/platform/crypto.ts';
import { jwks } from '../../src/verifier/index.ts';
import { newSigner } from '../support/tokens.ts';
import { createWorld } from '../support/world.ts';
import draft from '../vectors/draft-10.json' with { type: 'json' };

describe("the draft's own examples", () => {
  it('ATT-1, ATT-2, ATT-3, ATT-4, ATT-5: the attestation reads as the draft prints it', () => {
    const parsed = parseAttestation(draft.attestation);
    expect(parsed).toMatchObject({
      clientId: 'https://client.example.com',
      iat: 1772487595,
      exp: 2529866394,
      header: { alg: 'ES256', kid: '11', typ: 'oauth-client-attestation+jwt' },
    });
    expect(parsed.instanceKey).toEqual({
      kty: 'EC',
      crv: 'P-256',
      x: 'VcKVNBZ4IaBAYW3jxM4w3TJFVA7myeUGQyGt-g_yvpQ',
      y: 'f-E-hYE3TAWKwhVv9pej9NABs9SX9XsNO80x57jFTyU',
    });
  });

  it.each([
    { name: 'AS', token: draft.asPop, audience: 'https://as.example.com' },
    { name: 'RS', token: draft.rsPop, audience: 'https://rs.example.com' },
  ])(
    'POP-1, POP-2, POP-3, POP-4, POP-5, POP-6: the PoP for the $name reads and verifies with the attested key',
    ({ token, audience }) => {
      const pop = parsePop(token);
      expect(pop).toMatchObject({
        audience,
        jti: 'd25d00ab-552b-46fc-ae19-98f440f25064',
        iat: 1772487595,
        challenge: '5c1a9e10-29ff-4c2b-ae73-57c0957c09c4',
      });
      const key = importPublicKey(parseAttestation(draft.attestation).instanceKey);
      expect(verifySignature(pop.header.alg, key, pop.signingInput, pop.signature)).toBe(true);
      const stranger = importPublicKey(newSigner().publicJwk as never);
      expect(verifySignature(pop.header.alg, stranger, pop.signingInput, pop.signature)).toBe(false);
    },
  );

  it('VER-3: a verifier that does not know the attester of the example refuses it', async () => {
    const world = createWorld({
      audience: 'https://as.example.com',
      startAt: 1772487600_000,
      trust: jwks({ keys: [newSigner().publicJwk] }),
    });
    const headers = { 'OAuth-Client-Attestation': draft.attestation, 'OAuth-Client-Attestation-PoP': draft.asPop };
    await expect(world.verifier.verify({ headers })).rejects.toMatchObject({ code: 'invalid_client_attestation' });
  });
});
