/**
 * What an instance key signs for its attester is of no use at a server, nor the other way round. The worst case: the attester is
 * hostile, is asked under the very URL of the server, and hands on the server's own challenge.
 */
import { decodeJwt } from 'jose';
import { expect, test } from 'vitest';
import { proveKeys } from '../../src/evidence/key-proof/prove.ts';
import { parseKeyProof } from '../../src/evidence/key-proof/wire.ts';
import { createDpopProof, createPop } from '../../src/index.ts';
import { CLIENT, challengeOf, post, START, setUp } from '../attester/helpers.ts';
import { newSigner } from '../support/tokens.ts';
import { AUDIENCE, CLIENT_ID, createWorld, expectRefused, TOKEN_URL } from '../support/world.ts';

test('a key proof is neither a PoP nor a DPoP proof nor a client assertion', async () => {
  const world = createWorld();
  const enrolmentSigner = newSigner('ES256');
  const proofs = async (challenge: string) =>
    Object.values(
      await proveKeys({
        attester: AUDIENCE,
        clientId: CLIENT_ID,
        challenge,
        enrolmentSigner,
        instanceSigner: world.instance,
        now: () => world.clock.now,
      }),
    );
  expect(await world.verify(await world.sent())).toMatchObject({ clientId: CLIENT_ID });
  for (const proof of await proofs(await world.challenge())) {
    await expectRefused(world, await world.sent({ pop: proof }), { code: 'invalid_client_attestation', rule: 'POP-1' });
    // RFC 7523 §3 asks for both
    expect(decodeJwt(proof)).not.toHaveProperty('iss');
    expect(decodeJwt(proof)).not.toHaveProperty('exp');
  }
  for (const proof of await proofs(await world.nonce())) {
    await expectRefused(world, await world.sentCombined({ dpop: proof }), {
      code: 'invalid_dpop_proof',
      rule: 'DPOP-2',
    });
  }
});

test('what is signed for a server is no key proof', async () => {
  const { attester } = setUp();
  const enrolmentSigner = newSigner('ES256');
  const instanceSigner = newSigner('ES256');
  const challenge = await challengeOf(attester);
  const given = { attester: attester.issuer, clientId: CLIENT, challenge, enrolmentSigner, instanceSigner };
  const proofs = await proveKeys({ ...given, now: () => START * 1000 });
  const foreign = [
    await createPop({ audience: attester.issuer, challenge, issuedAt: START }, instanceSigner),
    await createDpopProof({ method: 'POST', url: TOKEN_URL, nonce: challenge, issuedAt: START }, instanceSigner),
  ];
  for (const text of foreign) {
    expect(() => parseKeyProof(text)).toThrow(expect.objectContaining({ code: 'invalid_client_attestation' }));
    const evidence = { kind: 'software', ...proofs, key_proof: text };
    const body = { client_id: CLIENT, challenge: await challengeOf(attester), evidence };
    expect(await post(attester, '/attestation', body)).toMatchObject({ status: 400 });
  }
});
