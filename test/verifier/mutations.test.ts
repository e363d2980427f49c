import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import { sealedChallenges } from '../../src/verifier/index.ts';
import { newSigner } from '../support/tokens.ts';
import { createWorld, expectSafeAnswer, type Sent } from '../support/world.ts';

const CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~+/=, \t\0é';

describe.each(['ES256', 'EdDSA', 'PS256'] as const)('one character of a valid token (%s)', (alg) => {
  const attester = newSigner(alg, 'one');
  const instance = newSigner(alg);

  it.each(['attestation', 'pop', 'dpop'] as const)(
    'VER-3, POP-6, DPOP-2: changed in the %s, the request is refused',
    async (field) => {
      const world = createWorld({ attester, instance, challenges: sealedChallenges() });
      const honest = field === 'dpop' ? await world.sentCombined() : await world.sent();
      const token = String(honest[field]);
      await fc.assert(
        fc.asyncProperty(
          fc.nat(token.length - 1),
          fc.constantFrom(...CHARACTERS, ''),
          fc.constantFrom('replace', 'insert'),
          async (at, character, how) => {
            const changed = token.slice(0, at) + character + token.slice(how === 'replace' ? at + 1 : at);
            if (changed === token) return;
            const sent: Sent = { ...honest, [field]: changed };
            const error: unknown = await world.verify(sent).then(
              () => undefined,
              (reason: unknown) => reason,
            );
            expect(error).toBeInstanceOf(AttestedError);
            await expectSafeAnswer(world.verifier, error as AttestedError, { ...sent, [field]: null });
          },
        ),
        { numRuns: 300 },
      );
      await expect(world.verify(honest)).resolves.toMatchObject({ thumbprint: instance.thumbprint });
    },
  );

  it('VER-3: a remembered attestation does not help a changed one', async () => {
    const world = createWorld({ attester, instance });
    const attestation = await world.attestation();
    await world.verify(await world.sent({ attestation }));
    for (let at = 0; at < attestation.length; at += 7) {
      const changed = `${attestation.slice(0, at)}${attestation[at] === 'A' ? 'B' : 'A'}${attestation.slice(at + 1)}`;
      await expect(world.verify(await world.sent({ attestation: changed }))).rejects.toBeInstanceOf(AttestedError);
    }
  });
});

describe('requests of any shape', () => {
  it('VER-1, ERR-3: end in an error with a code, never in another exception', async () => {
    const world = createWorld();
    const value = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.constant('a.b.c'), fc.constant('~'));
    const name = fc.oneof(
      fc.constantFrom('OAuth-Client-Attestation', 'OAuth-Client-Attestation-PoP', 'DPoP', 'Authorization'),
      fc.constantFrom('constructor', '__proto__', 'toString', 'hasOwnProperty', ''),
      fc.string(),
    );
    const headers = fc.oneof(
      fc.array(fc.tuple(name, value)),
      fc.array(fc.tuple(name, value)).map((pairs) => pairs.flat()),
      fc.array(fc.tuple(name, fc.oneof(value, fc.array(value)))).map((pairs) => Object.fromEntries(pairs)),
    );
    await fc.assert(
      fc.asyncProperty(headers, fc.option(fc.string(), { nil: undefined }), async (input, clientId) => {
        await expect(
          world.verifier.verify({ headers: input as never, clientId, method: 'POST', url: 'x' }),
        ).rejects.toBeInstanceOf(AttestedError);
      }),
      { numRuns: 500 },
    );
  });
});
