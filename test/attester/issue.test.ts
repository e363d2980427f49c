import type { AttesterOptions } from 'attested/attester';
import { memoryStore, selfAttester } from 'attested/attester';
import { createLocalJWKSet, decodeJwt, jwtVerify } from 'jose';
import { describe, expect, test } from 'vitest';
import { checkAttestationTimes, parseAttestation } from '../../src/core/attestation.ts';
import { type RevisionNumber, revisionOf } from '../../src/core/revisions.ts';
import { readStatusReference } from '../../src/core/status-list.ts';
import { readKeyStatement } from '../../src/core/storage.ts';
import {
  attest,
  CLIENT,
  challengeOf,
  enrol,
  ISSUER,
  newAgent,
  newSigner,
  post,
  requestBody,
  START,
  setUp,
  watchedSigner,
} from './helpers.ts';

const policyOf = (client: object, clientId = CLIENT) =>
  ({ policy: { clients: { [clientId]: client } } }) as Pick<AttesterOptions, 'policy'>;

describe('an attestation', () => {
  test('ATT-1, ATT-2, ATT-3, ATT-4, ATT-5: is what the draft asks, as an independent library reads it', async () => {
    const { attester, signer } = setUp();
    const agent = newAgent();
    const { status, body, headers } = await enrol(attester, agent);
    expect(status).toBe(200);
    expect(headers.get('cache-control')).toBe('no-store');
    const { payload, protectedHeader } = await jwtVerify(
      body.attestation!,
      createLocalJWKSet(attester.jwks() as never),
      {
        typ: 'oauth-client-attestation+jwt',
        algorithms: ['ES256'],
        issuer: ISSUER,
        subject: CLIENT,
        currentDate: new Date(START * 1000),
      },
    );
    expect(protectedHeader).toEqual({ alg: 'ES256', typ: 'oauth-client-attestation+jwt', kid: signer.thumbprint });
    expect(payload).toEqual({
      iss: ISSUER,
      sub: CLIENT,
      iat: START,
      exp: START + 3600,
      cnf: { jwk: agent.instanceSigner.publicJwk },
      key_storage: ['software'],
      key_evidence: 'self-asserted',
      status: { status_list: { idx: expect.any(Number), uri: `${ISSUER}/status/1` } },
    });
    expect(body).toEqual({
      attestation: expect.any(String),
      expires_at: START + 3600,
      instance_id: expect.any(String),
    });
  });

  test.each([4, 6, 7, 8, 10, 11, 12] as RevisionNumber[])(
    'ATT-8: is read by a verifier of revision -%i',
    async (revision) => {
      const { attester } = setUp();
      const { body } = await enrol(attester, newAgent(), { storage: 'keychain' });
      const parsed = parseAttestation(body.attestation!, revisionOf(revision));
      checkAttestationTimes(parsed, { now: START, clockTolerance: 0, maxAge: 1, maxLifetime: 3600 });
      expect(parsed.clientId).toBe(CLIENT);
      expect(readKeyStatement(parsed.payload)).toEqual({ storage: 'keychain', evidence: 'self-asserted' });
      expect(readStatusReference(parsed.payload)?.uri).toBe(`${ISSUER}/status/1`);
    },
  );

  test("has the lifetime and the further claims of its client's policy", async () => {
    const client = { lifetime: 120, claims: { software: { version: '1' } }, enrolment: { tokens: true } };
    const { attester } = setUp(policyOf(client));
    const { body } = await enrol(attester);
    expect(decodeJwt(body.attestation!)).toMatchObject({ exp: START + 120, software: { version: '1' } });
  });

  test('PRIV-1: two servers with two attestations of one instance share nothing that other instances do not share', async () => {
    const { attester } = setUp({
      policy: { clients: { [CLIENT]: { claims: { level: 2 }, enrolment: { tokens: true } } } },
    });
    const agent = newAgent();
    const seen = async (answer: { body: { attestation?: string } }) => {
      const { header, payload } = parseAttestation(answer.body.attestation!);
      return leaves({ header, payload });
    };
    const token = await attester.createEnrolmentToken({ clientId: CLIENT, instanceName: 'my laptop' });
    const first = await seen(await attest(attester, agent, { token }));
    const second = await seen(await attest(attester, { ...agent, instanceSigner: newSigner() }));
    const stranger = await seen(await enrol(attester));
    const common = first.filter((leaf) => second.includes(leaf));
    expect(common.filter((leaf) => !stranger.includes(leaf))).toEqual([]);
    // and what is common to all is the client, the attester, the kind of key and the times
    expect(common.map((leaf) => leaf.split('=')[0])).toEqual([
      'header.alg',
      'header.typ',
      'header.kid',
      'payload.sub',
      'payload.iat',
      'payload.exp',
      'payload.cnf.jwk.kty',
      'payload.cnf.jwk.crv',
      'payload.level',
      'payload.iss',
      'payload.key_storage.0',
      'payload.key_evidence',
      'payload.status.status_list.uri',
    ]);
    const [instance] = await attester.instances();
    for (const secret of [instance!.instanceId, 'my laptop', agent.enrolmentSigner.thumbprint]) {
      expect(first.join()).not.toContain(secret);
    }
  });

  test('PRIV-1: its place in the status list says nothing of the order of issue', async () => {
    const { attester } = setUp();
    const agent = newAgent();
    await enrol(attester, agent);
    const places: number[] = [];
    for (let i = 0; i < 40; i++) {
      const { body } = await attest(attester, agent);
      places.push(readStatusReference(decodeJwt(body.attestation!) as never)!.idx);
    }
    expect(new Set(places).size).toBe(40);
    const steps = places.slice(1).map((place, i) => Math.abs(place - places[i]!));
    // of 39 random distances in 2^17 places, about none is under 64, and about half go down
    expect(steps.filter((step) => step < 64).length).toBeLessThan(5);
    const down = places.slice(1).filter((place, i) => place < places[i]!).length;
    expect(down).toBeGreaterThan(5);
    expect(down).toBeLessThan(34);
  });

  test('PRIV-3: nothing in a request names a server', async () => {
    const { attester } = setUp();
    const body = await requestBody(attester, newAgent(), {}, START);
    expect(Object.keys(body)).toEqual(['client_id', 'challenge', 'evidence', 'enrolment_token']);
    const claims = decodeJwt(body.evidence.key_proof);
    expect(Object.keys(claims).sort()).toEqual(['aud', 'challenge', 'for', 'iat', 'jti', 'role', 'sub']);
    expect(claims.aud).toBe(ISSUER);
  });
});

