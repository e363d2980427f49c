/** Which TPMs an attester believes. */
import type { ClientPolicy } from 'attested/attester';
import { describe, expect, test } from 'vitest';
import { ekHash } from '../../src/tpm2/ek-hash.ts';
import { CLIENT, setUp } from '../attester/helpers.ts';
import { CA_USAGE, issueCertificate } from '../support/certificates.ts';
import { redress, type SoftwareTpm, softwareTpm } from './software-tpm.ts';

import { attestTpm, enrolTpm, maker, newTpm, refusals, tpmAttester } from './tpm-world.ts';

describe('whom the attester believes', () => {
  const hashOf = (tpm: SoftwareTpm) => ekHash(tpm.ek.parsed.publicJwk!);
  const hexOf = (hash: string) => Buffer.from(hash, 'base64url').toString('hex');

  test.each([
    ['base64url', (hash: string) => hash],
    ['hexadecimal', hexOf],
    ['hexadecimal in capitals', (hash: string) => hexOf(hash).toUpperCase()],
  ])('an EK without a certificate is believed by its hash in %s, and no other', async (_form, write) => {
    const tpm = softwareTpm();
    const { attester, events } = tpmAttester({ tpm: { allowEk: [write(hashOf(tpm))] } });
    expect((await enrolTpm(attester, tpm)).status).toBe(200);
    expect(await enrolTpm(attester, softwareTpm())).toMatchObject({ status: 403, body: { error: 'access_denied' } });
    expect(refusals(events)).toMatchObject([{ rule: 'TPM attestation 2' }]);
  });

  test('roots may be PEM with several certificates, and intermediates come from the operator or the TPM', async () => {
    const root = issueCertificate({ name: 'root', ca: true, usage: CA_USAGE });
    const issuer = issueCertificate({ name: 'issuer', issuer: root, ca: true, usage: CA_USAGE });
    const tpm = softwareTpm({ maker: issuer });
    const roots = [`${maker.pem}some words\n${root.pem}`];
    expect((await enrolTpm(tpmAttester({ tpm: { roots } }).attester, tpm)).status).toBe(400);
    expect((await enrolTpm(tpmAttester({ tpm: { roots, intermediates: [issuer.pem] } }).attester, tpm)).status).toBe(
      200,
    );
    tpm.chain = [new Uint8Array(issuer.der)];
    expect((await enrolTpm(tpmAttester({ tpm: { roots } }).attester, tpm)).status).toBe(200);
  });

  test('an EK that is not in the inventory is refused, however well certified: evidence relayed from another machine', async () => {
    const [listed, unlisted] = [newTpm(), newTpm()];
    const inventory = [hashOf(listed)];
    const { attester, events } = tpmAttester({ tpm: { roots: [maker.der], inventory } });
    expect((await enrolTpm(attester, unlisted)).status).toBe(403);
    expect(refusals(events)).toMatchObject([{ rule: 'TPM attestation 2' }]);
    expect((await enrolTpm(attester, listed)).status).toBe(200);
  });

  test('an inventory may be a look-up by hash and client; it is asked at each renewal, and only true is yes', async () => {
    const tpm = newTpm();
    let answer: unknown = true;
    const asked: unknown[] = [];
    const inventory = async (...question: unknown[]) => {
      asked.push(question);
      return answer as boolean;
    };
    const { attester } = tpmAttester({ tpm: { roots: [maker.der], inventory } });
    expect((await enrolTpm(attester, tpm)).status).toBe(200);
    expect(asked).toEqual([[hashOf(tpm), CLIENT]]);
    for (answer of [false, undefined, 'yes', 1]) expect((await attestTpm(attester, tpm)).status).toBe(403);
    answer = true;
    expect((await attestTpm(attester, tpm)).status).toBe(200);
  });

  test('an inventory that fails is a fault of ours: no attestation', async () => {
    const inventory = () => {
      throw new Error('database gone');
    };
    const { attester, events } = tpmAttester({ tpm: { roots: [maker.der], inventory } });
    expect(await enrolTpm(attester, newTpm())).toMatchObject({
      status: 503,
      body: { error: 'temporarily_unavailable' },
    });
    expect(events).toMatchObject([{ type: 'fault' }]);
    expect(await attester.instances()).toEqual([]);
  });

  test('keys may have a policy that the operator expects', async () => {
    const authPolicy = new Uint8Array(32).fill(1);
    const authPolicies = [Buffer.from(authPolicy).toString('hex')];
    const { attester } = tpmAttester({ tpm: { roots: [maker.der], authPolicies } });
    const tpm = newTpm();
    redress(tpm, 'instance', { authPolicy });
    expect((await enrolTpm(attester, tpm)).status).toBe(200);
  });

  const policy = { clients: {} };
  test.each<[string, object]>([
    ['nobody to believe', {}],
    ['empty lists', { roots: [], allowEk: [] }],
    ['a root that is no certificate', { roots: [new Uint8Array(500)] }],
    ['a root that is no PEM', { roots: ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'] }],
    ['a PEM block that is cut', { roots: [`${maker.pem}-----BEGIN CERTIFICATE-----\nAAAA`] }],
    [
      'a private key among the roots',
      { roots: [`${maker.pem}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----`] },
    ],
    ['a path in place of a root', { roots: ['/etc/tpm/roots.pem'] }],
    ['a hash that is too short', { allowEk: ['abcd'] }],
    ['a hash that is no text', { allowEk: [1] }],
    ['one hash in place of a list', { roots: [maker.der], inventory: 'x'.repeat(43) }],
    ['a misspelt member', { roots: [maker.der], inventry: [] }],
    ['a policy that is no digest', { roots: [maker.der], authPolicies: ['00'] }],
    ['a quote of nothing', { roots: [maker.der], quote: { pcrs: {} } }],
    ['a quote without PCRs', { roots: [maker.der], quote: {} }],
    ['a quote of an empty bank', { roots: [maker.der], quote: { pcrs: { sha256: [] } } }],
    ['a quote of SHA-1', { roots: [maker.der], quote: { pcrs: { sha1: [0] } } }],
    ['a PCR that does not exist', { roots: [maker.der], quote: { pcrs: { sha256: [24] } } }],
    ['a misspelt check', { roots: [maker.der], quote: { pcrs: { sha256: [0] }, chek: () => false } }],
    ['an event log without end', { roots: [maker.der], maxEventLog: 2 ** 30 }],
    ['a clock that is neither bounded nor any', { roots: [maker.der], clockAfterReset: 'all' }],
  ])('an operator is told at once of %s', (_what, tpm) => {
    expect(() => setUp({ tpm, policy })).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
  });

  test.each<[string, ClientPolicy, object | undefined]>([
    ['tpm evidence where no TPM is believed', { evidence: ['tpm'] }, undefined],
    ['pins where nothing is quoted', { evidence: ['tpm'], pcrs: { sha256: { 7: '00'.repeat(32) } } }, {}],
    ['pins beside software evidence', { pcrs: { sha256: { 7: '00'.repeat(32) } } }, { pcrs: { sha256: [7] } }],
    [
      'a pin outside the quote',
      { evidence: ['tpm'], pcrs: { sha256: { 8: '00'.repeat(32) } } },
      { pcrs: { sha256: [7] } },
    ],
    ['a pin of the wrong length', { evidence: ['tpm'], pcrs: { sha256: { 7: '00' } } }, { pcrs: { sha256: [7] } }],
    ['a pin of no values', { evidence: ['tpm'], pcrs: { sha256: { 7: [] } } }, { pcrs: { sha256: [7] } }],
  ])('and of a policy with %s', (_what, client, quote) => {
    const tpm = quote && { tpm: { roots: [maker.der], ...('pcrs' in quote && { quote: quote as never }) } };
    expect(() => setUp({ ...tpm, policy: { clients: { [CLIENT]: client } } })).toThrow(
      expect.objectContaining({ code: 'invalid_argument' }),
    );
  });
});
