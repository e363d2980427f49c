/** Whose documents the agent believes. */
import { describe, expect, test } from 'vitest';
import { expectRefusal } from '../support/errors.ts';
import { asked, json, listen, newAgent, shown, tokenRequest } from './support.ts';

describe('two resources on one origin', () => {
  const speaking = (resource: string) => ({
    resource,
    client_attestation_pop_methods_supported: ['attestation_pop_jwt'],
  });

  test.each<[string, string]>([
    ['its own', '/a/metadata.json'],
    ['its well-known one', '/.well-known/oauth-protected-resource/a'],
  ])('META-6: what lies below does not speak for what lies above it, in %s document', async (_name, path) => {
    const host = await listen((origin) => (request, response) => {
      if (request.path === path) return json(response, speaking(`${origin}/`));
      return json(response, {}, 401, { 'www-authenticate': `Bearer resource_metadata="${origin}${path}"` });
    });
    const { agent } = await newAgent();
    await agent.fetch(host.origin + path);
    await agent.fetch(`${host.origin}/a`, { headers: { authorization: 'Bearer t' } });
    expect(host.seen.filter(({ headers }) => headers['oauth-client-attestation-pop'] !== undefined)).toEqual([]);
  });

  test('META-6: nor for its neighbour', async () => {
    const host = await listen((origin) => (request, response) => {
      const [, tenant] = request.path.split('/.well-known/oauth-protected-resource/');
      if (tenant === undefined) return json(response, {});
      return json(response, tenant === 'b' ? speaking(`${origin}/b`) : { resource: `${origin}/b` });
    });
    const { agent } = await newAgent();
    for (const tenant of ['b', 'a']) await agent.fetch(`${host.origin}/.well-known/oauth-protected-resource/${tenant}`);
    await agent.fetch(`${host.origin}/b`, { headers: { authorization: 'Bearer t' } });
    expect(shown(asked(host, '/b')[0]!).pop?.aud).toBe(`${host.origin}/b`);
  });

  test.each<[string, string]>([
    ["the origin's well-known place", '/.well-known/oauth-protected-resource'],
    ['a place of its own choice', '/mcp/metadata'],
  ])('META-4: a resource may publish its document at %s', async (_name, path) => {
    const host = await listen((origin) => (request, response) => {
      if (request.path === path) return json(response, speaking(`${origin}/mcp`));
      if (request.headers['oauth-client-attestation-pop'] !== undefined) return json(response, {});
      return json(response, {}, 401, { 'www-authenticate': `Bearer resource_metadata="${origin}${path}"` });
    });
    const { agent } = await newAgent();
    const answer = await agent.fetch(`${host.origin}/mcp`, { headers: { authorization: 'Bearer t' } });
    expect(answer.status).toBe(200);
  });
});

test('META-6: an authorization server elsewhere has no endpoint on this machine: a request to a local service is not sent', async () => {
  const local = await listen(() => (_request, response) => json(response, {}));
  const issuer = 'https://hostile.example';
  const { agent } = await newAgent({
    fetch: async (input, init) => {
      if (new URL(input).origin !== issuer) return fetch(input, init);
      return Response.json({
        issuer,
        token_endpoint: `${local.origin}/containers/x/stop`,
        token_endpoint_auth_methods_supported: ['attest_jwt_client_auth'],
      });
    },
  });
  const url = `${local.origin}/containers/x/stop`;
  await expectRefusal(() => tokenRequest(agent, issuer, {}, { url }), { code: 'metadata_mismatch', rule: 'META-6' });
  expect(local.seen).toEqual([]);
});