/** Every member and item of a JSON value as `path=value`. */
function leaves(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null) return [`${path.slice(1)}=${String(value)}`];
  return Object.entries(value).flatMap(([name, member]) => leaves(member, `${path}.${name}`));
}

describe('enrolment', () => {
  test('a client with no enrolment policy enrols nobody, with or without a token', async () => {
    const { attester } = setUp(policyOf({}));
    await expect(attester.createEnrolmentToken({ clientId: CLIENT })).rejects.toMatchObject({
      code: 'invalid_argument',
    });
    for (const token of [undefined, 'A'.repeat(43)]) {
      expect(await attest(attester, newAgent(), { token })).toMatchObject({
        status: 403,
        body: { error: 'access_denied' },
      });
    }
  });

  test('a token enrols one instance; another agent gets nothing by it', async () => {
    const { attester } = setUp();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT, instanceName: 'laptop' });
    expect(token).toMatch(/^[A-Za-z0-9_-]{43}$/);
    const first = await attest(attester, newAgent(), { token });
    expect(first.status).toBe(200);
    expect(await attest(attester, newAgent(), { token })).toMatchObject({
      status: 403,
      body: { error: 'access_denied' },
    });
    expect(await attester.instances()).toMatchObject([{ instanceId: first.body.instance_id, name: 'laptop' }]);
  });

  test('an agent whose answer was lost asks again with the same token and is the same instance', async () => {
    const { attester } = setUp();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const agent = newAgent();
    const lost = await attest(attester, agent, { token });
    const again = await attest(attester, agent, { token });
    expect(again.status).toBe(200);
    expect(again.body.instance_id).toBe(lost.body.instance_id);
    expect(await attester.instances()).toHaveLength(1);
  });

  test('two agents race with one token: exactly one wins', async () => {
    const { attester } = setUp();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const racing = Array.from({ length: 8 }, () => attest(attester, newAgent(), { token }));
    const statuses = (await Promise.all(racing)).map(({ status }) => status);
    expect(statuses.toSorted()).toEqual([200, ...Array(7).fill(403)]);
  });

  test('a request with wrong proofs does not burn the token', async () => {
    const { attester } = setUp();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const [agent, other] = [newAgent(), newAgent()];
    const foreign = (await requestBody(attester, other, {}, START)).evidence;
    const mixed = async () => {
      const { evidence } = await requestBody(attester, agent, {}, START);
      return { ...evidence, key_proof: foreign.key_proof };
    };
    for (const evidence of [foreign, await mixed()]) {
      expect(await attest(attester, agent, { token, change: { evidence } })).toMatchObject({
        status: 400,
        body: { error: 'invalid_client_attestation' },
      });
    }
    expect((await attest(attester, agent, { token })).status).toBe(200);
  });

  test('a token is for its client, and for its time', async () => {
    const clients = { [CLIENT]: { enrolment: { tokens: true } }, other: { enrolment: { tokens: true } } };
    const { attester, clock } = setUp({ policy: { clients } });
    const token = await attester.createEnrolmentToken({ clientId: CLIENT, ttl: 60 });
    expect((await attest(attester, newAgent(), { token, clientId: 'other' })).status).toBe(403);
    clock.seconds += 60;
    expect((await attest(attester, newAgent(), { token }, clock.seconds)).status).toBe(403);
    for (const ttl of [0, -1, 1.5, Number.NaN, 31 * 24 * 3600]) {
      await expect(attester.createEnrolmentToken({ clientId: CLIENT, ttl })).rejects.toMatchObject({
        code: 'invalid_argument',
      });
    }
    await expect(attester.createEnrolmentToken({ clientId: 'unknown' })).rejects.toMatchObject({
      code: 'invalid_argument',
    });
  });

  test('the allow-list lets a key in without a token, and keeps it out once it is taken off', async () => {
    const agent = newAgent();
    let allow = [agent.enrolmentSigner.thumbprint];
    const { attester } = setUp({ policy: (clientId) => (clientId === CLIENT ? { enrolment: { allow } } : undefined) });
    expect((await attest(attester, newAgent())).status).toBe(403);
    expect((await attest(attester, agent)).status).toBe(200);
    allow = [];
    expect(await attest(attester, agent)).toMatchObject({ status: 403, body: { error: 'access_denied' } });
  });

  test('an enrolled instance gets attestations for as many keys as its policy allows', async () => {
    const { attester } = setUp(policyOf({ enrolment: { tokens: true }, maxKeysPerInstance: 2 }));
    const agent = newAgent();
    await enrol(attester, agent);
    expect((await attest(attester, { ...agent, instanceSigner: newSigner() })).status).toBe(200);
    expect((await attest(attester, { ...agent, instanceSigner: newSigner() })).status).toBe(403);
    expect((await attest(attester, agent)).status).toBe(200);
  });

  test('a key of one instance is not attested for another', async () => {
    const { attester } = setUp();
    const [agent, other] = [newAgent(), newAgent()];
    await enrol(attester, agent);
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const thief = { ...other, instanceSigner: agent.instanceSigner };
    expect(await attest(attester, thief, { token })).toMatchObject({ status: 403, body: { error: 'access_denied' } });
    expect((await attest(attester, other, { token })).status).toBe(200);
  });

  test('a client that is not in the policy is refused, whatever it is called', async () => {
    const { attester } = setUp();
    for (const clientId of ['other', '__proto__', 'constructor', `${CLIENT}/`]) {
      expect(await attest(attester, newAgent(), { clientId })).toMatchObject({
        status: 403,
        body: { error: 'access_denied' },
      });
    }
  });

  test('a kind of evidence that the policy does not accept is refused', async () => {
    const { attester } = setUp(policyOf({ evidence: [], enrolment: { tokens: true } }));
    expect(await enrol(attester)).toMatchObject({ status: 403, body: { error: 'access_denied' } });
    const { attester: usual } = setUp();
    expect(await attest(usual, newAgent(), { change: { evidence: { kind: 'constructor' } } })).toMatchObject({
      status: 403,
    });
  });
});

