import { decodeJwt } from 'jose';
import { describe, expect, test } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { attributeBits as bit } from '../../src/tpm2/attributes.ts';
import { ekHash } from '../../src/tpm2/ek-hash.ts';
import type { PublicArea } from '../../src/tpm2/public-area.ts';
import { type Answer, CLIENT, newSigner, post, setUp } from '../attester/helpers.ts';
import { rocaModulus } from '../support/keys.ts';
import { softwareAk, softwareInstanceKey } from '../tpm2/forge.ts';
import { copyOf, ekCertificate, flip, newMaker, redress, replace, softwareTpm } from './software-tpm.ts';

import {
  type Attack,
  attestTpm,
  bytesOf,
  changeBy,
  enrolTpm,
  firstStep,
  instanceOf,
  maker,
  newTpm,
  refusals,
  stranger,
  textOf,
  tpmAttester,
} from './tpm-world.ts';

describe('tpm evidence', () => {
  test.each(['RSA-2048', 'P-256', 'P-384'] as const)(
    'a TPM with an EK of %s enrols in two steps, and the attestation says hardware, certified by a TPM',
    async (kind) => {
      const { attester, events } = tpmAttester();
      const tpm = softwareTpm({ maker, kind });
      const { answer } = await firstStep(attester, tpm);
      expect(answer.status).toBe(200);
      expect(Object.keys(answer.body).sort()).toEqual(['challenge', 'expires_in', 'next']);
      expect(Object.keys(answer.body.next as object).sort()).toEqual(['credential_blob', 'encrypted_secret']);
      expect(await attester.instances()).toEqual([]);

      const { status, body } = await enrolTpm(attester, tpm);
      expect(status).toBe(200);
      expect(decodeJwt(body.attestation!)).toMatchObject({
        sub: CLIENT,
        cnf: { jwk: tpm.signers().instanceSigner.publicJwk },
        key_storage: ['hardware'],
        key_evidence: 'tpm-certified',
      });
      expect(events.map(({ type }) => type)).toEqual(['enrolled', 'issued']);
    },
  );

  test('PRIV-1: nothing of the TPM is in the attestation', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    const { body } = await enrolTpm(attester, tpm);
    expect(Object.keys(decodeJwt(body.attestation!)).sort()).toEqual(
      ['cnf', 'exp', 'iat', 'iss', 'key_evidence', 'key_storage', 'status', 'sub'].sort(),
    );
    const [instance] = await attester.instances();
    const { ek, ak, signer } = instance!.device!;
    const text = JSON.stringify(decodeJwt(body.attestation!));
    for (const name of [ek, ak, signer, tpm.signers().enrolmentSigner.thumbprint]) expect(text).not.toContain(name);
  });

  test('renewal takes one step, and another key of the instance as well; the pinned device is the first one', async () => {
    const { attester } = tpmAttester();
    const tpm = newTpm();
    await enrolTpm(attester, tpm);
    expect((await attester.instances())[0]!.device).toEqual({
      ek: ekHash(tpm.ek.parsed.publicJwk!),
      ak: Buffer.from(tpm.ak.parsed.name).toString('base64url'),
      signer: expect.stringMatching(/^[A-Za-z0-9_-]{46}$/),
      clock: { clock: 1_000_001, resetCount: 5, restartCount: 2, safe: true },
    });
    expect((await firstStep(attester, tpm)).answer.body.attestation).toBeDefined();
    replace(tpm, 'instance');
    expect((await firstStep(attester, tpm)).answer.body.attestation).toBeDefined();
    expect(await attester.instances()).toHaveLength(1);
    expect((await attester.instances())[0]!.device!.clock.clock).toBeGreaterThan(1_000_004);
  });

  test('an attester that was told of no TPM does not offer it, and refuses it', async () => {
    const { attester } = setUp();
    expect((await post(attester, '/challenge', {})).body).toMatchObject({ evidence: ['software'] });
    expect(await enrolTpm(attester, newTpm())).toMatchObject({ status: 403, body: { error: 'access_denied' } });
  });

  test('the offer names the kinds and what is to be quoted', async () => {
    const quote = { pcrs: { sha256: [7, 0] }, check: () => true };
    const { attester } = tpmAttester({ tpm: { roots: [maker.der], quote } });
    expect((await post(attester, '/challenge', {})).body).toEqual({
      challenge: expect.any(String),
      expires_in: 60,
      evidence: ['software', 'tpm'],
      quote: { pcrs: { sha256: [0, 7] }, event_log: true },
    });
  });

  test('nothing in the evidence names a server (PRIV-3), and no label of a key is in it', async () => {
    const { attester } = tpmAttester();
    let seen = '';
    await firstStep(attester, newTpm(), { change: (evidence) => (seen = JSON.stringify(evidence)) });
    expect(Object.keys(JSON.parse(seen)).sort()).toEqual(
      ['ak', 'ek', 'enrolment', 'enrolment_proof', 'instance', 'kind', 'key_proof'].sort(),
    );
  });
});

