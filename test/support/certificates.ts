/** Certificates of any shape, signed with `node:crypto`: good chains, and every kind that must be refused. */
import { constants, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  Extension,
  Extensions,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
} from '@peculiar/asn1-x509';

export interface CertificateOptions {
  name: string;
  issuer?: Issued;
  notBefore?: Date;
  notAfter?: Date;
  /** Absent: no basic constraints at all. */
  ca?: boolean;
  pathLength?: number;
  /** Absent: no key usage. */
  usage?: number;
  /** Extended key usage, critical. Absent: none. */
  purposes?: string[];
  /** Object identifier of a further critical extension. */
  critical?: string;
  keys?: { privateKey: KeyObject; publicKey: KeyObject };
  /** Default sha256. */
  hash?: 'sha1' | 'sha256' | 'sha384' | 'sha512';
  /** RSASSA-PSS, by an issuer with an RSA key. */
  pss?: boolean;
  /** Further extensions. */
  more?: Extension[];
  /** The subject's key, where it is not to stand as OpenSSL writes it: SubjectPublicKeyInfo, DER. */
  spki?: Uint8Array;
}

export interface Issued {
  name: string;
  der: Buffer;
  /** Standard base64, as in `x5c`. */
  text: string;
  pem: string;
  privateKey: KeyObject;
}

/** Signature algorithms by the issuer's key type and the hash. */
const SIGNATURES: Record<string, string> = {
  'ec sha1': '1.2.840.10045.4.1',
  'ec sha256': '1.2.840.10045.4.3.2',
  'ec sha384': '1.2.840.10045.4.3.3',
  'ec sha512': '1.2.840.10045.4.3.4',
  'rsa sha1': '1.2.840.113549.1.1.5',
  'rsa sha256': '1.2.840.113549.1.1.11',
  'rsa sha384': '1.2.840.113549.1.1.12',
  'rsa sha512': '1.2.840.113549.1.1.13',
};
/** RSASSA-PSS-params with a salt as long as the hash; those for SHA-1 are all defaults. */
const PSS_PARAMETERS: Record<string, string> = {
  sha1: '3000',
  sha256:
    '3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120',
};
const COMMON_NAME = '2.5.4.3';

const newEcKeys = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });

/** Issues a certificate; without an issuer it signs itself. Keys are P-256 unless given. */
export function issueCertificate(options: CertificateOptions): Issued {
  const { name, issuer, ca, pathLength, usage, purposes, critical, keys = newEcKeys(), hash = 'sha256' } = options;
  const signer = issuer?.privateKey ?? keys.privateKey;
  const algorithm = options.pss
    ? new AlgorithmIdentifier({
        algorithm: '1.2.840.113549.1.1.10',
        parameters: new Uint8Array(Buffer.from(PSS_PARAMETERS[hash] as string, 'hex')).buffer,
      })
    : new AlgorithmIdentifier({ algorithm: SIGNATURES[`${signer.asymmetricKeyType} ${hash}`] as string });
  const spki =
    options.spki ??
    createPublicKey(keys.publicKey.export({ type: 'spki', format: 'pem' })).export({ type: 'spki', format: 'der' });
  const extensions: Extension[] = [];
  const add = (extnID: string, value: object, isCritical: boolean) =>
    extensions.push(
      new Extension({ extnID, critical: isCritical, extnValue: new OctetString(AsnConvert.serialize(value)) }),
    );
  if (ca !== undefined) {
    add(
      id_ce_basicConstraints,
      new BasicConstraints({ cA: ca, ...(pathLength !== undefined && { pathLenConstraint: pathLength }) }),
      true,
    );
  }
  if (usage !== undefined) add(id_ce_keyUsage, new KeyUsage(usage), true);
  if (purposes !== undefined) add(id_ce_extKeyUsage, new ExtendedKeyUsage(purposes), true);
  if (critical !== undefined) {
    extensions.push(
      new Extension({ extnID: critical, critical: true, extnValue: new OctetString(Buffer.from('0500', 'hex')) }),
    );
  }
  extensions.push(...(options.more ?? []));
  const tbsCertificate = new TBSCertificate({
    version: 2,
    serialNumber: new Uint8Array(Buffer.concat([Buffer.from([1]), randomBytes(8)])).buffer,
    signature: algorithm,
    issuer: nameOf(issuer?.name ?? name),
    validity: new Validity({
      notBefore: options.notBefore ?? new Date('2020-01-01T00:00:00Z'),
      notAfter: options.notAfter ?? new Date('2045-01-01T00:00:00Z'),
    }),
    subject: nameOf(name),
    subjectPublicKeyInfo: AsnConvert.parse(spki, SubjectPublicKeyInfo),
    ...(extensions.length > 0 && { extensions: new Extensions(extensions) }),
  });
  const padding = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  const signature = sign(hash, Buffer.from(AsnConvert.serialize(tbsCertificate)), {
    key: signer,
    ...(options.pss && padding),
  });
  const der = Buffer.from(
    AsnConvert.serialize(
      new Certificate({
        tbsCertificate,
        signatureAlgorithm: algorithm,
        signatureValue: new Uint8Array(signature).buffer,
      }),
    ),
  );
  const text = der.toString('base64');
  return {
    name,
    der,
    text,
    pem: `-----BEGIN CERTIFICATE-----\n${text.replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`,
    privateKey: keys.privateKey,
  };
}

function nameOf(commonName: string): Name {
  const value = new AttributeValue({ utf8String: commonName });
  return new Name([new RelativeDistinguishedName([new AttributeTypeAndValue({ type: COMMON_NAME, value })])]);
}

export const CA_USAGE = KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign;
export const SIGN_USAGE = KeyUsageFlags.digitalSignature;

/** A root, an authority below it and a leaf below that, all as they should be. */
export function goodChain(): { root: Issued; authority: Issued; leaf: Issued } {
  const root = issueCertificate({ name: 'root', ca: true, usage: CA_USAGE });
  const authority = issueCertificate({ name: 'authority', issuer: root, ca: true, pathLength: 0, usage: CA_USAGE });
  const leaf = issueCertificate({ name: 'attester', issuer: authority, ca: false, usage: SIGN_USAGE });
  return { root, authority, leaf };
}
