import { createPublicKey, createSecretKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { thumbprintOf } from '../../src/platform/crypto.ts';
import {
  type AttestationKeyInput,
  type AttributeName,
  akTemplate,
  attributeBits,
  type CertifyInput,
  instanceKeyTemplate,
  parsePublic,
  type TpmAttributes,
  verifyCertify,
} from '../../src/tpm2/index.ts';
import { concat, sized, u16, u32 } from '../../src/tpm2/wire.ts';
import { expectRefusal, refusalOf } from '../support/errors.ts';
import {
  attestBytes,
  type ForgedCertify,
  forgeCertify,
  forgeQuote,
  keyFromTemplate,
  type SoftwareKey,
  signatureBytes,
  signed,
  softwareAk,
  softwareInstanceKey,
  somePcrs,
} from './forge.ts';

const ak = softwareAk();
const subject = softwareInstanceKey();
const extraData = new Uint8Array(32).fill(0xed);
const rsaAk = keyFromTemplate(instanceKeyTemplate('RS256'), { attributes: 0x00050472 });
const pssAk = keyFromTemplate(instanceKeyTemplate('PS256'), { attributes: 0x00050472 });

/** An honest certify, with what a test changes in the making; `given` is what the verifier is told instead. */
function certify(forged: Partial<ForgedCertify> = {}, given: Partial<CertifyInput> = {}): CertifyInput {
  const keys = { ak: forged.ak ?? ak, subject: (forged.subject as SoftwareKey | undefined) ?? subject };
  return {
    ...forgeCertify({ ...keys, extraData, ...forged }),
    ak: keys.ak.publicArea,
    subject: keys.subject.publicArea,
    extraData,
    ...given,
  };
}

describe('a genuine certify', () => {
  test('gives the key, and what the caller has to pin and compare', () => {
    const result = verifyCertify(certify({ clockInfo: { clock: 2n ** 63n, resetCount: 2 ** 32 - 1, safe: false } }));
    const jwk = subject.parsed.publicJwk!;
    expect(result).toMatchObject({
      type: 'certify',
      akAttributes: 'checked',
      akName: ak.parsed.name,
      signatureScheme: 'ecdsa',
      signatureHash: 'sha256',
      qualifiedSigner: concat(u16(0x000b), new Uint8Array(32).fill(0x51)),
      extraData,
      clockInfo: { clock: 2n ** 63n, resetCount: 2 ** 32 - 1, restartCount: 0, safe: false },
      firmwareVersion: 0x2019102300163636n,
      name: subject.parsed.name,
      publicJwk: jwk,
      thumbprint: thumbprintOf(jwk),
      decrypt: false,
      subject: { type: 'ecc', scheme: { name: 'ecdsa', hash: 'sha256' } },
    });
  });

  test.each([
    ['RSASSA', rsaAk],
    ['RSAPSS', pssAk],
    ['P-384', keyFromTemplate(instanceKeyTemplate('ES384'), { attributes: 0x00050472 })],
  ])('by an AK of %s', (_, key) => {
    expect(verifyCertify(certify({ ak: key })).akName).toEqual(key.parsed.name);
  });

  test.each(['ES256', 'ES384', 'PS256', 'RS256'] as const)('of a key for %s', (alg) => {
    const key = keyFromTemplate(instanceKeyTemplate(alg));
    expect(verifyCertify(certify({ subject: key })).publicJwk).toEqual(key.parsed.publicJwk);
  });

  test('as TPM2Bs', () => {
    const plain = certify();
    const wrapped = {
      attest: sized(plain.attest),
      signature: sized(plain.signature),
      ak: sized(plain.ak as Uint8Array),
      subject: sized(plain.subject),
      extraData,
    };
    expect(verifyCertify(wrapped)).toEqual(verifyCertify(plain));
  });

  test('without expected extra data: the result carries it for the caller to compare', () => {
    const { extraData: _, ...rest } = certify();
    expect(verifyCertify(rest).extraData).toEqual(extraData);
  });

  test.each<[string, () => AttestationKeyInput]>([
    ['a KeyObject', () => createPublicKey(ak.privateKey)],
    ['a JWK', () => ak.parsed.publicJwk!],
    ['a JWK with its algorithm', () => ({ ...ak.parsed.publicJwk!, alg: 'ES256' })],
  ])('by an AK known as %s: its attributes are not known', (_, key) => {
    const result = verifyCertify(certify({}, { ak: key() }));
    expect(result.akAttributes).toBe('unknown');
    expect(result).not.toHaveProperty('akName');
  });

  test('the result does not change when its input does', () => {
    const input = structuredClone(certify()); // the keys are shared between tests
    const result = verifyCertify(input);
    const before = structuredClone(result);
    for (const bytes of [input.attest, input.signature, input.subject, input.ak as Uint8Array]) bytes.fill(0);
    expect(result).toEqual(before);
  });
});

/** Which flags the AK and the subject must have, must not have; the others make no difference to the verdict. */
const akMust: Partial<Record<AttributeName, boolean>> = {
  fixedTPM: true,
  fixedParent: true,
  sensitiveDataOrigin: true,
  restricted: true,
  sign: true,
  decrypt: false,
};
const subjectMust: typeof akMust = {
  fixedTPM: true,
  fixedParent: true,
  sensitiveDataOrigin: true,
  sign: true,
  restricted: false,
};
const flags = Object.keys(attributeBits) as AttributeName[];
const flipped = (attributes: TpmAttributes, flag: AttributeName) => ({
  attributes: attributes.raw ^ attributeBits[flag],
});

describe('TPM attestation 3: each attribute of the AK, flipped', () => {
  test.each(flags)('%s', async (flag) => {
    const other = softwareAk(flipped(ak.parsed.attributes, flag));
    const attempt = () => verifyCertify(certify({ ak: other }));
    if (akMust[flag] === undefined) expect(attempt().akAttributes).toBe('checked');
    else await expectRefusal(attempt, { code: 'tpm_refused', rule: 'TPM attestation 3' });
  });
});

describe('TPM attestation 7: each attribute of the certified key, flipped', () => {
  test.each(flags)('%s', async (flag) => {
    const other = softwareInstanceKey(flipped(subject.parsed.attributes, flag));
    const attempt = () => verifyCertify(certify({ subject: other }));
    if (subjectMust[flag] === undefined) expect(attempt().decrypt).toBe(flag === 'decrypt');
    else await expectRefusal(attempt, { code: 'tpm_refused', rule: 'TPM attestation 7' });
  });
});

describe.each([
  ['AK', (attributes: number) => softwareAk({ attributes })],
  ['subject', (attributes: number) => softwareInstanceKey({ attributes })],
])('TPM attestation 1: a reserved attribute bit of the %s', (_, make) => {
  const base = 0x00040472;
  test.each([0, 3, 12, 13, 14, 15, 20, 24, 31])('bit %i', async (bit) => {
    await expectRefusal(() => make((base | (1 << bit)) >>> 0), { code: 'tpm_malformed', rule: 'TPM attestation 1' });
  });
});

const sha1 = { alg: 'ecdsa', hash: 'sha1' } as const;
const p521 = generateKeyPairSync('ec', { namedCurve: 'secp521r1' });
const rsa1024 = generateKeyPairSync('rsa', { modulusLength: 1024 });
const none = new Uint8Array(0);

/** What the attacker sends; the check that must stop it. */
const attacks: { name: string; input: () => CertifyInput; check: number; code?: ErrorCode }[] = [
  {
    name: 'a structure that no TPM generated (CVE-2024-29038, CVE-2024-29040)',
    input: () => certify({ magic: 0xff544348 }),
    check: 4,
    code: 'tpm_malformed',
  },
  { name: 'a magic of zero', input: () => certify({ magic: 0 }), check: 4, code: 'tpm_malformed' },
  { name: 'an unknown type', input: () => certify({ type: 0x8013 }), check: 4, code: 'tpm_malformed' },
  {
    name: 'a quote in place of a certify',
    input: () => ({ ...certify(), ...forgeQuote({ ak, extraData, pcrs: somePcrs('sha256', 0) }) }),
    check: 4,
  },
  ...(['creation', 'nvDigest'] as const).map((type) => ({
    name: `the bytes of a certify as ${type}, which reads the same`,
    input: () => certify({ type }),
    check: 4,
  })),
  {
    name: 'bytes after the attest structure',
    input: () => ({ ...certify(), ...signed(ak, concat(certify().attest, u16(0))) }),
    check: 1,
    code: 'tpm_malformed',
  },
  {
    name: 'bytes after the signature',
    input: () => ({ ...certify(), signature: concat(certify().signature, u16(0)) }),
    check: 1,
    code: 'tpm_malformed',
  },
  {
    name: 'bytes after the subject, certified with them',
    input: () => certify({}, { subject: concat(subject.publicArea, u16(0)) }),
    check: 1,
    code: 'tpm_malformed',
  },
  {
    name: 'a signature by another key',
    input: () => ({ ...certify(), signature: signatureBytes(softwareAk(), certify().attest) }),
    check: 4,
  },
  {
    name: 'a signature over another structure',
    input: () => ({ ...certify(), attest: certify({ extraData, clockInfo: { clock: 1001n } }).attest }),
    check: 4,
  },
  {
    name: 'an RSA AK and an ECDSA signature (go-attestation#515)',
    input: () => certify({}, { ak: rsaAk.publicArea }),
    check: 4,
  },
  {
    name: 'an ECC AK and an RSA signature (go-attestation#515)',
    input: () => ({ ...certify({ ak: rsaAk }), ak: ak.publicArea }),
    check: 4,
  },
  {
    name: 'a bare RSA key and an ECDSA signature',
    input: () => certify({}, { ak: rsaAk.parsed.publicJwk! }),
    check: 4,
  },
  {
    name: 'a bare ECC key and an RSA signature',
    input: () => ({ ...certify({ ak: rsaAk }), ak: createPublicKey(ak.privateKey) }),
    check: 4,
  },
  {
    name: 'an ECDSA signature under the name of an RSA one',
    input: () => {
      const { attest } = certify();
      const der = new Uint8Array(sign('sha256', attest, ak.privateKey));
      return certify({}, { attest, signature: concat(u16(0x14), u16(0x0b), sized(der)), ak: ak.parsed.publicJwk! });
    },
    check: 4,
  },
  { name: 'a secret key for an AK', input: () => certify({}, { ak: createSecretKey(extraData) }), check: 3 },
  {
    name: 'PSS where the AK says PKCS#1',
    input: () => certify({ ak: rsaAk, scheme: { alg: 'rsapss', hash: 'sha256' } }),
    check: 4,
  },
  {
    name: 'PKCS#1 where the AK says PSS',
    input: () => certify({ ak: pssAk, scheme: { alg: 'rsassa', hash: 'sha256' } }),
    check: 4,
  },
  { name: "another hash than the AK's", input: () => certify({ scheme: { alg: 'ecdsa', hash: 'sha384' } }), check: 4 },
  {
    name: "another scheme than the JWK's alg",
    input: () => certify({}, { ak: { ...ak.parsed.publicJwk!, alg: 'ES384' } }),
    check: 4,
  },
  { name: 'SHA-1, by a bare key', input: () => certify({ scheme: sha1 }, { ak: ak.parsed.publicJwk! }), check: 4 },
  {
    name: 'r and s of zero',
    input: () => ({
      ...certify(),
      signature: concat(u16(0x18), u16(0x0b), sized(new Uint8Array(32)), sized(new Uint8Array(32))),
    }),
    check: 4,
  },
  {
    name: 'r and s of no length',
    input: () => ({ ...certify(), signature: concat(u16(0x18), u16(0x0b), sized(none), sized(none)) }),
    check: 4,
  },
  {
    name: 'r longer than its curve',
    input: () => ({
      ...certify(),
      signature: concat(u16(0x18), u16(0x0b), sized(new Uint8Array(48).fill(1)), sized(new Uint8Array(32).fill(1))),
    }),
    check: 4,
  },
  {
    name: 'no signature (TPM_ALG_NULL)',
    input: () => ({ ...certify(), signature: u16(0x10) }),
    check: 1,
    code: 'tpm_malformed',
  },
  {
    name: 'an HMAC for a signature',
    input: () => ({ ...certify(), signature: concat(u16(0x05), u16(0x0b), new Uint8Array(32)) }),
    check: 1,
    code: 'tpm_malformed',
  },
  {
    name: 'SHA-1 as the scheme of the AK',
    input: () => certify({ ak: softwareAk({ scheme: { name: 'ecdsa', hash: 'sha1' } }) }),
    check: 3,
  },
  {
    name: 'SHA-1 as the name algorithm of the AK',
    input: () => certify({ ak: softwareAk({ nameAlg: 'sha1' }) }),
    check: 3,
  },
  { name: 'an AK without a scheme', input: () => certify({ ak: softwareAk({ scheme: null }) }), check: 3 },
  {
    name: 'an AK for ECDAA',
    input: () => {
      const key = softwareAk({ scheme: { name: 'ecdaa', hash: 'sha256', count: 0 } });
      return certify({ ak: key, scheme: { alg: 'ecdsa', hash: 'sha256' } });
    },
    check: 3,
  },
  { name: 'an AK template without a key', input: () => certify({}, { ak: akTemplate() }), check: 3 },
  {
    name: 'an AK on P-521',
    input: () => certify({}, { ak: createPublicKey(p521.privateKey) }),
    check: 3,
  },
  { name: 'an AK of RSA-1024', input: () => certify({}, { ak: rsa1024.publicKey }), check: 3 },
  { name: 'an AK of Ed25519', input: () => certify({}, { ak: generateKeyPairSync('ed25519').publicKey }), check: 3 },
  { name: 'a private key for an AK', input: () => certify({}, { ak: ak.privateKey }), check: 3 },
  {
    name: 'a private JWK for an AK',
    input: () => certify({}, { ak: ak.privateKey.export({ format: 'jwk' }) as AttestationKeyInput }),
    check: 3,
  },
  { name: 'no AK', input: () => certify({}, { ak: null as unknown as KeyObject }), check: 3 },
  { name: 'an AK for HMAC', input: () => certify({}, { ak: { ...ak.parsed.publicJwk!, alg: 'HS256' } }), check: 3 },
  {
    name: 'an AK that is not on its curve',
    input: () =>
      certify({ ak: softwareAk({ unique: { x: new Uint8Array(32).fill(1), y: new Uint8Array(32).fill(1) } }) }),
    check: 3,
  },
  {
    name: 'an AK with the ROCA structure (CVE-2017-15361)',
    input: () => certify({}, { ak: rocaArea(0x00050472) }),
    check: 3,
  },
  {
    name: 'a certified key with the ROCA structure',
    input: () => certify({ name: parsePublic(rocaArea(0x00040472)).name }, { subject: rocaArea(0x00040472) }),
    check: 7,
  },
  { name: 'other extra data', input: () => certify({ extraData: new Uint8Array(32).fill(0xee) }), check: 5 },
  { name: 'shorter extra data', input: () => certify({ extraData: extraData.slice(1) }), check: 5 },
  { name: 'no extra data', input: () => certify({ extraData: none }), check: 5 },
  {
    name: 'no extra data, and none expected',
    input: () => certify({ extraData: none }, { extraData: none }),
    check: 5,
  },
  {
    name: 'extra data expected that is no bytes',
    input: () => certify({}, { extraData: '' as unknown as Uint8Array }),
    check: 5,
  },
  {
    name: 'extra data expected that is a text',
    input: () => certify({}, { extraData: 'x'.repeat(32) as unknown as Uint8Array }),
    check: 5,
  },
  { name: 'another key certified', input: () => certify({ name: softwareInstanceKey().parsed.name }), check: 6 },
  { name: 'the AK certified', input: () => certify({ name: ak.parsed.name }), check: 6 },
  { name: 'no Name certified', input: () => certify({ name: none }), check: 6 },
  { name: 'a handle certified', input: () => certify({ name: u32(0x81000001) }), check: 6 },
  { name: 'the digest without its algorithm', input: () => certify({ name: subject.parsed.name.slice(2) }), check: 6 },
  {
    name: 'the digest under another algorithm',
    input: () => certify({ name: concat(u16(0x000c), subject.parsed.name.slice(2)) }),
    check: 6,
  },
  {
    name: 'the same key, its public area told otherwise than the TPM has it',
    input: () => {
      const exportable = softwareInstanceKey({ attributes: 0x00040440 });
      const told = keyFromTemplate(instanceKeyTemplate('ES256'), { unique: exportable.parsed.unique } as object);
      return certify({ subject: exportable }, { subject: told.publicArea });
    },
    check: 6,
  },
  {
    name: 'a subject named by SHA-1',
    input: () => certify({ subject: softwareInstanceKey({ nameAlg: 'sha1' }) }),
    check: 6,
  },
  {
    name: 'a subject that is not on its curve',
    input: () =>
      certify({
        subject: softwareInstanceKey({ unique: { x: new Uint8Array(32).fill(1), y: new Uint8Array(32).fill(1) } }),
      }),
    check: 7,
  },
  {
    name: 'a subject that is an HMAC key',
    input: () => {
      const area = concat(
        u16(0x08),
        u16(0x0b),
        u32(0x00040472),
        sized(none),
        u16(0x05),
        u16(0x0b),
        sized(new Uint8Array(32)),
      );
      return certify({ name: parsePublic(area).name }, { subject: area });
    },
    check: 7,
  },
  {
    name: 'a subject without a public key',
    input: () => {
      const area = instanceKeyTemplate('ES256');
      return certify({ name: parsePublic(area).name }, { subject: area });
    },
    check: 7,
  },
];

describe('forged evidence is refused', () => {
  test.each(attacks)('TPM attestation $check: $name', async ({ input, check, code = 'tpm_refused' }) => {
    const sent = input();
    await expectRefusal(() => verifyCertify(sent), { code, rule: `TPM attestation ${check}` });
  });

  test.each(['attest', 'signature', 'ak', 'subject'] as const)('TPM attestation 1: %s cut anywhere', async (part) => {
    const input = certify();
    const bytes = input[part] as Uint8Array;
    for (let length = 0; length < bytes.length; length++) {
      const attempt = () => verifyCertify({ ...input, [part]: bytes.slice(0, length) });
      await expectRefusal(attempt, { code: 'tpm_malformed' });
    }
  });

  test('every bit of the signed structure counts', async () => {
    const input = certify();
    for (let bit = 0; bit < input.attest.length * 8; bit++) {
      const attest = new Uint8Array(input.attest);
      attest[bit >> 3]! ^= 1 << (bit & 7);
      const error = await expectRefusalOf(() => verifyCertify({ ...input, attest }));
      expect(['tpm_malformed', 'tpm_refused']).toContain(error);
    }
  });
});

describe('allowSha1', () => {
  const old = softwareAk({ scheme: { name: 'ecdsa', hash: 'sha1' }, nameAlg: 'sha1' });
  test('lets old hardware pass', () => {
    const named = softwareInstanceKey({ nameAlg: 'sha1' });
    expect(verifyCertify(certify({ ak: old, subject: named }, { allowSha1: true }))).toMatchObject({
      signatureHash: 'sha1',
    });
  });
  test('but not a hash that is not the AK scheme', async () => {
    const attempt = () => verifyCertify(certify({ scheme: sha1 }, { allowSha1: true }));
    await expectRefusal(attempt, { code: 'tpm_refused', rule: 'TPM attestation 4' });
  });
});

test('TPM attestation 3, TPM attestation 7: it is the ROCA structure that is refused', async () => {
  const byAk = await refusalOf(() => verifyCertify(certify({}, { ak: rocaArea(0x00050472) })));
  const name = parsePublic(rocaArea(0x00040472)).name;
  const bySubject = await refusalOf(() => verifyCertify(certify({ name }, { subject: rocaArea(0x00040472) })));
  expect([byAk.message, bySubject.message]).toEqual([expect.stringMatching(/ROCA/), expect.stringMatching(/ROCA/)]);
});

test('types that nobody verifies here are read and refused', async () => {
  const time = attestBytes({ type: 'time', extraData }, new Uint8Array(33));
  const attempt = () => verifyCertify({ ...certify(), ...signed(ak, time) });
  await expectRefusal(attempt, { code: 'tpm_refused', rule: 'TPM attestation 4' });
});

async function expectRefusalOf(attempt: () => unknown): Promise<string> {
  return (await refusalOf(attempt)).code;
}

/** A modulus as the flawed library made them: 65537^a modulo the product of small primes, times k, plus. Not factored here. */
function rocaArea(attributes: number): Uint8Array {
  const primes = [
    2n,
    3n,
    5n,
    7n,
    11n,
    13n,
    17n,
    19n,
    23n,
    29n,
    31n,
    37n,
    41n,
    43n,
    47n,
    53n,
    59n,
    61n,
    67n,
    71n,
    73n,
    79n,
    83n,
  ];
  const more = [89n, 97n, 101n, 103n, 107n, 109n, 113n, 127n, 131n, 137n, 139n, 149n, 151n, 157n, 163n, 167n];
  const product = [...primes, ...more].reduce((a, b) => a * b);
  const top = (1n << 2047n) / product + 12345n;
  const modulus = top * product + (65537n ** 17n % product);
  const unique = new Uint8Array(Buffer.from(modulus.toString(16), 'hex'));
  return keyFromTemplate(instanceKeyTemplate('RS256'), { attributes, unique } as object).publicArea;
}