describe('challenges', () => {
  test('10,000 challenges differ', async () => {
    const { attester } = setUp();
    const seen = new Set<string>();
    for (let i = 0; i < 10_000; i++) seen.add(await challengeOf(attester));
    expect(seen.size).toBe(10_000);
    for (const challenge of seen) expect(challenge).toMatch(/^[A-Za-z0-9_-]{43}$/);
  });

  test('one that is unknown, used or late is answered with a fresh one', async () => {
    const { attester, clock } = setUp();
    const agent = newAgent();
    await enrol(attester, agent);
    const used = await challengeOf(attester);
    expect((await attest(attester, agent, { challenge: used })).status).toBe(200);
    const late = await challengeOf(attester);
    clock.seconds += 60;
    for (const challenge of ['made-up', used, late]) {
      const answer = await attest(attester, agent, { challenge }, clock.seconds);
      expect(answer).toMatchObject({ status: 400, body: { error: 'use_attestation_challenge', expires_in: 60 } });
      expect(answer.headers.get('oauth-client-attestation-challenge')).toBe(answer.body.challenge);
      expect((await attest(attester, agent, { challenge: answer.body.challenge! }, clock.seconds)).status).toBe(200);
    }
  });

  test('one is spent even when its request fails', async () => {
    const { attester } = setUp();
    const agent = newAgent();
    const challenge = await challengeOf(attester);
    expect((await attest(attester, agent, { challenge })).body.error).toBe('access_denied');
    expect((await attest(attester, agent, { challenge })).body.error).toBe('use_attestation_challenge');
  });

  test('of many equal requests at once, one is served', async () => {
    const { attester } = setUp();
    const agent = newAgent();
    await enrol(attester, agent);
    const body = await requestBody(attester, agent, {}, START);
    const answers = await Promise.all(Array.from({ length: 8 }, () => post(attester, '/attestation', body)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  });

  test('a flood of them is bounded', async () => {
    const { attester } = setUp({ challenges: { max: 3 } });
    for (let i = 0; i < 3; i++) await challengeOf(attester);
    expect(await post(attester, '/challenge', {})).toMatchObject({
      status: 503,
      body: { error: 'temporarily_unavailable' },
    });
  });
});

describe('policy', () => {
  test.each([
    ['sub', { claims: { sub: 'other' } }],
    ['cnf', { claims: { cnf: {} } }],
    ['status', { claims: { status: {} } }],
    ['key_storage', { claims: { key_storage: ['hardware'] } }],
    ['jti', { claims: { jti: 'same everywhere' } }],
    ['exp', { claims: { exp: 1 } }],
    ['a misspelt limit', { maxKeys: 1 }],
    ['no lifetime', { lifetime: 0 }],
    ['a lifetime of parts', { lifetime: 0.5 }],
    ['a lifetime without end', { lifetime: Number.POSITIVE_INFINITY }],
    ['no keys', { maxKeysPerInstance: 0 }],
    ['unknown evidence', { evidence: ['word of honour'] }],
  ])('with %s is refused when the attester is made', (_what, client) => {
    expect(() => setUp(policyOf(client))).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
  });

  test('that a function gives wrongly issues nothing and tells nobody why', async () => {
    const { attester, events } = setUp({ policy: () => ({ claims: { sub: 'other' }, enrolment: { allow: 'any' } }) });
    expect(await attest(attester, newAgent())).toMatchObject({
      status: 503,
      body: { error: 'temporarily_unavailable' },
    });
    expect(events).toMatchObject([{ type: 'fault', error: { code: 'invalid_argument' } }]);
    expect(await attester.instances()).toEqual([]);
  });
});

describe('order of the steps', () => {
  test('the attestation is recorded before it is signed: a crash while signing leaves a record, and a retry works', async () => {
    const signer = watchedSigner();
    signer.broken = true;
    const store = memoryStore();
    const { attester } = setUp({ signer, store });
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const agent = newAgent();
    const failed = await attest(attester, agent, { token });
    expect(failed).toMatchObject({ status: 503, body: { error: 'temporarily_unavailable' } });
    expect(JSON.stringify(failed.body)).not.toContain('HSM');
    const [instance] = await attester.instances();
    signer.broken = false;
    const retried = await attest(attester, agent, { token });
    expect(retried).toMatchObject({ status: 200, body: { instance_id: instance!.instanceId } });
    await attester.revoke({ instanceId: instance!.instanceId });
    expect(await store.revokedIndexes(START)).toHaveLength(2); // the one never sent, and the one sent
  });

  test.each(['putChallenge', 'takeChallenge', 'issue'] as const)(
    'a store that fails in %s: 503, and nothing is signed',
    async (method) => {
      const store = memoryStore();
      const signer = watchedSigner();
      const { attester, events } = setUp({ store, signer });
      const token = await attester.createEnrolmentToken({ clientId: CLIENT });
      const body = await requestBody(attester, newAgent(), { token }, START);
      Object.assign(store, { [method]: () => Promise.reject(new TypeError('secret path /var/lib')) });
      const answer = await post(attester, method === 'putChallenge' ? '/challenge' : '/attestation', body);
      expect(answer).toMatchObject({ status: 503, body: { error: 'temporarily_unavailable' } });
      expect(JSON.stringify(answer.body)).not.toContain('/var/lib');
      expect(answer.headers.get('retry-after')).toBe('1');
      expect(signer.signatures).toBe(0);
      expect(events).toMatchObject([{ type: 'fault' }]);
    },
  );

  test('a log that throws changes nothing', async () => {
    const { attester } = setUp({
      log: () => {
        throw new Error('disk full');
      },
    });
    expect((await enrol(attester)).status).toBe(200);
    expect((await attest(attester, newAgent())).status).toBe(403);
  });
});

describe('events', () => {
  test('tell what happened, and no secret', async () => {
    const { attester, events } = setUp();
    const agent = newAgent();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const body = await requestBody(attester, agent, { token }, START);
    const { instance_id: instanceId, attestation } = (await post(attester, '/attestation', body)).body;
    await attest(attester, newAgent());
    await attester.revoke({ instanceId: instanceId! });
    expect(events).toMatchObject([
      { type: 'enrolled', instance: { instanceId } },
      {
        type: 'issued',
        instanceId,
        clientId: CLIENT,
        instanceThumbprint: agent.instanceSigner.thumbprint,
        expiresAt: START + 3600,
      },
      { type: 'refused', code: 'access_denied', rule: 'attester policy', clientId: CLIENT },
      { type: 'revoked', instance: { instanceId, revokedAt: START } },
    ]);
    const text = JSON.stringify(events);
    for (const secret of [token, body.challenge, body.evidence.key_proof, body.evidence.enrolment_proof, attestation]) {
      expect(text).not.toContain(secret);
    }
  });
});

describe('self attester', () => {
  test('attests its own client without enrolment and without a status list, and no other client', async () => {
    const attester = selfAttester({
      clientId: CLIENT,
      signer: newSigner('self-1'),
      lifetime: 300,
      now: () => START * 1000,
    });
    const { status, body } = await attest(attester, newAgent());
    expect(status).toBe(200);
    const { header, payload } = parseAttestation(body.attestation!);
    expect(header.kid).toBe('self-1');
    expect(payload).toMatchObject({ sub: CLIENT, exp: START + 300, key_storage: ['software'] });
    expect(payload.status).toBeUndefined();
    expect((await attester.handler(new Request(`${attester.issuer}/status/1`))).status).toBe(404);
    expect((await attest(attester, newAgent(), { clientId: 'other' })).status).toBe(403);
  });
});
