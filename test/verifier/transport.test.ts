import { describe, expect, it } from 'vitest';
import { joinAttestation } from '../../src/core/concatenated.ts';
import { expectRefusal } from '../support/errors.ts';
import { expectRowRefused, type Row } from '../support/rows.ts';
import { newSigner } from '../support/tokens.ts';
import { CLIENT_ID, createWorld, requestOf } from '../support/world.ts';

describe('no request at all', () => {
  it.each([
    [undefined, 'invalid_client_attestation'],
    [null, 'invalid_client_attestation'],
    [{}, 'invalid_argument'],
  ] as const)('VER-1: %s is refused, by a promise', async (request, code) => {
    const { verifier } = createWorld();
    const refused = verifier.verify(request as never);
    await expectRefusal(() => refused, { code });
  });
});

describe('fields', () => {
  const rows: Row[] = [
    { name: 'no attestation', rule: 'VER-1', sent: () => ({ attestation: null }) },
    { name: 'neither attestation nor PoP', rule: 'VER-1', sent: () => ({ attestation: null, pop: null }) },
    {
      name: 'the attestation twice',
      rule: 'VER-1',
      sent: ({ attestation }) => ({ attestation: [`${attestation}`, `${attestation}`] }),
    },
    {
      name: 'two different attestations',
      rule: 'VER-1',
      sent: async ({ attestation }, w) => ({
        attestation: [`${attestation}`, await w.attestation({ payload: { x: 1 } })],
      }),
    },
    {
      name: 'two comma-joined attestations',
      rule: 'VER-1',
      sent: ({ attestation }) => ({ attestation: `${attestation}, ${attestation}` }),
    },
    {
      name: 'an attestation and a trailing comma',
      rule: 'VER-1',
      sent: ({ attestation }) => ({ attestation: `${attestation},` }),
    },
    { name: 'an empty attestation', rule: 'VER-1', sent: () => ({ attestation: '' }) },
    { name: 'an attestation that is no token68', rule: 'ATT-8', sent: () => ({ attestation: '"quoted" <text>' }) },
    {
      name: 'an attestation in the wrong case',
      rule: 'ATT-8',
      sent: ({ attestation }) => ({ attestation: `${attestation}`.toLowerCase() }),
    },
  ];
  it.each(rows)('VER-1, ATT-9: $name is refused', (row) => expectRowRefused(row));

  const popRows: Row[] = [
    { name: 'no PoP', rule: 'POP-8', sent: () => ({ pop: null }) },
    { name: 'the PoP twice', rule: 'POP-8', sent: ({ pop }) => ({ pop: [`${pop}`, `${pop}`] }) },
    { name: 'two comma-joined PoPs', rule: 'POP-8', sent: ({ pop }) => ({ pop: `${pop},${pop}` }) },
    { name: 'an empty PoP', rule: 'POP-8', sent: () => ({ pop: '' }) },
    { name: 'a PoP that is no token68', rule: 'POP-1', sent: () => ({ pop: '{"aud":1}' }) },
    { name: 'a PoP in the wrong case', rule: 'POP-1', sent: ({ pop }) => ({ pop: `${pop}`.toUpperCase() }) },
  ];
  it.each(popRows)('POP-8: $name is refused', (row) => expectRowRefused(row));

  it.each(['oauth-client-attestation', 'OAUTH-CLIENT-ATTESTATION', 'OAuth-Client-Attestation'])(
    'ATT-9, POP-8: the field name %s is as good as any',
    async (name) => {
      const world = createWorld();
      const { attestation, pop } = await world.sent();
      const client = await world.verifier.verify({
        headers: { [name]: String(attestation), [`${name}-pop`]: String(pop) },
      });
      expect(client.clientId).toBe(CLIENT_ID);
    },
  );

  const shapes = {
    'web Headers': (pairs: [string, string][]) => new Headers(pairs),
    pairs: (pairs: [string, string][]) => pairs,
    'a flat list': (pairs: [string, string][]) => pairs.flat(),
    'a record': (pairs: [string, string][]) => Object.fromEntries(pairs),
    'a record of lists': (pairs: [string, string][]) =>
      Object.fromEntries(pairs.map(([name, value]) => [name, [value]])),
    'a Map': (pairs: [string, string][]) => new Map(pairs),
  };
  it.each(Object.entries(shapes))('ATT-9, POP-8: honest fields as %s are read', async (_, shape) => {
    const world = createWorld();
    const { headers } = requestOf(await world.sent());
    await expect(world.verifier.verify({ headers: shape(headers) })).resolves.toMatchObject({ clientId: CLIENT_ID });
  });

  const doubled = {
    'web Headers': (pairs: [string, string][]) => new Headers(pairs),
    pairs: (pairs: [string, string][]) => pairs,
    'a flat list': (pairs: [string, string][]) => pairs.flat(),
    'a record of lists': (pairs: [string, string][]) => ({
      'oauth-client-attestation': pairs
        .filter(([name]) => name === 'OAuth-Client-Attestation')
        .map(([, value]) => value),
    }),
    'a record in two cases': (pairs: [string, string][]) => ({
      'oauth-client-attestation': String(pairs[1]?.[1]),
      'OAuth-Client-Attestation': String(pairs[1]?.[1]),
    }),
  };
  it.each(Object.entries(doubled))('VER-1: a repeated field is seen in %s', async (_, shape) => {
    const world = createWorld();
    const attestation = await world.attestation();
    const { headers } = requestOf(await world.sent({ attestation: [attestation, attestation] }));
    await expectRefusal(() => world.verifier.verify({ headers: shape(headers) }), {
      code: 'invalid_client_attestation',
      rule: 'VER-1',
    });
  });
});

