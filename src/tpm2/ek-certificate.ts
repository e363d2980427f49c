/** The certificate of an endorsement key: the maker's word that this key is in one of its TPMs (TCG EK Credential Profile). */
import { createPublicKey, type JsonWebKey, type KeyObject, X509Certificate } from 'node:crypto';
import { AsnConvert } from '@peculiar/asn1-schema';
import {
  AlgorithmIdentifier,
  AuthorityInfoAccessSyntax,
  id_ad_caIssuers,
  id_ce_basicConstraints,
  id_ce_certificatePolicies,
  id_pe_authorityInfoAccess,
  KeyUsageFlags,
  SubjectPublicKeyInfo,
} from '@peculiar/asn1-x509';
import { type EcJwk, type RsaJwk, sameKey } from '../core/jwk.ts';
import { AttestedError } from '../errors.ts';
import { allows, type ReadCertificate, readCertificate } from '../platform/certificates.ts';
import { chainToRoot, EK_PURPOSE } from './ek-chain.ts';
import { ekHash } from './ek-hash.ts';
import { type EkSubject, readEkSubject } from './ek-names.ts';
import type { EkQuirk } from './ek-quirks.ts';
import { parsePublic } from './public.ts';
import { refused, soundKey } from './refusal.ts';
import { malformed } from './wire.ts';

/** What an EK certificate says. Nothing of it is proved before {@link verifyEkCertificate}. */
export interface EkCertificate {
  publicKey: EcJwk | RsaJwk;
  /** SHA-256 of the key's SubjectPublicKeyInfo, base64url: what allow-lists and inventories name a TPM by. */
  ekHash: string;
  subject: EkSubject;
  /** The manufacturer in words, where its id is known. */
  manufacturerName?: string;
  /** Hexadecimal. */
  serial: string;
  /** Distinguished name, as text for people. */
  issuer: string;
  /** Milliseconds since the epoch. */
  notBefore: number;
  notAfter: number;
  /** Where the issuer's certificate is said to be (authority information access). Never fetched here. */
  issuerUrls: readonly string[];
  /** What was tolerated; `ekQuirks` has the meaning of each. */
  quirks: readonly EkQuirk[];
}

export interface VerifiedEkCertificate extends EkCertificate {
  /** DER, from the EK certificate (without padding) to the trusted certificate that ends the chain. */
  chain: readonly Uint8Array[];
}

export interface EkCertificateOptions {
  /** The certificates that are trusted, DER: of makers' roots, or of intermediates where no more is known. */
  roots: readonly Uint8Array[];
  /** Others that may be needed on the way, in any order, DER: at most 1024. They may come from the device. */
  intermediates?: readonly Uint8Array[];
  /** Milliseconds since the epoch. Default: now. */
  now?: number;
  /** TPMT_PUBLIC of the endorsement key in use, which must be the certified one. */
  ek?: Uint8Array;
}

const MAX_BYTES = 64 * 1024;
const MAX_INTERMEDIATES = 1024;
const CHECK = 2;

/**
 * Verifies an EK certificate, as read from the TPM's NV: that a trusted root vouches for it, that every certificate on the
 * way is in its validity, an authority within its path length, signed with SHA-2 and without critical extensions that are
 * not understood; that it is one of an endorsement key as far as it says; that the key is sound and not of the faulty library
 * of CVE-2017-15361 (ROCA); and that it is the key `ek`. Nothing is fetched: a missing intermediate has to be given, and
 * revocation is not looked up.
 *
 * What a certificate leaves out is tolerated and listed in `quirks`: a caller that needs it looks there. That the TPM at the
 * other end has the key is proved by activating a credential, not here.
 *
 * @throws AttestedError `tpm_malformed`, `tpm_refused`; `invalid_argument` for a root that is no certificate
 */
export function verifyEkCertificate(der: Uint8Array, options: EkCertificateOptions): VerifiedEkCertificate {
  return verifyEkCertificateUnder(readEkAnchors(options.roots), der, options);
}

