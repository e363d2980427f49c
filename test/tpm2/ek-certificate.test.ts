import { createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { KeyUsageFlags } from '@peculiar/asn1-x509';
import {
  type EkCertificateOptions,
  type EkQuirk,
  ekHash,
  ekQuirks,
  encodePublic,
  parsePublic,
  readEkCertificate,
  verifyEkCertificate,
} from 'attested/tpm2';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { AttestedError, type ErrorCode } from '../../src/errors.ts';
import { ekTemplate } from '../../src/tpm2/index.ts';
import { CA_USAGE, type Issued, issueCertificate } from '../support/certificates.ts';
import {
  attributesOf,
  ecKeys,
  extensionOf,
  issueEk,
  makerAuthority,
  makerRoot,
  oaepSpki,
  rsaKeys,
  sanExtension,
  sanOf,
  tlv,
  tpmAttribute,
  usualSan,
} from '../support/ek-certificates.ts';
import { expectRefusal } from '../support/errors.ts';
import { forbiddenFetch } from '../support/http.ts';
import { rocaModulus, rsaJwk } from '../support/keys.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';

const usual = { roots: [makerRoot.der], intermediates: [makerAuthority.der] };
const verify = (ek: Issued | Uint8Array, options: Partial<EkCertificateOptions> = {}) =>
  verifyEkCertificate(ek instanceof Uint8Array ? ek : ek.der, { ...usual, ...options });

const rsaEk = issueEk();
const ecEk = issueEk({ keys: ecKeys, usage: KeyUsageFlags.keyAgreement });
const authorityUnder = (issuer: Issued, changes: object = {}) =>
  issueCertificate({ name: 'authority', issuer, ca: true, usage: CA_USAGE, ...changes });
const oid = (...content: number[]) => tlv(0x06, Buffer.from(content));

describe('a certificate as the profile wants it', () => {
  it('tells the key, the TPM, the issuer and the way to the root', () => {
    const { der, publicKey } = { der: rsaEk.der, publicKey: rsaKeys.publicKey.export({ format: 'jwk' }) };
    expect(verify(rsaEk)).toEqual({
      publicKey,
      ekHash: ekHash(publicKey as never),
      subject: { manufacturer: 'id:494E5443', model: 'model', version: 'id:00010002' },
      manufacturerName: 'Intel',
      serial: new X509Certificate(der).serialNumber,
      issuer: 'CN=maker authority',
      notBefore: Date.UTC(2020, 0),
      notAfter: Date.UTC(2045, 0),
      issuerUrls: [],
      quirks: ['critical-san'],
      chain: [der, makerAuthority.der, makerRoot.der].map((one) => new Uint8Array(one)),
    });
  });

  it('may have a key on P-256, P-384 or P-521', () => {
    for (const namedCurve of ['P-256', 'P-384', 'P-521']) {
      const keys = generateKeyPairSync('ec', { namedCurve });
      const { publicKey } = verify(issueEk({ keys, usage: KeyUsageFlags.keyAgreement }));
      expect(publicKey).toEqual(keys.publicKey.export({ format: 'jwk' }));
    }
  });

  it.each([
    ['id:494E5443', 'id:494E5443', 'Intel'],
    ['id:494e5443', 'id:494E5443', 'Intel'],
    ['ID:494e5443', 'id:494E5443', 'Intel'],
    ['INTC', 'id:494E5443', 'Intel'],
    ['id:49465800', 'id:49465800', 'Infineon'],
    ['IFX', 'id:49465800', 'Infineon'],
    ['id:53544D20', 'id:53544D20', 'STMicroelectronics'],
    ['id:4E544300', 'id:4E544300', 'Nuvoton'],
    ['id:414D4400', 'id:414D4400', 'AMD'],
    ['id:4E534D20', 'id:4E534D20', 'National Semiconductor'],
    ['id:41544D4C', 'id:41544D4C', 'Atmel (Microchip)'],
    ['id:4D534654', 'id:4D534654', 'Microsoft'],
    ['id:474F4F47', 'id:474F4F47', 'Google'],
    ['id:00001014', 'id:00001014', 'swtpm (libtpms)'],
    ['id:5A5A5A5A', 'id:5A5A5A5A', undefined],
    ['id:1', 'id:1', undefined],
    ['a maker with a long name', 'a maker with a long name', undefined],
  ])('manufacturer %s is %s: %s', (written, manufacturer, name) => {
    const san = sanExtension(sanOf(...attributesOf(written).map((one) => [one])));
    const { subject, manufacturerName, quirks } = verify(issueEk({ more: [san] }));
    expect({ manufacturer: subject.manufacturer, name: manufacturerName }).toEqual({ manufacturer, name });
    expect(quirks.includes('manufacturer-form')).toBe(written !== manufacturer);
  });

  it('has one hash, with and without the certificate, however the key is written', () => {
    const jwk = rsaKeys.publicKey.export({ format: 'jwk' }) as never;
    expect(verify(issueEk({ spki: oaepSpki(rsaKeys.publicKey) })).ekHash).toBe(verify(rsaEk).ekHash);
    expect(ekHash(parsePublic(ekPublicOf(rsaKeys.publicKey)).publicJwk as never)).toBe(verify(rsaEk).ekHash);
    expect(ekHash(jwk)).not.toBe(verify(ecEk).ekHash);
  });

  it('says where its issuer is found, and nobody goes there', async () => {
    const url = 'http://maker.example/authority.cer';
    const aia = tlv(0x30, tlv(0x30, oid(0x2b, 6, 1, 5, 5, 7, 48, 2), tlv(0x86, Buffer.from(url))));
    const ek = issueEk({ more: [usualSan(), extensionOf('1.3.6.1.5.5.7.1.1', aia)] });
    const fetch = forbiddenFetch();
    vi.stubGlobal('fetch', fetch);
    try {
      expect(readEkCertificate(ek.der).issuerUrls).toEqual([url]);
      await expectRefusal(() => verify(ek, { intermediates: [] }), { code: 'tpm_refused' });
      expect(fetch.calls).toEqual([]);
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it('is read without a judgement on its issuer', () => {
    const { chain, ...said } = verify(rsaEk);
    expect(readEkCertificate(rsaEk.der)).toEqual(said);
    expect(chain).toHaveLength(3);
  });
});

describe('quirks of real certificates are lived with, and named', () => {
  const [manufacturer, model, version] = attributesOf() as [Buffer, Buffer, Buffer];
  const sorted = [manufacturer, model, version].sort(Buffer.compare);
  const rows: {
    name: string;
    ek: () => Issued | Uint8Array;
    quirks: EkQuirk[];
    options?: Partial<EkCertificateOptions>;
  }[] = [
    { name: 'a critical SAN of a directory name alone', ek: () => rsaEk, quirks: ['critical-san'] },
    {
      name: 'a SAN that is not critical',
      ek: () => issueEk({ more: [sanExtension(sanOf([manufacturer], [model], [version]), false)] }),
      quirks: [],
    },
    {
      name: 'all attributes in one relative distinguished name',
      ek: () => issueEk({ more: [sanExtension(sanOf(sorted))] }),
      quirks: ['critical-san', 'multi-valued-rdn'],
    },
    {
      name: 'a SET OF in the wrong order',
      ek: () => issueEk({ more: [sanExtension(sanOf(sorted.toReversed()))] }),
      quirks: ['critical-san', 'multi-valued-rdn', 'unordered-set'],
    },
    {
      name: 'other names before the directory name',
      ek: () =>
        issueEk({
          more: [sanExtension(tlv(0x30, tlv(0x82, Buffer.from('tpm.example')), sanOf([manufacturer]).subarray(2)))],
        }),
      quirks: ['critical-san'],
    },
    { name: 'no SAN', ek: () => issueEk({ more: [] }), quirks: ['no-san'] },
    { name: 'no EKU', ek: () => issueEk({ purposes: undefined }), quirks: ['no-eku', 'critical-san'] },
    {
      name: 'neither SAN nor EKU nor key usage nor basic constraints',
      ek: () => issueEk({ more: [], purposes: undefined, usage: undefined, ca: undefined }),
      quirks: ['no-basic-constraints', 'no-key-usage', 'no-eku', 'no-san'],
    },
    {
      name: 'an explicit cA FALSE',
      ek: () =>
        issueEk({ ca: undefined, more: [usualSan(), extensionOf('2.5.29.19', tlv(0x30, Buffer.of(1, 1, 0)), true)] }),
      quirks: ['explicit-ca-false', 'critical-san'],
    },
    {
      name: 'a key named for RSAES-OAEP',
      ek: () => issueEk({ spki: oaepSpki(rsaKeys.publicKey) }),
      quirks: ['rsa-oaep-key', 'critical-san'],
    },
    {
      name: 'certificate policies that are critical',
      ek: () =>
        issueEk({ more: [usualSan(), extensionOf('2.5.29.32', tlv(0x30, tlv(0x30, oid(0x55, 0x1d, 0x20, 0))), true)] }),
      quirks: ['critical-policies', 'critical-san'],
    },
    {
      name: 'padding of 0xFF',
      ek: () => Buffer.concat([rsaEk.der, Buffer.alloc(700, 0xff)]),
      quirks: ['padding', 'critical-san'],
    },
    {
      name: 'padding of 0x00',
      ek: () => Buffer.concat([rsaEk.der, Buffer.alloc(1)]),
      quirks: ['padding', 'critical-san'],
    },
    {
      name: 'padding of 0x11',
      ek: () => Buffer.concat([rsaEk.der, Buffer.alloc(192, 0x11)]),
      quirks: ['padding', 'critical-san'],
    },
    {
      name: 'a manufacturer in lower case',
      ek: () => issueEk({ more: [sanExtension(sanOf([tpmAttribute(1, 'id:494e5443')]), false)] }),
      quirks: ['manufacturer-form'],
    },
    {
      name: 'only the intermediate known',
      ek: () => rsaEk,
      options: { roots: [makerAuthority.der], intermediates: [] },
      quirks: ['critical-san', 'anchor-is-intermediate'],
    },
    {
      name: 'a chain in NV with padding, junk and strangers',
      ek: () => rsaEk,
      options: {
        intermediates: [
          Buffer.from('junk'),
          rsaEk.der,
          makerRoot.der,
          Buffer.concat([makerAuthority.der, Buffer.alloc(9, 0xff)]),
        ],
      },
      quirks: ['critical-san', 'unreadable-intermediate'],
    },
  ];

  it.each(rows)('$name', ({ ek, quirks, options }) => {
    const result = verify(ek(), options);
    expect([...result.quirks].sort()).toEqual([...quirks].sort());
    expect(result.publicKey).toEqual(rsaKeys.publicKey.export({ format: 'jwk' }));
  });

  it('each quirk has its words, and its row here', () => {
    expect([...new Set(rows.flatMap(({ quirks }) => quirks))].sort()).toEqual(Object.keys(ekQuirks).sort());
  });
});

describe('chains', () => {
  const rsaRoot = issueCertificate({
    name: 'RSA root',
    ca: true,
    usage: CA_USAGE,
    keys: generateKeyPairSync('rsa', { modulusLength: 3072 }),
  });

  it.each([
    { name: 'PKCS #1 with SHA-256', issuer: rsaRoot, how: { hash: 'sha256' } },
    { name: 'PKCS #1 with SHA-384', issuer: rsaRoot, how: { hash: 'sha384' } },
    { name: 'PKCS #1 with SHA-512', issuer: rsaRoot, how: { hash: 'sha512' } },
    { name: 'PSS with SHA-256', issuer: rsaRoot, how: { pss: true } },
    { name: 'ECDSA with SHA-256', issuer: makerRoot, how: { hash: 'sha256' } },
    { name: 'ECDSA with SHA-384', issuer: makerRoot, how: { hash: 'sha384' } },
    { name: 'ECDSA with SHA-512', issuer: makerRoot, how: { hash: 'sha512' } },
  ] as const)('are signed by $name', ({ issuer, how }) => {
    expect(verify(issueEk({ issuer, ...how }), { roots: [issuer.der] }).chain).toHaveLength(2);
  });

  it('end at a root whose own signature is by SHA-1, which nobody relies on', () => {
    const root = issueCertificate({ name: 'old root', ca: true, usage: CA_USAGE, hash: 'sha1' });
    expect(verify(issueEk({ issuer: root }), { roots: [root.der] }).chain).toHaveLength(2);
  });

  it('are found among certificates in any order, and among issuers of one name', () => {
    const middle = authorityUnder(makerRoot, { name: 'middle' });
    const lower = authorityUnder(middle, { name: 'lower' });
    const [namesakes, expired] = [
      Array.from({ length: 5 }, () => authorityUnder(makerRoot, { name: 'lower' }).der),
      authorityUnder(makerRoot, { name: 'middle', notAfter: new Date('2021-01-01') }).der,
    ];
    const ek = issueEk({ issuer: lower });
    const { chain } = verify(ek, { intermediates: [...namesakes, makerAuthority.der, lower.der, expired, middle.der] });
    expect(chain.map((der) => new X509Certificate(der).subject)).toEqual([
      'CN=TPM',
      'CN=lower',
      'CN=middle',
      'CN=maker root',
    ]);
  });

  it('of many intermediates that all could have issued each other end soon', async () => {
    // one key and one name: every one of them is an issuer of every other
    const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const first = issueCertificate({ name: 'loop', ca: true, usage: CA_USAGE, keys });
    const loop = Array.from(
      { length: 64 },
      () => issueCertificate({ name: 'loop', ca: true, usage: CA_USAGE, keys, issuer: first }).der,
    );
    const startedAt = performance.now();
    await expectRefusal(() => verify(issueEk({ issuer: first }), { intermediates: loop }), { code: 'tpm_refused' });
    expect(performance.now() - startedAt).toBeLessThan(2000);
  });

  it('are found among as many intermediates as all makers together have', () => {
    const strangers = Array.from({ length: 8 }, (_, i) => authorityUnder(makerRoot, { name: `stranger ${i}` }).der);
    const bundle = Array.from({ length: 1023 }, (_, i) => strangers[i % 8] as Buffer);
    expect(verify(rsaEk, { intermediates: [...bundle, makerAuthority.der] }).chain).toHaveLength(3);
  });

  it('have at most six certificates', async () => {
    const authorities = [makerRoot];
    for (let i = 1; i < 6; i++) authorities.push(authorityUnder(authorities.at(-1) as Issued, { name: `level ${i}` }));
    const intermediates = authorities.slice(1).map(({ der }) => der);
    expect(verify(issueEk({ issuer: authorities[4] }), { intermediates }).chain).toHaveLength(6);
    await expectRefusal(() => verify(issueEk({ issuer: authorities[5] }), { intermediates }), { code: 'tpm_refused' });
  });
});

describe('refused', () => {
  const stranger = issueCertificate({ name: 'maker root', ca: true, usage: CA_USAGE });
  const weak = issueCertificate({
    name: 'weak',
    ca: true,
    usage: CA_USAGE,
    keys: generateKeyPairSync('rsa', { modulusLength: 1024 }),
  });
  const strong = issueCertificate({ name: 'RSA', ca: true, usage: CA_USAGE, keys: rsaKeys });
  const signOnly = KeyUsageFlags.digitalSignature;
  const expired = issueCertificate({ name: 'expired', ca: true, usage: CA_USAGE, notAfter: new Date('2021-01-01') });
  const under = (changes: object, leaf: object = {}) => {
    const authority = authorityUnder(makerRoot, changes);
    return { ek: issueEk({ issuer: authority, ...leaf }), options: { intermediates: [authority.der] } };
  };
  const roca = createPublicKey({ key: rsaJwk(rocaModulus()), format: 'jwk' });
  const spkiOf = (key: KeyObject) => key.export({ type: 'spki', format: 'der' });

  const rows: {
    name: string;
    /** Of the message: the right reason. */
    says: string;
    ek: Issued | Uint8Array;
    options?: Partial<EkCertificateOptions>;
    code?: ErrorCode;
  }[] = [
    { name: 'no root', says: 'lead', ek: rsaEk, options: { roots: [] } },
    { name: 'a root of the same name with another key', says: 'lead', ek: rsaEk, options: { roots: [stranger.der] } },
    { name: 'an intermediate that is missing', says: 'lead', ek: rsaEk, options: { intermediates: [] } },
    { name: 'a certificate that signs itself', says: 'lead', ek: issueEk({ issuer: undefined, usage: undefined }) },
    { name: 'a certificate that is its own root', says: 'lead', ek: rsaEk, options: { roots: [rsaEk.der] } },
    { name: 'a certificate of an authority', says: 'is that of a certificate authority', ek: issueEk({ ca: true }) },
    { name: 'one that is expired', says: 'validity', ek: issueEk({ notAfter: new Date('2021-01-01') }) },
    { name: 'one that is not yet valid', says: 'validity', ek: issueEk({ notBefore: new Date('2044-01-01') }) },
    {
      name: 'a root that is expired',
      says: 'validity',
      ek: issueEk({ issuer: expired }),
      options: { roots: [expired.der] },
    },
    { name: 'everything expired', says: 'validity', ek: rsaEk, options: { now: Date.UTC(2045, 0) + 1000 } },
    { name: 'a time that is none', says: 'validity', ek: rsaEk, options: { now: Number.NaN } },
    { name: 'an intermediate that is expired', says: 'validity', ...under({ notAfter: new Date('2021-01-01') }) },
    { name: 'an intermediate that is no authority', says: 'not a certificate authority', ...under({ ca: false }) },
    {
      name: 'an intermediate without basic constraints',
      says: 'not a certificate authority',
      ...under({ ca: undefined }),
    },
    { name: 'an intermediate that may not sign certificates', says: 'lead', ...under({ usage: signOnly }) },
    { name: 'an intermediate for TLS servers', says: 'other purposes', ...under({ purposes: ['1.3.6.1.5.5.7.3.1'] }) },
    {
      name: 'an intermediate with a critical extension of its own',
      says: 'critical',
      ...under({ critical: '1.2.3.4.5' }),
    },
    {
      name: 'an intermediate with critical name constraints',
      says: 'critical',
      ...under({ more: [extensionOf('2.5.29.30', tlv(0x30), true)] }),
    },
    {
      name: 'an intermediate with critical policy constraints',
      says: 'critical',
      ...under({ more: [extensionOf('2.5.29.36', tlv(0x30), true)] }),
    },
    (() => {
      const below = authorityUnder(makerAuthority, { name: 'below' });
      return {
        name: 'a chain longer than an authority allows',
        says: 'longer',
        ek: issueEk({ issuer: below }),
        options: { intermediates: [makerAuthority.der, below.der] },
      };
    })(),
    { name: 'SHA-1 on the certificate', says: 'weak algorithm', ek: issueEk({ hash: 'sha1' }) },
    { name: 'SHA-1 on an intermediate', says: 'weak algorithm', ...under({ hash: 'sha1' }) },
    {
      name: 'PSS with SHA-1',
      says: 'weak algorithm',
      ek: issueEk({ issuer: strong, pss: true, hash: 'sha1' }),
      options: { roots: [strong.der] },
    },
    {
      name: 'an issuer with a key of 1024 bits',
      says: 'weak or unsupported key',
      ek: issueEk({ issuer: weak }),
      options: { roots: [weak.der] },
    },
    { name: 'a signature that was altered', says: 'lead', ek: altered(rsaEk.der) },
    { name: 'an EKU of something else', says: 'other purposes', ek: issueEk({ purposes: ['1.3.6.1.5.5.7.3.1'] }) },
    { name: 'the EKU of an attestation key', says: 'other purposes', ek: issueEk({ purposes: ['2.23.133.8.3'] }) },
    { name: 'an EKU of anything', says: 'other purposes', ek: issueEk({ purposes: ['2.5.29.37.0'] }) },
    { name: 'an RSA key that may not encipher keys', says: 'forbids', ek: issueEk({ usage: signOnly }) },
    {
      name: 'an EC key that may not agree on keys',
      says: 'forbids',
      ek: issueEk({ keys: ecKeys, usage: KeyUsageFlags.keyEncipherment }),
    },
    { name: 'a critical extension that nobody knows', says: 'critical', ek: issueEk({ critical: '1.2.3.4.5' }) },
    {
      name: 'a key of 1024 bits',
      says: '2048',
      ek: issueEk({ keys: generateKeyPairSync('rsa', { modulusLength: 1024 }) }),
    },
    { name: 'an Ed25519 key', says: 'type', ek: issueEk({ keys: generateKeyPairSync('ed25519'), usage: undefined }) },
    { name: 'a key of CVE-2017-15361', says: 'ROCA', ek: issueEk({ spki: spkiOf(roca) }) },
    {
      name: 'a key of CVE-2017-15361 for OAEP',
      says: 'ROCA',
      ek: issueEk({ spki: oaepSpki(roca) }),
    },
    {
      name: 'another endorsement key in use',
      says: 'in use',
      ek: rsaEk,
      options: { ek: ekPublicOf(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey) },
    },
    {
      name: 'an endorsement key of another kind in use',
      says: 'in use',
      ek: rsaEk,
      options: { ek: ekPublicOf(ecKeys.publicKey) },
    },
    {
      name: 'a template for the endorsement key in use',
      says: 'in use',
      ek: rsaEk,
      options: { ek: ekTemplate('RSA-2048') },
    },

    {
      name: 'bytes for the endorsement key that are none',
      says: 'TPMT_PUBLIC',
      ek: rsaEk,
      options: { ek: new Uint8Array(9) },
      code: 'tpm_malformed',
    },
    {
      name: 'a DSA key',
      says: 'key that cannot be read',
      ek: issueEk({ keys: generateKeyPairSync('dsa', { modulusLength: 2048, divisorLength: 256 }) }),
      code: 'tpm_malformed',
    },
    {
      name: 'an extension twice',
      says: 'no X.509',
      ek: issueEk({ more: [usualSan(), usualSan()] }),
      code: 'tpm_malformed',
    },
    {
      name: 'two manufacturers',
      says: 'twice',
      ek: issueEk({ more: [sanExtension(sanOf([tpmAttribute(1, 'INTC')], [tpmAttribute(1, 'AMD')]))] }),
      code: 'tpm_malformed',
    },
    {
      name: 'a model of a kilobyte',
      says: 'too long',
      ek: issueEk({ more: [sanExtension(sanOf([tpmAttribute(2, 'm'.repeat(1024))]))] }),
      code: 'tpm_malformed',
    },
    {
      name: 'a SAN that is none',
      says: 'alternative name',
      ek: issueEk({ more: [sanExtension(Buffer.of(5, 0))] }),
      code: 'tpm_malformed',
    },
    { name: 'nothing', says: 'no X.509', ek: new Uint8Array(), code: 'tpm_malformed' },
    { name: 'PEM', says: 'no X.509', ek: Buffer.from(rsaEk.pem), code: 'tpm_malformed' },
    { name: 'one byte too few', says: 'no X.509', ek: rsaEk.der.subarray(0, -1), code: 'tpm_malformed' },
    {
      name: 'another certificate after it',
      says: 'padding',
      ek: Buffer.concat([rsaEk.der, ecEk.der]),
      code: 'tpm_malformed',
    },
    {
      name: 'more than 64 KiB',
      says: 'longer than any',
      ek: Buffer.concat([rsaEk.der, Buffer.alloc(64 * 1024)]),
      code: 'tpm_malformed',
    },
    { name: 'a tower of sequences', says: 'no X.509', ek: tower(60_000), code: 'tpm_malformed' },
    {
      name: '1025 intermediates',
      says: 'too many',
      ek: rsaEk,
      options: { intermediates: Array(1025).fill(makerAuthority.der) },
      code: 'tpm_malformed',
    },
    {
      name: 'a root that is no certificate',
      says: 'a root',
      ek: rsaEk,
      options: { roots: [new Uint8Array(3)] },
      code: 'invalid_argument',
    },
    {
      name: 'roots that are no list',
      says: 'list of roots',
      ek: rsaEk,
      options: { roots: makerRoot.der as never },
      code: 'invalid_argument',
    },
  ];

  it.each(rows)('$name', async ({ ek, says, options, code = 'tpm_refused' }) => {
    const { message } = await expectRefusal(() => verify(ek, options), {
      code,
      ...(code === 'tpm_refused' && { rule: 'TPM attestation 2' }),
    });
    expect(message).toContain(says);
  });

  it('not what has none of these faults', () => {
    const { ek, options } = under({});
    expect(verify(ek, options).chain).toHaveLength(3);
    expect(verify(rsaEk, { ek: ekPublicOf(rsaKeys.publicKey) }).publicKey).toEqual(verify(rsaEk).publicKey);
    expect(verify(issueEk({ issuer: strong, pss: true }), { roots: [strong.der] }).chain).toHaveLength(2);
  });
});

describe('whatever the bytes', () => {
  it('an AttestedError or a certificate, and that only with nothing changed but the padding', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 400 }),
      fc
        .record({
          at: fc.nat(rsaEk.der.length - 1),
          value: fc.nat(255),
          removed: fc.nat(3),
          inserted: fc.uint8Array({ maxLength: 3 }),
        })
        .map(({ at, value, removed, inserted }) => {
          const changed = Buffer.from(rsaEk.der);
          changed[at] = value;
          return Buffer.concat([changed.subarray(0, at + 1), inserted, changed.subarray(at + 1 + removed)]);
        }),
    );
    fc.assert(
      fc.property(bytes, (der) => {
        let chain: readonly Uint8Array[];
        try {
          ({ chain } = verify(der));
        } catch (error) {
          expect(error).toBeInstanceOf(AttestedError);
          expect((error as AttestedError).code).toMatch(/^tpm_(malformed|refused)$/);
          return;
        }
        expect(chain[0]).toEqual(new Uint8Array(rsaEk.der));
      }),
      { numRuns: 600 },
    );
  });
});

