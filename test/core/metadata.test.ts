import { describe, expect, it } from 'vitest';
import { challengeBody, isUsableChallenge, readChallengeBody } from '../../src/core/challenge.ts';
import { choosePopMethod, clientMetadata, readServerNeeds, serverMetadata } from '../../src/core/metadata.ts';
import { expectRefusal } from '../support/errors.ts';

const algorithms = { attestationAlgorithms: ['ES256'], popAlgorithms: ['ES256', 'EdDSA'] };

describe('server metadata', () => {
  it.each(['as', 'rs'] as const)('META-1, META-2, META-3, DPOP-6: what an %s writes, a client reads', (role) => {
    const metadata = serverMetadata({
      role,
      ...algorithms,
      popMethods: ['attestation_pop_jwt', 'dpop_combined', 'none'],
      challengeEndpoint: 'https://s.example/challenge',
      popMethodsMetadata: true,
    });
    expect(readServerNeeds(metadata)).toEqual({
      popMethods: ['dpop_combined', 'attestation_pop_jwt'],
      required: false,
      attestationAlgorithms: ['ES256'],
      popAlgorithms: ['ES256', 'EdDSA'],
      dpopAlgorithms: ['ES256', 'EdDSA'],
      challengeEndpoint: 'https://s.example/challenge',
    });
    expect('token_endpoint_auth_methods_supported' in metadata).toBe(role === 'as');
  });

  it('META-3: absent = optional, without none = demanded, empty = malformed', async () => {
    expect(readServerNeeds({})).toMatchObject({ popMethods: [], required: false });
    expect(readServerNeeds({ client_attestation_pop_methods_supported: ['none'] })).toMatchObject({
      popMethods: [],
      required: false,
    });
    expect(readServerNeeds({ client_attestation_pop_methods_supported: ['attestation_pop_jwt'] })).toMatchObject({
      required: true,
    });
    await expectRefusal(() => readServerNeeds({ client_attestation_pop_methods_supported: [] }), {
      code: 'server_unsupported',
      rule: 'META-3',
    });
  });

  it('META-4: methods nobody knows are passed over; the authentication methods of an AS count too', () => {
    expect(
      readServerNeeds({ client_attestation_pop_methods_supported: ['future', 'Attestation_Pop_Jwt'] }).popMethods,
    ).toEqual([]);
    expect(
      readServerNeeds({
        token_endpoint_auth_methods_supported: [
          'client_secret_basic',
          'attest_jwt_client_auth',
          'attest_jwt_client_auth_dpop',
        ],
      }).popMethods,
    ).toEqual(['dpop_combined', 'attestation_pop_jwt']);
  });

  const names = [
    'token_endpoint_auth_methods_supported',
    'client_attestation_pop_methods_supported',
    'client_attestation_signing_alg_values_supported',
    'client_attestation_pop_signing_alg_values_supported',
    'dpop_signing_alg_values_supported',
  ];
  it.each(names)('META-4: a malformed %s is refused', async (name) => {
    for (const value of [null, 'ES256', 5, {}, [5], ['ES256', null], [['ES256']]]) {
      await expectRefusal(() => readServerNeeds({ [name]: value }), { code: 'server_unsupported', rule: 'META-2' });
    }
  });
  it('META-2: a challenge_endpoint that is no text is refused', async () => {
    for (const value of [null, 5, {}, []]) {
      await expectRefusal(() => readServerNeeds({ challenge_endpoint: value as never }), {
        code: 'server_unsupported',
        rule: 'META-2',
      });
    }
  });
});

describe('choosePopMethod', () => {
  const needs = (changes: object = {}) => ({ ...readServerNeeds({}), ...changes });
  it('META-4: picks the best that both sides have, and whose algorithm the server accepts', () => {
    const both = needs({ popMethods: ['dpop_combined', 'attestation_pop_jwt'] });
    expect(choosePopMethod(both, 'ES256')).toBe('dpop_combined');
    expect(choosePopMethod(both, 'ES256', ['attestation_pop_jwt'])).toBe('attestation_pop_jwt');
    expect(choosePopMethod({ ...both, dpopAlgorithms: ['PS256'] }, 'ES256')).toBe('attestation_pop_jwt');
    expect(choosePopMethod({ ...both, popAlgorithms: ['PS256'] }, 'ES256')).toBe('dpop_combined');
  });
  it('META-4: a server that cannot be served is a clear error', async () => {
    const one = needs({ popMethods: ['attestation_pop_jwt'], popAlgorithms: ['PS256'] });
    for (const attempt of [
      () => choosePopMethod(needs(), 'ES256'),
      () => choosePopMethod(one, 'ES256'),
      () => choosePopMethod(one, 'PS256', ['dpop_combined']),
      () => choosePopMethod(one, 'PS256', []),
    ]) {
      await expectRefusal(attempt, { code: 'server_unsupported', rule: 'META-4' });
    }
  });
});

describe('client metadata', () => {
  it('META-5: says the preferred method and three capabilities', async () => {
    expect(clientMetadata({ popMethods: ['dpop_combined', 'attestation_pop_jwt'], ...algorithms })).toEqual({
      token_endpoint_auth_method: 'attest_jwt_client_auth_dpop',
      client_attestation_signing_alg_values_supported: ['ES256'],
      client_attestation_pop_signing_alg_values_supported: ['ES256', 'EdDSA'],
      client_attestation_pop_methods_supported: ['dpop_combined', 'attestation_pop_jwt'],
    });
    expect(clientMetadata({ popMethods: ['attestation_pop_jwt'], ...algorithms }).token_endpoint_auth_method).toBe(
      'attest_jwt_client_auth',
    );
    await expectRefusal(() => clientMetadata({ popMethods: [], ...algorithms }), { code: 'invalid_argument' });
  });
});

describe('challenge answers', () => {
  it('CHA-1, CHA-8: are written and read, with and without a challenge', () => {
    expect(readChallengeBody(challengeBody('c'))).toEqual({ challenge: 'c' });
    expect(readChallengeBody(challengeBody(undefined))).toEqual({ challenge: undefined });
    expect(readChallengeBody({ attestation_challenge: 'c', other: 1 })).toEqual({ challenge: 'c' });
  });
  it('CHA-4: any text of bounded length is a challenge', () => {
    for (const value of ['a', 'with space "and" é', 'x'.repeat(2048)]) expect(isUsableChallenge(value)).toBe(true);
  });
  it.each([null, '', 5, {}, ['c'], 'x'.repeat(2049)])('CHA-1: %o is not one', async (value) => {
    await expectRefusal(() => readChallengeBody({ attestation_challenge: value as never }), {
      code: 'server_unsupported',
      rule: 'CHA-1',
    });
  });
});
