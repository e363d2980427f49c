/** What people get wrong when they begin: the error must be ours, come at once, and say what to do. */
import { beforeAll, describe, expect, test } from 'vitest';
import { createAgent } from '../../src/agent/index.ts';
import { createAttester } from '../../src/attester/index.ts';
import { generateSigner, openKeys } from '../../src/keys/index.ts';
import { requireAttestedAgent, resourceEndpoints } from '../../src/mcp/index.ts';
import { createVerifier, jwks, remoteJwks } from '../../src/verifier/index.ts';
import { refusalOf } from '../support/errors.ts';

const signer = generateSigner();
const issuer = 'https://attester.example';
const clientId = 'agent';
const trust = jwks({ keys: [signer.publicJwk], clients: [clientId] });
const keys = await openKeys('software');
const verifierOf = (options: object) =>
  createVerifier({ role: 'rs', audience: 'https://a.example', trust, ...options });
const attesterOf = (clients: object) => createAttester({ issuer, signer, policy: { clients: { ...clients } } });
const agentOf = (attester: unknown) => createAgent({ clientId, keys, attester: attester as never });
const verifyAccessToken = () => Promise.reject(new Error('not asked'));
const listed = attesterOf({ [clientId]: {} });

describe('options that make no sense', () => {
  const mistakes: [string, () => unknown, RegExp][] = [
    ['clients as one text', () => remoteJwks(`${issuer}/jwks`, { clients: clientId as never }), /list of client_ids/],
    ['keys without their set', () => jwks([signer.publicJwk] as never), /\{ keys: \[…\], clients \}/],
    ['a URL as trust', () => verifierOf({ trust: `${issuer}/jwks` }), /remoteJwks\(url, \{ clients \}\)/],
    ['a misspelt option of the policy', () => verifierOf({ policy: { maxage: 1 } }), /^policy\.maxage means nothing/],
    [
      'a misspelt demand',
      () => verifierOf({ policy: { require: { keystorage: 'hardware' } } }),
      /^policy\.require\.keystorage means nothing/,
    ],
    [
      'a demand under a dotted name',
      () => verifierOf({ policy: { 'require.keyStorage': 'hardware' } }),
      /^policy\.require\.keyStorage means nothing/,
    ],
    ['an attester without a policy', () => createAttester({ issuer, signer } as never), /\{ clients: \{ … \} \}/],
    [
      'a JWK as signer',
      () => createAttester({ issuer, signer: signer.publicJwk as never, policy: { clients: {} } }),
      /importSigner/,
    ],
    ['a token for nobody', () => attesterOf({}).createEnrolmentToken({ clientId }), /no entry for this client/],
    ['a token that is not allowed', () => listed.createEnrolmentToken({ clientId }), /enrolment: \{ tokens: true \}/],
    [
      'a gate with the verifier of an AS',
      () => requireAttestedAgent({ verifier: verifierOf({ role: 'as' }), verifyAccessToken }),
      /role 'rs'/,
    ],
    [
      'an MCP server without an authorization server',
      () => resourceEndpoints({ verifier: verifierOf({}), authorizationServers: [] }),
      /authorizationServers must list/,
    ],
    ['an agent without keys', () => createAgent({ clientId, attester: issuer } as never), /await openKeys/],
    [
      'keys that were not awaited',
      () => createAgent({ clientId, attester: issuer, keys: openKeys('software') as never }),
      /await openKeys/,
    ],
    ['an agent without an attester', () => createAgent({ clientId, keys } as never), /attester must be a URL/],
    [
      'an attester as a URL object',
      () => agentOf(new URL('https://attester.example')),
      /attester must be a URL as text/,
    ],
    [
      'news without a listener',
      async () => (await agentOf('https://attester.example')).on('warning', undefined as never),
      /listener is a function/,
    ],
    [
      'a directory in place of options',
      () => openKeys('software', '/nowhere' as never),
      /options of openKeys are an object/,
    ],
  ];

  test.each(mistakes)('%s', async (_what, attempt, message) => {
    const error = await refusalOf(attempt);
    expect(error.code).toBe('invalid_argument');
    expect(error.message).toMatch(message);
  });
});

describe('the attester says no', () => {
  const MINUTES = 60_000;
  const attester = attesterOf({ [clientId]: { enrolment: { tokens: true } } });
  let used: string;
  const ask = async (options: object) => {
    const agent = await createAgent({ clientId, keys: await openKeys('software'), attester, ...options });
    await agent.rotate('https://server.example');
  };
  beforeAll(async () => {
    used = await attester.createEnrolmentToken({ clientId });
    await ask({ enrolmentToken: used });
  });

  test.each<[string, () => object, RegExp]>([
    ['no enrolment token', () => ({}), /enrolmentToken missing, used or expired/],
    ['one token for two instances', () => ({ enrolmentToken: used }), /enrolmentToken missing, used or expired/],
    ['another clientId', () => ({ clientId: 'agnet' }), /clientId not in the policy/],
    ['a slow clock', () => ({ now: () => Date.now() - 10 * MINUTES }), /is the clock of this machine right, and/],
    ['a fast clock', () => ({ now: () => Date.now() + 10 * MINUTES }), /is the clock of this machine right, and/],
  ])('%s', async (_what, options, message) => {
    const error = await refusalOf(() => ask(options()));
    expect(error.code).toBe('attester_refused');
    expect(error.message).toMatch(message);
  });
});