/** Certificates of an operator's, read once: bundles of all makers have hundreds, and reading takes longer than verifying. */
export interface EkAnchors {
  roots: readonly X509Certificate[];
  intermediates: readonly X509Certificate[];
}

/** @throws AttestedError `invalid_argument` for what is no certificate in DER */
export function readEkAnchors(roots: readonly Uint8Array[], intermediates: readonly Uint8Array[] = []): EkAnchors {
  return { roots: trusted(roots), intermediates: trusted(intermediates) };
}

/** {@link verifyEkCertificate} with certificates that were read before. */
export function verifyEkCertificateUnder(
  anchors: EkAnchors,
  der: Uint8Array,
  { intermediates = [], now = Date.now(), ek }: Omit<EkCertificateOptions, 'roots'>,
): VerifiedEkCertificate {
  const { certificate, quirks } = read(der);
  const said = describe(certificate, quirks);
  const between = [...anchors.intermediates, ...usable(intermediates, quirks)];
  const chain = chainToRoot(certificate, between, anchors.roots, now);
  const anchor = (chain.at(-1) as ReadCertificate).x509;
  if (!anchor.checkIssued(anchor)) quirks.add('anchor-is-intermediate');
  checkPurpose(certificate, said.publicKey);
  if (ek !== undefined) {
    const { publicJwk } = parsePublic(ek);
    if (publicJwk === undefined || !sameKey(publicJwk, said.publicKey)) {
      throw refused(CHECK, 'the endorsement key in use is not the one in the EK certificate');
    }
  }
  return { ...said, quirks: [...quirks], chain: chain.map(({ x509 }) => new Uint8Array(x509.raw)) };
}

/**
 * Reads an EK certificate without a judgement on who issued it, to be shown or to learn where its issuer's certificate is.
 * @throws AttestedError `tpm_malformed`, and `tpm_refused` for a key that is weak or of an unsupported kind
 */
export function readEkCertificate(der: Uint8Array): EkCertificate {
  const { certificate, quirks } = read(der);
  const said = describe(certificate, quirks);
  return { ...said, quirks: [...quirks] };
}

type Quirks = Set<EkQuirk>;

function describe(certificate: ReadCertificate, quirks: Quirks): Omit<EkCertificate, 'quirks'> {
  const { x509 } = certificate;
  const publicKey = readKey(certificate, quirks);
  noteOmissions(certificate, quirks);
  return {
    publicKey,
    ekHash: ekHash(publicKey),
    ...readEkSubject(certificate, (quirk) => quirks.add(quirk)),
    serial: x509.serialNumber,
    issuer: x509.issuer.replaceAll('\n', ', '),
    notBefore: x509.validFromDate.getTime(),
    notAfter: x509.validToDate.getTime(),
    issuerUrls: issuerUrls(certificate),
  };
}

function read(der: Uint8Array): { certificate: ReadCertificate; quirks: Quirks } {
  const quirks: Quirks = new Set();
  const exact = withoutPadding(der);
  if (exact.length !== der.length) quirks.add('padding');
  const certificate = readCertificate(exact);
  if (certificate === undefined) throw malformed('EK certificate', 'is no X.509 certificate');
  return { certificate, quirks };
}

/** NV indices are often larger than the certificate in them, and filled up with 0xFF, 0x00 or (Nuvoton) 0x11. */
function withoutPadding(der: Uint8Array): Uint8Array {
  if (!(der instanceof Uint8Array)) throw malformed('EK certificate', 'not given as bytes');
  if (der.length > MAX_BYTES) throw malformed('EK certificate', 'longer than any certificate');
  // a SEQUENCE whose length takes two bytes; certificates are never shorter than 256 bytes or longer than 64 KiB
  const [tag, form, high = 0, low = 0] = der;
  const end = 4 + high * 256 + low;
  if (tag !== 0x30 || form !== 0x82 || end > der.length) throw malformed('EK certificate', 'is no X.509 certificate');
  const rest = der.subarray(end);
  if (!rest.every((byte) => byte === rest[0])) {
    throw malformed('EK certificate', 'is followed by something other than padding');
  }
  return new Uint8Array(der.subarray(0, end)); // a copy: nobody changes it between two readings
}