describe('size', () => {
  const rows: Row[] = [
    { name: 'attestation', rule: 'IMPL-3', attestation: () => ({ payload: { fill: 'x'.repeat(8000) } }) },
    { name: 'PoP', rule: 'IMPL-3', pop: () => ({ payload: { fill: 'x'.repeat(8000) } }) },
    {
      name: 'attestation over a limit of the deployment',
      rule: 'IMPL-3',
      world: () => ({ policy: { maxTokenBytes: 1200 } }),
      attestation: () => ({ payload: { fill: 'x'.repeat(900) } }),
    },
    { name: 'text of 10 MB that is no token', rule: 'IMPL-3', sent: () => ({ attestation: 'a'.repeat(10_000_000) }) },
  ];
  it.each(rows)('IMPL-3: a $name is refused before it is decoded', (row) => expectRowRefused(row));
});

describe('who the request says it is', () => {
  const rows: Row[] = [
    { name: 'another client', rule: 'VER-6', sent: () => ({ clientId: 'https://other.example' }) },
    { name: 'an empty one', rule: 'VER-6', sent: () => ({ clientId: '' }) },
    { name: 'the same in another case', rule: 'VER-6', sent: () => ({ clientId: CLIENT_ID.toUpperCase() }) },
    { name: 'an extension', rule: 'VER-6', sent: () => ({ clientId: `${CLIENT_ID}/` }) },
  ];
  it.each(rows)('VER-6: client_id of $name is refused', (row) => expectRowRefused(row));
  it('VER-6: a request without client_id is allowed', async () => {
    const world = createWorld();
    await expect(world.verify(await world.sent({ clientId: undefined }))).resolves.toMatchObject({
      clientId: CLIENT_ID,
    });
  });

  const second: Row[] = [
    {
      name: 'Basic of the same client',
      rule: 'RFC 6749 §2.3',
      sent: () => ({ authorization: `Basic ${btoa(`${CLIENT_ID}:secret`)}` }),
    },
    {
      name: 'Basic of another client',
      rule: 'RFC 6749 §2.3',
      sent: () => ({ authorization: `Basic ${btoa('other:secret')}` }),
    },
    { name: 'a bearer token', rule: 'RFC 6749 §2.3', sent: () => ({ authorization: 'Bearer some-access-token' }) },
  ];
  it.each(second)('VER-6: at an AS, a second authentication by $name is refused', (row) =>
    expectRowRefused({ ...row, code: 'invalid_request' }),
  );
  it('VER-6: a policy may let the attestation stand beside another authentication', async () => {
    const world = createWorld({ policy: { alongside: true } });
    await expect(world.verify(await world.sent({ authorization: 'Basic eDp5' }))).resolves.toMatchObject({
      clientId: CLIENT_ID,
    });
  });
  it('VER-6: at an RS the access token stands beside the attestation', async () => {
    const world = createWorld({ role: 'rs' });
    await expect(world.verify(await world.sent({ authorization: 'Bearer token' }))).resolves.toMatchObject({
      clientId: CLIENT_ID,
    });
  });
});

