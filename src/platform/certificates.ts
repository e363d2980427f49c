/**
 * X.509 certificates: what trust decisions read of them, and the rules of a chain that no caller may leave out (RFC 5280).
 * OpenSSL answers for names, dates, keys and signatures, the ASN.1 library for extensions. The system's own store plays no part.
 */
import { X509Certificate } from 'node:crypto';
import { AsnConvert, AsnProp, AsnPropTypes } from '@peculiar/asn1-schema';
import {
  AlgorithmIdentifier,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  KeyUsage,
  KeyUsageFlags,
  type TBSCertificate,
} from '@peculiar/asn1-x509';

export interface ReadCertificate {
  x509: X509Certificate;
  tbs: TBSCertificate;
  isCa: boolean;
  /** CA certificates that may follow below this one. */
  pathLength: number;
  /** Bits of {@link KeyUsageFlags}. Absent: every usage. */
  keyUsage: number | undefined;
  /** Object identifiers of its extended key usages. Absent: good for everything. */
  purposes: readonly string[] | undefined;
  /** Object identifiers of its critical extensions. */
  critical: readonly string[];
  /** The signature on it is by an algorithm of {@link STRONG_SIGNATURES}. */
  stronglySigned: boolean;
  /** The content of an extension, DER. */
  extension(id: string): ArrayBuffer | undefined;
}

const PSS = '1.2.840.113549.1.1.10';
/** Signature algorithms of certificates: RSA PKCS #1 and ECDSA with SHA-2, RSASSA-PSS, Ed25519. Not MD5, not SHA-1. */
const STRONG_SIGNATURES = new Set([
  '1.2.840.113549.1.1.11',
  '1.2.840.113549.1.1.12',
  '1.2.840.113549.1.1.13',
  PSS,
  '1.2.840.10045.4.3.2',
  '1.2.840.10045.4.3.3',
  '1.2.840.10045.4.3.4',
  '1.3.101.112',
]);
/** SHA-256, SHA-384, SHA-512. */
const STRONG_HASHES = new Set(['1', '2', '3'].map((last) => `2.16.840.1.101.3.4.2.${last}`));

/** RSASSA-PSS-params (RFC 4055 §3.1), of which every field has a default; that of the hash is SHA-1. */
class PssParameters {
  hashAlgorithm?: AlgorithmIdentifier;
  maskGenAlgorithm?: AlgorithmIdentifier;
  saltLength?: number;
  trailerField?: number;
}
const PSS_FIELDS = [
  ['hashAlgorithm', AlgorithmIdentifier],
  ['maskGenAlgorithm', AlgorithmIdentifier],
  ['saltLength', AsnPropTypes.Integer],
  ['trailerField', AsnPropTypes.Integer],
] as const;
for (const [context, [name, type]] of PSS_FIELDS.entries()) {
  AsnProp({ type, context, optional: true })(PssParameters.prototype, name);
}

/** Reads a certificate, PEM or DER. Undefined for what is none, and for one with an extension twice or malformed. */
export function readCertificate(input: string | Uint8Array): ReadCertificate | undefined {
  try {
    const x509 = new X509Certificate(input);
    const { tbsCertificate: tbs, signatureAlgorithm } = AsnConvert.parse(x509.raw, Certificate);
    const extensions = new Map((tbs.extensions ?? []).map(({ extnID, extnValue }) => [extnID, extnValue.buffer]));
    if (extensions.size !== (tbs.extensions ?? []).length) return undefined;
    const constraints = extensions.get(id_ce_basicConstraints);
    const usage = extensions.get(id_ce_keyUsage);
    const purposes = extensions.get(id_ce_extKeyUsage);
    const basic = constraints && AsnConvert.parse(constraints, BasicConstraints);
    return {
      x509,
      tbs,
      isCa: basic?.cA === true,
      pathLength: basic?.pathLenConstraint ?? Number.POSITIVE_INFINITY,
      keyUsage: usage && AsnConvert.parse(usage, KeyUsage).toNumber(),
      purposes: purposes && [...AsnConvert.parse(purposes, ExtendedKeyUsage)],
      critical: (tbs.extensions ?? []).filter(({ critical }) => critical).map(({ extnID }) => extnID),
      stronglySigned: isStrong(signatureAlgorithm),
      extension: (id) => extensions.get(id),
    };
  } catch {
    return undefined;
  }
}

function isStrong({ algorithm, parameters }: AlgorithmIdentifier): boolean {
  if (algorithm !== PSS) return STRONG_SIGNATURES.has(algorithm);
  const hash = parameters && AsnConvert.parse(parameters, PssParameters).hashAlgorithm;
  return hash != null && STRONG_HASHES.has(hash.algorithm);
}

/** Without key usage a certificate may be used for everything (RFC 5280 §4.2.1.3). @param flag of {@link KeyUsageFlags} */
export function allows({ keyUsage }: ReadCertificate, flag: KeyUsageFlags): boolean {
  return keyUsage === undefined || (keyUsage & flag) !== 0;
}

/** Names, key identifiers and signature fit. */
export function isIssuedBy(subject: ReadCertificate, issuer: ReadCertificate): boolean {
  try {
    return subject.x509.checkIssued(issuer.x509) && subject.x509.verify(issuer.x509.publicKey);
  } catch {
    return false;
  }
}

/**
 * Why a certificate may not be an issuer in a chain; undefined when it may.
 * @param below certificate authorities between this one and the leaf
 */
export function authorityFault(authority: ReadCertificate, below: number): string | undefined {
  if (!authority.isCa || !allows(authority, KeyUsageFlags.keyCertSign)) {
    return 'has an issuer that is not a certificate authority';
  }
  return below > authority.pathLength ? 'is longer than one of its authorities allows' : undefined;
}

/** The certificate's key as a JWK; undefined for key types that JWK has no name for (DSA, RSASSA-PSS), at which Node throws. */
export function certificateJwk({ x509 }: ReadCertificate): unknown {
  try {
    return x509.publicKey.export({ format: 'jwk' });
  } catch {
    return undefined;
  }
}