/** The last bit turned. */
function altered(der: Buffer): Buffer {
  return Buffer.concat([der.subarray(0, -1), Buffer.of((der.at(-1) as number) ^ 1)]);
}

/** Sequences within sequences, as many as fit. */
function tower(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4)
    bytes.set([0x30, 0x82, (length - at - 4) >> 8, (length - at - 4) & 0xff], at);
  return bytes;
}

/** The public area that a TPM would have for this key. */
function ekPublicOf(key: KeyObject): Uint8Array {
  const { n, x, y } = key.export({ format: 'jwk' });
  const bytes = (text = '') => new Uint8Array(Buffer.from(text, 'base64url'));
  const area =
    n === undefined
      ? { ...parsePublic(ekTemplate('P-384')), unique: { x: bytes(x), y: bytes(y) } }
      : { ...parsePublic(ekTemplate('RSA-2048')), unique: bytes(n) };
  return encodePublic(area as never);
}

describe.skipIf(skipTpm)('of a TPM', () => {
  let tpm: Swtpm;
  let other: Swtpm;
  beforeAll(async () => {
    [tpm, other] = [await startSwtpm(), await startSwtpm({ maker: 'another' })];
  }, 60_000);
  afterAll(async () => {
    await tpm.stop();
    await other.stop();
  });

  async function fromNv(index: string): Promise<Uint8Array> {
    await tpm.tools('tpm2_nvread', '-C', 'o', index, '-o', 'ek.der');
    return new Uint8Array(readFileSync(join(tpm.directory, 'ek.der')));
  }

  /** TPM2B_PUBLIC. */
  async function publicOf(command: string, ...args: string[]): Promise<Uint8Array> {
    await tpm.tools(command, ...args, 'ek.pub');
    return new Uint8Array(readFileSync(join(tpm.directory, 'ek.pub')));
  }

  it.each([
    ['RSA-2048', '0x01c00002', ['tpm2_readpublic', '-Q', '-c', '0x81010001', '-o']],
    ['P-384', '0x01c00016', ['tpm2_readpublic', '-Q', '-c', '0x81010016', '-o']],
    ['P-256', '0x01c0000a', ['tpm2_createek', '-Q', '-G', 'ecc', '-c', 'ek.ctx', '-u']],
  ] as const)('%s: chain of the maker, key of the TPM', async (_, index, [command, ...args]) => {
    const der = await fromNv(index);
    const ek = await publicOf(command, ...args);
    const { root, issuer } = tpm.roots;
    const result = verifyEkCertificate(der, { roots: [root], intermediates: [issuer], ek });
    expect(result).toMatchObject({
      publicKey: parsePublic(ek).publicJwk,
      subject: { manufacturer: 'id:00001014', model: 'swtpm', version: 'id:20191023' },
      manufacturerName: 'swtpm (libtpms)',
      quirks: ['critical-san'],
    });
    expect(result.chain).toHaveLength(3);
    expect(verifyEkCertificate(der, { roots: [issuer], ek }).quirks).toContain('anchor-is-intermediate');
    const foreign = { roots: [other.roots.root, other.roots.issuer], intermediates: [issuer] };
    await expectRefusal(() => verifyEkCertificate(der, foreign), { code: 'tpm_refused' });
    const another = ekPublicOf(rsaKeys.publicKey);
    await expectRefusal(() => verifyEkCertificate(der, { roots: [issuer], ek: another }), { code: 'tpm_refused' });
  });
});
