/** Claims, client_ids and status entries that link servers whatever the key: what is taken for one, and when it is told. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { linkingFacts, looksUniqueToInstance } from '../../src/agent/linking.ts';
import { createAttestation } from '../../src/core/attestation.ts';
import { openKeys } from '../../src/keys/index.ts';
import { expectRefusal } from '../support/errors.ts';
import { decode, newSigner } from '../support/tokens.ts';
import {
  ATTESTER,
  asked,
  attesterSigner,
  json,
  newAgent,
  newAttester,
  startFakeAs,
  type TestAttester,
  tokenRequest,
} from './support.ts';

const A = 'https://a.example/mcp';
const B = 'https://b.example/mcp';
const C = 'https://c.example/mcp';

const bearer = () => startFakeAs((_request, response) => json(response, { access_token: 'a', token_type: 'Bearer' }));

/** Our attester, with further claims in what it signs: those of an attester of somebody else's make. */
function attesterThatAdds(claims: (count: number) => object): TestAttester {
  const inner = newAttester();
  const outer = newAttester();
  let count = 0;
  outer.outage = async (request) => {
    const answer = await inner.handler(request);
    const body = (await answer.json()) as { attestation?: string };
    if (body.attestation === undefined) return new Response(JSON.stringify(body), answer);
    const { payload } = decode(body.attestation);
    const attestation = await createAttestation({ ...payload, ...claims(count++) } as never, attesterSigner);
    return new Response(JSON.stringify({ ...body, attestation }), answer);
  };
  return outer;
}

describe('what is taken for a link', () => {
  const signer = newSigner();
  const factsOf = async (claims: object, clientId = 'weather-agent') => {
    const cnf = { jwk: signer.publicJwk };
    const all = { sub: clientId, iat: 1, exp: 2, iss: ATTESTER, cnf, ...claims };
    return linkingFacts(clientId, await createAttestation(all as never, signer));
  };

  test.each<[string, object, string]>([
    ['a serial number', { serial_number: 'X1' }, 'serial_number'],
    ['one of another spelling', { SerialNumber: 17 }, 'SerialNumber'],
    ['an EAT ueid', { ueid: 'AQ' }, 'ueid'],
    ['a device id in a member', { device: { 'device-id': 'x' } }, 'device.device-id'],
    ['a hardware address in a list', { net: [{ mac_address: 'x' }] }, 'net.mac_address'],
    ['an e-mail address', { email: 'a@b.example' }, 'email'],
    ['a UUID under a harmless name', { ref: '4b8c2f0e-6a1d-4f0e-9a53-0d7c1a2b3c4d' }, 'ref'],
    ['a long hexadecimal number', { ref: '9f86d081884c7d659a2feaa0c55ad015' }, 'ref'],
    ['a random word', { ref: 'pX7_kQ2vLr9TzW4mYb' }, 'ref'],
    ["the attestation's own number", { jti: '1' }, 'jti'],
  ])('%s', async (_what, claims, name) => {
    expect(await factsOf(claims)).toMatchObject([{ kind: 'claim', name, unique: name !== 'jti' }]);
  });

  test.each<[string, object]>([
    ['what every attestation has', {}],
    ['key statements', { key_storage: ['software'], key_evidence: 'self-asserted' }],
    ['a product and a version', { product: 'Weather Agent', version: '2026.11.3-beta.4', hwmodel: 'AAEAAQAAAAA' }],
    ['words with separators and a year', { build: 'weather-agent-release-2026' }],
    ['a URL', { profile: 'https://attester.example/profiles/agents/v1' }],
    ['numbers and switches', { count: 1234567890123, debug: true, none: null, list: [1, 2] }],
  ])('not: %s', async (_what, claims) => {
    expect(await factsOf(claims)).toEqual([]);
  });

  test('a status entry is one, by list and index', async () => {
    const status = (idx: number) => ({ status: { status_list: { uri: 'https://attester.example/s', idx } } });
    const [one] = await factsOf(status(1));
    const [same] = await factsOf(status(1));
    const [next] = await factsOf(status(2));
    expect(one).toMatchObject({ kind: 'status', name: 'https://attester.example/s', unique: false });
    expect(same!.digest).toBe(one!.digest);
    expect(next!.digest).not.toBe(one!.digest);
  });

  test.each([
    ['4b8c2f0e-6a1d-4f0e-9a53-0d7c1a2b3c4d', true],
    ['https://agent.example/clients/4b8c2f0e-6a1d-4f0e-9a53-0d7c1a2b3c4d', true],
    ['client-4b8c2f0e-6a1d-4f0e-9a53-0d7c1a2b3c4d', true],
    ['s6BhdRkqt3Xp9LmZ', true],
    ['mcp_Zk3Vq8Yt1RwPx0Na', true],
    ['weather-agent', false],
    ['https://agent.example/oauth/client-metadata.json', false],
    ['com.example.weather', false],
    ['WeatherAgentProduction', false],
  ])('client_id %s: %s', (clientId, expected) => {
    expect(looksUniqueToInstance(clientId)).toBe(expected);
  });

  test('names and values of any kind are read without fault, and named without what a terminal obeys', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 6 }),
        (claims) => {
          const payload = Buffer.from(JSON.stringify({ ...claims, ueid: 'x' })).toString('base64url');
          for (const { name } of linkingFacts('c', `e30.${payload}.c2ln`))
            expect(name).toMatch(/^[\x20-\x7e]{0,79}…?$/);
        },
      ),
    );
  });
});