function trusted(roots: readonly Uint8Array[]): X509Certificate[] {
  if (!Array.isArray(roots)) throw new AttestedError('invalid_argument', 'verifyEkCertificate takes a list of roots');
  try {
    return roots.map((root) => new X509Certificate(root));
  } catch {
    throw new AttestedError('invalid_argument', 'a root is not a certificate in DER');
  }
}

/** A chain in NV may hold anything; only what is needed and fits is used. */
function usable(intermediates: readonly Uint8Array[], quirks: Quirks): X509Certificate[] {
  if (intermediates.length > MAX_INTERMEDIATES) throw malformed('EK certificate', 'comes with too many intermediates');
  return intermediates.flatMap((der) => {
    try {
      return [new X509Certificate(withoutPadding(der))];
    } catch {
      quirks.add('unreadable-intermediate');
      return [];
    }
  });
}

const RSA_OAEP = '1.2.840.113549.1.1.7';
const RSA = '1.2.840.113549.1.1.1';
const NULL = new Uint8Array([5, 0]).buffer;

function readKey({ x509, tbs }: ReadCertificate, quirks: Quirks): EcJwk | RsaJwk {
  const { algorithm, subjectPublicKey } = tbs.subjectPublicKeyInfo;
  let jwk: JsonWebKey;
  try {
    let key: KeyObject;
    if (algorithm.algorithm === RSA_OAEP) {
      // the same key, under a name that OpenSSL does not read
      const renamed = new SubjectPublicKeyInfo({
        algorithm: new AlgorithmIdentifier({ algorithm: RSA, parameters: NULL }),
        subjectPublicKey,
      });
      key = createPublicKey({ key: Buffer.from(AsnConvert.serialize(renamed)), format: 'der', type: 'spki' });
      quirks.add('rsa-oaep-key');
    } else {
      key = x509.publicKey;
    }
    jwk = key.export({ format: 'jwk' });
  } catch {
    throw malformed('EK certificate', 'has a key that cannot be read');
  }
  const key = soundKey(jwk, CHECK).jwk;
  if (key.kty === 'OKP') throw refused(CHECK, 'no endorsement key is of that type');
  return key;
}

/** What the key may be used for in a certificate of an endorsement key: it decrypts, or agrees on keys. */
const USAGE = { RSA: KeyUsageFlags.keyEncipherment, EC: KeyUsageFlags.keyAgreement } as const;

/** Every statement that is there must fit. */
function checkPurpose(certificate: ReadCertificate, key: EcJwk | RsaJwk): void {
  if (certificate.purposes?.includes(EK_PURPOSE) === false) {
    throw refused(CHECK, 'the certificate is for other purposes than an endorsement key');
  }
  if (!allows(certificate, USAGE[key.kty]))
    throw refused(CHECK, 'the certificate forbids what an endorsement key does');
}

function noteOmissions(certificate: ReadCertificate, quirks: Quirks): void {
  const constraints = certificate.extension(id_ce_basicConstraints);
  if (constraints === undefined) quirks.add('no-basic-constraints');
  // DER says no by an empty SEQUENCE
  else if (!certificate.isCa && constraints.byteLength > 2) quirks.add('explicit-ca-false');
  if (certificate.keyUsage === undefined) quirks.add('no-key-usage');
  if (certificate.purposes === undefined) quirks.add('no-eku');
  if (certificate.critical.includes(id_ce_certificatePolicies)) quirks.add('critical-policies');
}

function issuerUrls(certificate: ReadCertificate): string[] {
  const der = certificate.extension(id_pe_authorityInfoAccess);
  if (der === undefined) return [];
  try {
    return [...AsnConvert.parse(der, AuthorityInfoAccessSyntax)]
      .filter(({ accessMethod }) => accessMethod === id_ad_caIssuers)
      .flatMap(({ accessLocation }) => accessLocation.uniformResourceIdentifier ?? []);
  } catch {
    return []; // nothing depends on them
  }
}
