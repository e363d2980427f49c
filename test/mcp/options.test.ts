/** Options that mean nothing: said when they are given, in words, and never taken for a weaker choice. */
import { expect, test } from 'vitest';
import { toNodeListener } from '../../src/integrations/node.ts';
import {
  attestedTransport,
  type RequireAttestedAgentOptions,
  requireAttestedAgent,
  requireAttestedTransport,
} from '../../src/mcp/index.ts';
import { createVerifier, jwks } from '../../src/verifier/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { newSigner } from '../support/tokens.ts';

const trust = jwks({ keys: [newSigner('ES256', 'attester-1').publicJwk] });
const rs = (audience: string) => createVerifier({ role: 'rs', audience, trust });
const verifier = rs('https://mcp.example/mcp');
const verifyAccessToken = async () => ({ token: 't', clientId: 'c', scopes: [] });
const gate = (options: unknown) => () => requireAttestedAgent(options as RequireAttestedAgentOptions);

test.each<[string, () => unknown, string]>([
  ['no options', gate(undefined), "role 'rs'"],
  ['no verifier', gate({}), "role 'rs'"],
  [
    'a verifier of an authorization server',
    gate({ verifier: createVerifier({ role: 'as', audience: 'https://as.example', trust }), verifyAccessToken }),
    "role 'rs'",
  ],
  ['a name for an audience', gate({ verifier: rs('weather'), verifyAccessToken }), "this server's URL"],
  ['a URN for an audience', gate({ verifier: rs('urn:example:weather'), verifyAccessToken }), "this server's URL"],
  ['nobody to ask about tokens', gate({ verifier }), 'verifyAccessToken'],
  ['something else to ask about tokens', gate({ verifier, verifyAccessToken: {} }), 'verifyAccessToken'],
  ['a misspelt binding', gate({ verifier, verifyAccessToken, binding: 'instances' }), "'when-bound', 'instance'"],
  ['scopes as text', gate({ verifier, verifyAccessToken, requiredScopes: 'mcp' }), 'requiredScopes'],
  [
    'a document that is nowhere',
    gate({ verifier, verifyAccessToken, resourceMetadataUrl: '/x' }),
    'resourceMetadataUrl',
  ],
  [
    'a misspelt demand of a tool',
    gate({ verifier, verifyAccessToken, tools: { deploy: { keyStorage: 'hw' } } }),
    'what a tool demands: keyStorage',
  ],
  ['a listener without its URL', () => toNodeListener(() => new Response(), undefined as never), 'url must be'],
  ['a transport without a verifier', () => requireAttestedTransport({} as never, {} as never), 'concatenated: true'],
  ['a client that does not name the server', () => attestedTransport({} as never, {} as never, {} as never), 'server'],
  ['a name that is none', () => attestedTransport({} as never, {} as never, { server: 'weather' }), 'URL or a URN'],
])('%s', async (_what, make, said) => {
  const error = await expectRefusal(async () => make(), { code: 'invalid_argument' });
  expect(error.message).toContain(said);
});

test('what may be given', () => {
  for (const binding of [undefined, 'when-bound', 'instance', 'client'] as const) {
    const options = {
      verifier,
      verifyAccessToken: { verifyAccessToken },
      requiredScopes: [],
      ...(binding && { binding }),
    };
    expect(requireAttestedAgent(options)).toBeTypeOf('function');
  }
});
