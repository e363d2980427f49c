/** What an agent does for an attester, whatever that asks. */
import { randomBytes } from 'node:crypto';
import { createAgent } from 'attested/agent';
import { openKeys } from 'attested/keys';
import { describe, expect, test } from 'vitest';
import type { KeyProvider } from '../../src/keys/provider.ts';
import { makeCredential } from '../../src/tpm2/index.ts';
import { newMaker, type SoftwareTpm, softwareTpm } from '../evidence/software-tpm.ts';
import { expectRefusal } from '../support/errors.ts';
import { newAgent, newAttester } from './support.ts';

const SERVER = 'https://mcp.example/mcp';
const maker = newMaker();

/** A provider in memory with a TPM beside it that counts what it is asked for; the keys are not in the TPM. */
async function keysWithTpm(): Promise<{ keys: KeyProvider; tpm: SoftwareTpm; used: string[] }> {
  const tpm = softwareTpm({ maker });
  const used: string[] = [];
  const { device } = tpm;
  const counting = new Proxy(device, {
    get: (target, name: keyof typeof device) => {
      used.push(name);
      return name === 'certify'
        ? (label: string, data: Uint8Array) =>
            device.certify(label.endsWith(':enrolment') ? 'enrolment' : 'instance', data)
        : target[name];
    },
  });
  return { keys: { ...(await openKeys('software')), kind: 'tpm', assurance: 'hardware', tpm: counting }, tpm, used };
}

const textOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url');
const json = (body: object, status = 200) =>
  new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json' } });
const challenge = { challenge: 'x'.repeat(43), expires_in: 60 };