/** What is changed, and the check that must find it. */
type Row = [what: string, rule: string, attack: Attack];

const sha1Scheme = { name: 'ecdsa', hash: 'sha1' } as const;
const otherMaker = newMaker('maker'); // the same name, other keys
const roca = new Uint8Array(Buffer.from(rocaModulus().toString(16), 'hex'));
const rsaArea = (unique: Uint8Array, attributes: number): Partial<PublicArea> =>
  ({
    type: 'rsa',
    attributes,
    scheme: (attributes & bit.decrypt) === 0 ? { name: 'rsassa', hash: 'sha256' } : null,
    parameters: { keyBits: unique.length * 8, exponent: 65537 },
    unique,
  }) as Partial<PublicArea>;

const attacks: Row[] = [
  // who the TPM is
  [
    'an EK certificate of a maker that is not trusted',
    '2',
    (tpm) => {
      tpm.certificate = ekCertificate(otherMaker, tpm.ek);
    },
  ],
  [
    'an EK certificate of another TPM',
    '2',
    (tpm) => {
      tpm.certificate = stranger.certificate;
    },
  ],
  [
    'the EK of another TPM beside its own certificate',
    '2',
    (tpm) => {
      tpm.ek = stranger.ek;
    },
  ],
  [
    'no EK certificate',
    '2',
    (tpm) => {
      tpm.certificate = undefined;
    },
  ],
  [
    'an expired EK certificate',
    '2',
    (tpm) => {
      tpm.certificate = ekCertificate(maker, tpm.ek, { notAfter: new Date('2026-01-01') });
    },
  ],
  [
    'an EK certificate for web servers',
    '2',
    (tpm) => {
      tpm.certificate = ekCertificate(maker, tpm.ek, { purposes: ['1.3.6.1.5.5.7.3.1'] });
    },
  ],
  [
    'a certificate that says nowhere what it is for',
    '2',
    (tpm) => {
      tpm.certificate = ekCertificate(maker, tpm.ek, { purposes: undefined });
    },
  ],
  [
    'an EK certificate that brings its own root',
    '2',
    (tpm) => {
      tpm.certificate = ekCertificate(otherMaker, tpm.ek);
      tpm.chain = [new Uint8Array(otherMaker.der)];
    },
  ],
  [
    'a maker in place of an EK',
    '2',
    (tpm) => {
      tpm.certificate = new Uint8Array(maker.der);
    },
  ],
  [
    'an EK certificate with something behind it',
    '1',
    (tpm) => {
      tpm.certificate = Uint8Array.of(...tpm.certificate!, 1, 2);
    },
  ],
  [
    'an EK with a ROCA modulus',
    'CVE-2017-15361|2|VER-4',
    (tpm) => redress(tpm, 'ek', rsaArea(roca, tpm.ek.parsed.attributes.raw)),
  ],
  // the AK
  ['an AK that is not restricted', '3', (tpm) => flip(tpm, 'ak', bit.restricted)],
  ['an AK that may decrypt', '3', (tpm) => flip(tpm, 'ak', bit.decrypt)],
  ['an AK that does not sign', '3', (tpm) => flip(tpm, 'ak', bit.sign)],
  ['an AK without fixedTPM', '3', (tpm) => flip(tpm, 'ak', bit.fixedTPM)],
  ['an AK without fixedParent', '3', (tpm) => flip(tpm, 'ak', bit.fixedParent)],
  ['an AK that was imported', '3', (tpm) => flip(tpm, 'ak', bit.sensitiveDataOrigin)],
  ['an AK without a scheme of its own', '3', (tpm) => redress(tpm, 'ak', { scheme: null } as Partial<PublicArea>)],
  ['an AK that signs with SHA-1', '3', (tpm) => redress(tpm, 'ak', { scheme: sha1Scheme } as Partial<PublicArea>)],
  ['an AK named by SHA-1', '3', (tpm) => redress(tpm, 'ak', { nameAlg: 'sha1' })],
  ['an AK with a ROCA modulus', '3', (tpm) => redress(tpm, 'ak', rsaArea(roca, tpm.ak.parsed.attributes.raw))],
  [
    'an AK that is a template',
    '3',
    (tpm) => redress(tpm, 'ak', { unique: { x: new Uint8Array(32), y: new Uint8Array(32) } } as Partial<PublicArea>),
  ],
  // the statements
  [
    'a statement with another magic',
    '4',
    (tpm) => {
      tpm.forge.instance = { magic: 0xff544346 };
    },
  ],
  [
    'a statement of type quote',
    '1|4',
    (tpm) => {
      tpm.forge.instance = { type: 'quote' };
    },
  ],
  [
    'a statement of type creation',
    '4',
    (tpm) => {
      tpm.forge.enrolment = { type: 'creation' };
    },
  ],
  [
    'a statement of no type',
    '4',
    (tpm) => {
      tpm.forge.instance = { type: 0x8001 };
    },
  ],
  [
    'a statement signed by another key',
    '4',
    (tpm) => {
      tpm.forge.instance = { ak: softwareAk() };
    },
  ],
  [
    'a statement signed with another hash than the AK has',
    '4',
    (tpm) => {
      tpm.forge.instance = { scheme: { alg: 'ecdsa', hash: 'sha384' } };
    },
  ],
  [
    'a statement signed with SHA-1',
    '4',
    (tpm) => {
      tpm.forge.instance = { scheme: { alg: 'ecdsa', hash: 'sha1' } };
    },
  ],
  [
    'an RSA signature where the AK has an elliptic curve',
    '4',
    () => (evidence: JsonObject) => {
      instanceOf(evidence).signature = textOf(Uint8Array.of(0, 0x14, 0, 0x0b, 1, 0, ...new Uint8Array(256).fill(1)));
    },
  ],
  [
    'a signature changed in one bit',
    '4',
    () => (evidence: JsonObject) => {
      const signature = bytesOf(instanceOf(evidence).signature);
      signature[20]! ^= 1;
      instanceOf(evidence).signature = textOf(signature);
    },
  ],
  [
    'a statement changed in one bit',
    '4',
    () => (evidence: JsonObject) => {
      const attest = bytesOf(instanceOf(evidence).attest);
      attest[attest.length - 1]! ^= 1;
      instanceOf(evidence).attest = textOf(attest);
    },
  ],
  // what they are about
  [
    'no extra data',
    '5',
    (tpm) => {
      tpm.forge.instance = { extraData: new Uint8Array(0) };
    },
  ],
  [
    'other extra data',
    '5',
    (tpm) => {
      tpm.forge.enrolment = { extraData: new Uint8Array(32) };
    },
  ],
  [
    'the two statements exchanged',
    '5|6|7',
    () => (evidence: JsonObject) => {
      [evidence.enrolment, evidence.instance] = [evidence.instance, evidence.enrolment];
    },
  ],
  [
    'one statement twice',
    '5|6|7',
    () => (evidence: JsonObject) => {
      evidence.instance = evidence.enrolment;
    },
  ],
  [
    'a statement about another key',
    '6',
    (tpm) => {
      tpm.forge.instance = { name: softwareInstanceKey().parsed.name };
    },
  ],
  [
    'the public area of another key',
    '6',
    () => (evidence: JsonObject) => {
      instanceOf(evidence).public = textOf(softwareInstanceKey().publicArea);
    },
  ],
  ['a key named by SHA-1', '6', (tpm) => redress(tpm, 'instance', { nameAlg: 'sha1' })],
  // the keys
  ...(['enrolment', 'instance'] as const).flatMap((part): Row[] => [
    [`an ${part} key without fixedTPM`, '7', (tpm) => flip(tpm, part, bit.fixedTPM)],
    [`an ${part} key without fixedParent`, '7', (tpm) => flip(tpm, part, bit.fixedParent)],
    [`an ${part} key that was imported`, '7', (tpm) => flip(tpm, part, bit.sensitiveDataOrigin)],
    [`an ${part} key that does not sign`, '7', (tpm) => flip(tpm, part, bit.sign)],
    [`an ${part} key that is restricted`, '7', (tpm) => flip(tpm, part, bit.restricted)],
    [`an ${part} key that may decrypt`, '7', (tpm) => flip(tpm, part, bit.decrypt)],
    [
      `an ${part} key without a scheme of its own`,
      '7',
      (tpm) => redress(tpm, part, { scheme: null } as Partial<PublicArea>),
    ],
    [
      `an ${part} key with another scheme`,
      '7',
      (tpm) => redress(tpm, part, { scheme: { name: 'ecschnorr', hash: 'sha256' } } as Partial<PublicArea>),
    ],
    [
      `an ${part} key with another hash`,
      '7',
      (tpm) => redress(tpm, part, { scheme: { name: 'ecdsa', hash: 'sha384' } } as Partial<PublicArea>),
    ],
    [
      `an ${part} key with an unexpected policy`,
      '7',
      (tpm) => redress(tpm, part, { authPolicy: new Uint8Array(32).fill(1) }),
    ],
  ]),
  [
    'a key that did not sign the proof',
    '7',
    (tpm) => {
      const { signers } = tpm;
      const software = newSigner();
      tpm.signers = () => ({ ...signers(), instanceSigner: software });
    },
  ],
  [
    'an enrolment key that did not sign the proof',
    '7',
    (tpm) => {
      const { signers } = tpm;
      const software = newSigner();
      tpm.signers = () => ({ ...signers(), enrolmentSigner: software });
    },
  ],
  // one TPM, one run
  [
    'statements of two signers',
    '9',
    (tpm) => {
      tpm.forge.instance = { qualifiedSigner: Uint8Array.of(0, 11, ...new Uint8Array(32)) };
    },
  ],
  [
    'statements without a signer',
    '9',
    (tpm) => {
      const qualifiedSigner = new Uint8Array(0);
      tpm.forge = { enrolment: { qualifiedSigner }, instance: { qualifiedSigner } };
    },
  ],
  [
    'statements from before and after a reset',
    '9',
    (tpm) => {
      tpm.forge.instance = { clockInfo: { ...tpm.clock, resetCount: 6 } };
    },
  ],
  [
    'statements from before and after a restart',
    '9',
    (tpm) => {
      tpm.forge.instance = { clockInfo: { ...tpm.clock, restartCount: 3 } };
    },
  ],
  [
    'a clock beyond any sense',
    '9',
    (tpm) => {
      tpm.clock.clock = 2n ** 60n;
    },
  ],
];