describe('concatenated form', () => {
  it('CAT-1: is refused by default', async () => {
    const world = createWorld();
    const text = joinAttestation(await world.attestation(), await world.pop());
    await expectRefusal(() => world.verifier.verifyConcatenated(text), {
      code: 'invalid_client_attestation',
      rule: 'CAT-1',
    });
  });

  it('CAT-2, CAT-3: is verified like the fields where the policy or the revision allows it', async () => {
    for (const options of [{ policy: { concatenated: true } }, { revision: 7 as const }]) {
      const world = createWorld(options);
      const iss = options.revision ? { iss: CLIENT_ID } : {};
      const attestation = await world.attestation({ payload: iss });
      const text = joinAttestation(attestation, await world.pop({ payload: iss }));
      await expect(world.verifier.verifyConcatenated(text, { clientId: CLIENT_ID })).resolves.toMatchObject({
        thumbprint: world.instance.thumbprint,
      });
      const forged = joinAttestation(attestation, await world.pop({ payload: iss, signer: newSigner() }));
      await expectRefusal(() => world.verifier.verifyConcatenated(forged), {
        code: 'invalid_client_attestation',
        rule: 'POP-6',
      });
      const again = joinAttestation(attestation, await world.pop({ payload: iss }));
      await expectRefusal(() => world.verifier.verifyConcatenated(again, { clientId: 'other' }), {
        code: 'invalid_client_attestation',
        rule: 'VER-6',
      });
    }
  });

  it('CAT-2, VER-8: a proof used in the one form is a replay in the other', async () => {
    const { sealedChallenges } = await import('../../src/verifier/index.ts');
    const world = createWorld({ policy: { concatenated: true }, challenges: sealedChallenges() });
    const sent = await world.sent();
    await world.verify(sent);
    const text = joinAttestation(String(sent.attestation), String(sent.pop));
    await expectRefusal(() => world.verifier.verifyConcatenated(text), {
      code: 'invalid_client_attestation',
      rule: 'VER-8',
    });
  });

  it.each([
    ['nothing', () => ''],
    ['one token', (a: string) => a],
    ['a trailing tilde', (a: string, p: string) => `${a}~${p}~`],
    ['two tildes', (a: string, p: string) => `${a}~~${p}`],
    ['three tokens', (a: string, p: string) => `${a}~${p}~${p}`],
    ['no attestation', (_: string, p: string) => `~${p}`],
    ['no PoP', (a: string) => `${a}~`],
    ['white space', (a: string, p: string) => `${a} ~ ${p}`],
    ['something that is no JWT', (a: string) => `${a}~text`],
  ])('CAT-1: %s is refused', async (_, spoil) => {
    const world = createWorld({ policy: { concatenated: true } });
    const text = spoil(await world.attestation(), await world.pop());
    await expectRefusal(() => world.verifier.verifyConcatenated(text), {
      code: 'invalid_client_attestation',
      rule: 'CAT-1',
    });
  });

  it('IMPL-3: a text over the limit of both tokens is refused', async () => {
    const world = createWorld({ policy: { concatenated: true } });
    await expectRefusal(() => world.verifier.verifyConcatenated('~'.repeat(20_000)), {
      code: 'invalid_client_attestation',
      rule: 'IMPL-3',
    });
  });
});