describe('an agent with a TPM', () => {
  /** An attester that makes its own answers to attestation requests. */
  async function against(offer: object, answers: object[]) {
    const { keys, tpm, used } = await keysWithTpm();
    const attester = newAttester();
    let at = 0;
    attester.outage = (request) =>
      json(request.url.endsWith('/challenge') ? { ...challenge, ...offer } : (answers[at++] ?? answers.at(-1)!));
    const { agent } = await newAgent({ keys, attester });
    return { agent, attester, tpm, used };
  }
  const asked = (attester: { seen: { path: string }[] }) => attester.seen.map(({ path }) => path);

  test('opens one credential for an attestation, and no second one; the secret does not leave', async () => {
    const { keys, tpm, used } = await keysWithTpm();
    const secret = randomBytes(32);
    const { credentialBlob, encryptedSecret } = makeCredential({
      ek: tpm.ek.publicArea,
      name: tpm.ak.parsed.name,
      secret,
    });
    const next = { credential_blob: textOf(credentialBlob), encrypted_secret: textOf(encryptedSecret) };
    const attester = newAttester();
    attester.outage = (request) =>
      json(request.url.endsWith('/challenge') ? { ...challenge, evidence: ['tpm'] } : { ...challenge, next });
    const { agent } = await newAgent({ keys, attester });
    await expectRefusal(() => agent.rotate(SERVER), { code: 'attester_unavailable' });
    expect(used.filter((name) => name === 'activate')).toHaveLength(1);
    expect(asked(attester)).toEqual(['/challenge', '/attestation', '/attestation']);
    expect(attester.seen.at(-1)!.body.evidence).toMatchObject({ kind: 'tpm', activation: expect.any(String) });
    expect(JSON.stringify(attester.seen)).not.toContain(textOf(secret));
  });

  test.each<[string, object]>([
    ['nothing', {}],
    ['a number', { credential_blob: 1, encrypted_secret: 'AA' }],
    ['half of it', { credential_blob: 'AA' }],
    ['no base64url', { credential_blob: '+', encrypted_secret: 'AA' }],
    ['an empty text', { credential_blob: '', encrypted_secret: 'AA' }],
    ['more than a credential', { credential_blob: 'A'.repeat(4096), encrypted_secret: 'AA' }],
    ['a plan for something else', { sign: 'AAAA' }],
  ])('is asked to open %s: it does not ask the TPM', async (_what, next) => {
    const { agent, used } = await against({ evidence: ['tpm'] }, [{ ...challenge, next }]);
    await expectRefusal(() => agent.rotate(SERVER), { code: 'attester_unavailable' });
    expect(used).not.toContain('activate');
  });

  test.each<[string, object]>([
    ['evidence is no list', { evidence: 'tpm' }],
    ['evidence is a list of numbers', { evidence: [1] }],
    ['evidence is endless', { evidence: Array(1000).fill('tpm') }],
    ['the quote is a text', { evidence: ['tpm'], quote: 'all' }],
    ['the quote is of no bank', { evidence: ['tpm'], quote: { pcrs: { md5: [0] } } }],
    ['the quote is of no PCR', { evidence: ['tpm'], quote: { pcrs: { sha256: [99] } } }],
    ['the quote is of a text', { evidence: ['tpm'], quote: { pcrs: { sha256: ['0'] } } }],
    ['the quote is of everything, often', { evidence: ['tpm'], quote: { pcrs: { sha256: Array(100).fill(0) } } }],
  ])('is made an offer in which %s: it proves nothing', async (_what, offer) => {
    const { agent, attester, used } = await against(offer, [{}]);
    await expectRefusal(() => agent.rotate(SERVER), { code: 'attester_unavailable' });
    expect(asked(attester)).toEqual(['/challenge']);
    expect(used).toEqual([]);
  });

  test.each<[string, object]>([
    ['no kinds', {}],
    ['software', { evidence: ['software'] }],
    ['kinds it does not know', { evidence: ['software', 'quantum'] }],
  ])('is offered %s: its TPM says nothing', async (_what, offer) => {
    const { agent, attester, used } = await against(offer, [{ error: 'access_denied' }]);
    await expectRefusal(() => agent.rotate(SERVER), { code: 'attester_unavailable' });
    expect(used).toEqual([]);
    expect(attester.seen.at(-1)!.body.evidence).toMatchObject({ kind: 'software' });
  });

  test('PRIV-3: nothing of what it sends names the server or a label', async () => {
    const { agent, attester } = await against({ evidence: ['tpm'] }, [{ error: 'access_denied' }]);
    await expectRefusal(() => agent.rotate(SERVER), { code: 'attester_unavailable' });
    const { evidence } = attester.seen.at(-1)!.body as { evidence: Record<string, unknown> };
    expect(Object.keys(evidence).sort()).toEqual(
      ['ak', 'ek', 'enrolment', 'enrolment_proof', 'instance', 'key_proof', 'kind'].sort(),
    );
    const proofs = [evidence.enrolment_proof, evidence.key_proof].map((proof) =>
      Buffer.from(String(proof).split('.')[1]!, 'base64url').toString(),
    );
    for (const text of [JSON.stringify(evidence), ...proofs]) {
      expect(text).not.toContain('mcp.example');
      expect(text).not.toContain('attested:');
    }
  });

  test('a refusal for another device says what to do', async () => {
    const { keys } = await keysWithTpm();
    const attester = newAttester();
    attester.outage = (request) =>
      request.url.endsWith('/challenge')
        ? json({ ...challenge, evidence: ['tpm'] })
        : json({ error: 'device_conflict' }, 409);
    const { agent } = await newAgent({ keys, attester });
    const error = await expectRefusal(() => agent.rotate(SERVER), { code: 'attester_refused' });
    expect(error.message).toMatch(/another TPM or AK/);
  });
});

test.each<[string, object]>([
  ['a kind that there is not', { evidence: 'hsm' }],
  ['tpm without a TPM', { evidence: 'tpm' }],
])('createAgent refuses %s as evidence', async (_what, options) => {
  const keys = await openKeys('software');
  await expectRefusal(
    () => createAgent({ clientId: 'c', keys, attester: 'https://attester.example', ...options } as never),
    { code: 'invalid_argument' },
  );
});