describe('when it is told', () => {
  test('PRIV-2: a claim that names the device: before the first server sees it, and before each further one, with both', async () => {
    const as = await bearer();
    const { agent, warnings } = await newAgent({ attester: attesterThatAdds(() => ({ serial: 'SN-1' })) });
    const sentAt: number[] = [];
    agent.on('warning', ({ code }) => code !== 'fetch_unused' && sentAt.push(asked(as, '/token').length));
    for (const resource of [A, A, B, C]) await tokenRequest(agent, as.issuer, { resource });
    const links = [{ kind: 'claim', name: 'serial' }];
    expect(warnings).toMatchObject([
      { code: 'identifying_claim', servers: [A], links, remedy: expect.stringContaining('attester') },
      { code: 'tracking', servers: [A, B], links },
      { code: 'tracking', servers: [A, C], links },
    ]);
    expect(sentAt).toEqual([0, 2, 3]);
    expect(warnings[1]?.message).toContain('claim serial');
    expect(JSON.stringify(warnings)).not.toContain('SN-1');
    expect(agent.correlations().links[0]).toMatchObject({ by: 'claim', name: 'serial', servers: [A, B, C] });
  });

  test('PRIV-2: a value that differs from attestation to attestation links nothing, and is told once', async () => {
    const as = await bearer();
    const { agent, warnings } = await newAgent({
      attester: attesterThatAdds((n) => ({ ueid: `n${n}`, jti: `j${n}` })),
    });
    for (const resource of [A, B, C]) await tokenRequest(agent, as.issuer, { resource });
    expect(warnings.map(({ code }) => code)).toEqual(['identifying_claim']);
    expect(agent.correlations().links.filter(({ by }) => by !== 'token')).toEqual([]);
  });

  test('PRIV-2: one status entry in attestations of two identities', async () => {
    const as = await bearer();
    const status = { status_list: { uri: `${ATTESTER}/status/1`, idx: 7 } };
    const { agent, warnings } = await newAgent({ attester: attesterThatAdds(() => ({ status })) });
    for (const resource of [A, B]) await tokenRequest(agent, as.issuer, { resource });
    expect(warnings).toMatchObject([{ code: 'status_reused', servers: [A, B], links: [{ kind: 'status' }] }]);
  });

  test('PRIV-1: our own attester gives no two identities anything in common', async () => {
    const as = await bearer();
    const { agent, warnings } = await newAgent();
    for (const resource of [A, B, C]) await tokenRequest(agent, as.issuer, { resource });
    expect(warnings).toEqual([]);
    expect(agent.correlations().links.map(({ by }) => by)).toEqual(['token', 'token', 'token']);
  });

  test('PRIV-2: a client_id of this instance alone', async () => {
    const clientId = 'https://agent.example/4b8c2f0e-6a1d-4f0e-9a53-0d7c1a2b3c4d';
    const as = await bearer();
    const attester = newAttester({
      policy: { clients: { [clientId]: { enrolment: { allow: 'any', tokens: true } } } },
    });
    const { agent, warnings } = await newAgent({ clientId, attester });
    const links = [{ kind: 'client_id', name: clientId }];
    await tokenRequest(agent, as.issuer, { resource: A });
    expect(warnings).toMatchObject([{ code: 'identifying_client_id', servers: [A], links }]);
    await tokenRequest(agent, as.issuer, { resource: B });
    expect(warnings.slice(1)).toMatchObject([{ code: 'tracking', servers: [A, B], links }]);
  });

  test('PRIV-2: an authorization server and the resource of its token are linked anyway: no further word', async () => {
    const as = await startFakeAs((_request, response) => json(response, { access_token: 'tok', token_type: 'DPoP' }));
    const { agent, warnings } = await newAgent({ attester: attesterThatAdds(() => ({ serial: 'SN-1' })) });
    await tokenRequest(agent, as.issuer);
    await tokenRequest(agent, as.issuer, { resource: A });
    expect(warnings.map(({ code }) => code)).toEqual(['identifying_claim']);
  });

  test('PRIV-2: told once also after a restart; mode refuse keeps what would link from being sent', async () => {
    const stateDirectory = await mkdtemp(join(tmpdir(), 'attested-agent-'));
    onTestFinished(() => rm(stateDirectory, { recursive: true, force: true }));
    const as = await bearer();
    const options = {
      stateDirectory,
      keys: await openKeys('software'),
      attester: attesterThatAdds(() => ({ serial: 1 })),
    };
    const first = await newAgent(options);
    await tokenRequest(first.agent, as.issuer, { resource: A });
    await first.agent.close();
    const second = await newAgent(options);
    await tokenRequest(second.agent, as.issuer, { resource: A });
    expect(second.warnings).toEqual([]);
    await second.agent.close();

    const third = await newAgent({ ...options, tracking: 'refuse' });
    const before = asked(as, '/token').length;
    const { message } = await expectRefusal(() => tokenRequest(third.agent, as.issuer, { resource: B }), {
      code: 'tracking_refused',
      rule: 'PRIV-2',
    });
    for (const part of [A, B, 'claim serial']) expect(message).toContain(part);
    expect(asked(as, '/token')).toHaveLength(before);
  });
});