describe.each(attacks)('refused: %s', (_what, rule, attack) => {
  const expectRefusal = ({ status, body }: Answer, events: object[]) => {
    expect([400, 403]).toContain(status);
    expect(body.attestation).toBeUndefined();
    expect(body.next).toBeUndefined();
    const refused = refusals(events);
    expect(refused).toHaveLength(1);
    const rules = rule.split('|').map((one) => (/^\d$/.test(one) ? `TPM attestation ${one}` : one));
    expect(rules, refused[0]!.message).toContain(refused[0]!.rule);
  };

  test('at enrolment; the token is still good for an honest TPM', async () => {
    const { attester, events } = tpmAttester();
    const token = await attester.createEnrolmentToken({ clientId: CLIENT });
    const bad = newTpm();
    const change = changeBy(attack, bad);
    expectRefusal(await attestTpm(attester, bad, { token, ...change }), events);
    expect(await attester.instances()).toEqual([]);
    expect((await attestTpm(attester, newTpm(), { token })).status).toBe(200);
  });

  test('at renewal; the record stays, and the same TPM in order is served', async () => {
    const { attester, events } = tpmAttester();
    const tpm = newTpm();
    await enrolTpm(attester, tpm);
    const before = await attester.instances();
    const bad = copyOf(tpm);
    const change = changeBy(attack, bad);
    events.length = 0;
    expectRefusal(await attestTpm(attester, bad, change), events);
    expect(await attester.instances()).toEqual(before);
    expect((await attestTpm(attester, tpm)).status).toBe(200);
  });
});
