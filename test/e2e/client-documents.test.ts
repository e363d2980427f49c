/** An agent of our attester at a server that asks the client's document whom it endorses; revocation included. */
import { expect, test } from 'vitest';
import { cimd } from '../../src/verifier/index.ts';
import { startMcpAuthServer } from '../support/mcp-auth-server.ts';
import { CALLBACK, CLIENTS } from './support/authorization-server.ts';
import { startWorld } from './support/world.ts';

const CLIENT = CLIENTS.attestation_pop_jwt;
const PUBLISHED = 'https://attester.example/jwks';

test('VER-3, META-5: endorsed, the instance gets in; revoked, or no longer endorsed, it does not', async () => {
  const clock = { offset: 0 };
  const now = () => Date.now() + clock.offset;
  const world = await startWorld({ now });
  const { issuer } = world.attester;
  const document = { client_id: CLIENT, client_attesters: [{ issuer, jwks_uri: PUBLISHED }] };
  const as = await startMcpAuthServer({
    trust: cimd({
      documents: [CLIENT],
      attesters: [{ issuer, jwksUri: `${issuer}/jwks`, aliases: [PUBLISHED] }],
      fetch: async () => Response.json(document),
      maxAge: 600,
    }),
    policy: { require: { status: true } },
    now,
  });
  as.clients.set(CLIENT, {
    client_id: CLIENT,
    redirect_uris: [CALLBACK],
    token_endpoint_auth_method: 'attest_jwt_client_auth',
  });
  const metadata = await (await fetch(as.url('/.well-known/oauth-authorization-server'))).json();
  expect(metadata).toMatchObject({ client_attester_endorsement_supported: true });

  const [first, second] = [await world.instance('attestation_pop_jwt'), await world.instance('attestation_pop_jwt')];
  const ask = async ({ agent }: typeof first) => {
    const headers = new Headers();
    const body = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: 'unknown' });
    await agent.clientAuth({ issuer: as.issuer }, {}, body, headers);
    const response = await agent.fetch(as.url('/token'), { method: 'POST', headers, body });
    return ((await response.json()) as { error: string }).error;
  };
  // authenticated: now it is the refresh token that is wrong
  expect([await ask(first), await ask(second)]).toEqual(['invalid_grant', 'invalid_grant']);

  const { thumbprint } = first.agent.identities()[0]!;
  expect(await world.attester.revoke({ thumbprint })).toBe(true);
  clock.offset = 301_000; // past the status list's time to live
  expect(await ask(first)).toBe('invalid_client_attestation');
  expect(as.refusals.at(-1)).toMatchObject({ rule: 'Token Status List §8.3' });
  expect(await ask(second)).toBe('invalid_grant');

  document.client_attesters = [];
  clock.offset = 602_000;
  expect(await ask(second)).toBe('invalid_client_attestation');
  expect(as.refusals.at(-1)).toMatchObject({ rule: 'VER-3' });
});
