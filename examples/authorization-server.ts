// run: yes
// An authorization server of one's own: a token endpoint on node:http that authenticates clients by attestation.
import assert from 'node:assert/strict';
import { type Agent, createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose';
import { startWorld } from './support/world.ts';

const world = await startWorld('weather-agent');
const { attester, port } = world;
const resource = 'https://mcp.example/mcp';
const issuer = `http://127.0.0.1:${port}`;
const { publicKey, privateKey } = await generateKeyPair('ES256');
const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: 'as', alg: 'ES256', use: 'sig' }] };
const sign = (claims: JWTPayload) =>
  new SignJWT(claims)
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: 'as' })
    .setExpirationTime('5m')
    .sign(privateKey);

// #region token-endpoint
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { toNodeListener } from 'attested/integrations/node';
import { AttestedError, assertBoundTo, bindingOf, createVerifier, remoteJwks } from 'attested/verifier';

const trust = remoteJwks(`${attester}/jwks`, { clients: ['weather-agent'] });
const verifier = createVerifier({ role: 'as', audience: issuer, trust });
const refreshTokens = new Map<string, ReturnType<typeof bindingOf>>(); // in your database

async function token(request: Request): Promise<Response> {
  const form = new URLSearchParams(await request.text());
  const { headers, method, url } = request;
  const client = await verifier.verify({ headers, method, url, clientId: form.get('client_id') ?? undefined });
  const aud = form.get('resource') ?? resource;
  if (aud !== resource) throw new AttestedError('invalid_request', 'no tokens are issued for that resource');
  if (form.get('grant_type') === 'refresh_token') {
    const presented = form.get('refresh_token') ?? '';
    const binding = refreshTokens.get(presented);
    if (binding === undefined) throw new AttestedError('invalid_grant', 'the refresh token is not known');
    assertBoundTo(binding, client); // before it is used up: a thief's attempt spends nothing
    refreshTokens.delete(presented);
  } else if (form.get('grant_type') !== 'client_credentials') {
    throw new AttestedError('invalid_request', 'grant_type is client_credentials or refresh_token');
  }
  const refresh_token = randomUUID();
  refreshTokens.set(refresh_token, bindingOf(client));
  // in combined mode the proof is a DPoP proof with the attested key; else the token names the instance by a claim
  const bound = client.method === 'dpop_combined' ? { cnf: { jkt: client.thumbprint } } : {};
  const claims = { iss: issuer, client_id: client.clientId, client_instance_jkt: client.thumbprint, ...bound };
  const access_token = await sign({ ...claims, sub: client.clientId, aud });
  const token_type = 'cnf' in bound ? 'DPoP' : 'Bearer';
  const answer = { access_token, token_type, expires_in: 300, refresh_token };
  return Response.json(answer, { headers: { ...(await verifier.freshHeaders()), 'Cache-Control': 'no-store' } });
}

const metadata = {
  issuer,
  authorization_endpoint: `${issuer}/authorize`, // MCP SDKs want one, used or not
  token_endpoint: `${issuer}/token`,
  jwks_uri: `${issuer}/jwks`,
  response_types_supported: ['code'],
  grant_types_supported: ['client_credentials', 'refresh_token'],
  ...verifier.metadata({ challengeEndpoint: `${issuer}/challenge` }),
};

const routes: Record<string, (request: Request) => Response | Promise<Response>> = {
  '/.well-known/oauth-authorization-server': () => Response.json(metadata),
  '/jwks': () => Response.json(jwks),
  '/challenge': verifier.challengeHandler,
  '/token': (request) => token(request).catch(verifier.respond), // error.rule is for your log
};
const answer = (request: Request) =>
  routes[new URL(request.url).pathname]?.(request) ?? new Response(null, { status: 404 });
const http = createServer(toNodeListener(answer, { url: issuer })).listen(port);
// #endregion

async function ask(
  agent: Agent,
  params: Record<string, string>,
): Promise<{ status: number; [member: string]: unknown }> {
  const [headers, body] = [new Headers(), new URLSearchParams(params)];
  await agent.clientAuth({ issuer }, {}, body, headers);
  const response = await agent.fetch(`${issuer}/token`, { method: 'POST', headers, body });
  return { status: response.status, ...((await response.json()) as object) };
}

async function instance(): Promise<Agent> {
  const [keys, enrolmentToken] = [await openKeys('software'), await world.createEnrolmentToken()];
  return createAgent({ clientId: 'weather-agent', keys, attester, enrolmentToken });
}

const [agent, other] = [await instance(), await instance()];
const first = await ask(agent, { grant_type: 'client_credentials' });
assert.deepEqual([first.status, first.token_type], [200, 'DPoP']);

const renewal = { grant_type: 'refresh_token', refresh_token: String(first.refresh_token) };
assert.equal((await ask(agent, { grant_type: 'client_credentials', resource: 'https://other.example' })).status, 400);
assert.equal((await ask(agent, { grant_type: 'password' })).status, 400);

const theft = await ask(other, renewal);
assert.deepEqual([theft.status, theft.error], [400, 'invalid_grant']);
assert.equal((await ask(agent, renewal)).status, 200);
assert.equal((await ask(agent, renewal)).error, 'invalid_grant');

http.close();
http.closeAllConnections();
world.close();
