/** Certificates of endorsement keys as makers issue them, and as they should not. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { OctetString } from '@peculiar/asn1-schema';
import { Extension, KeyUsageFlags } from '@peculiar/asn1-x509';
import { CA_USAGE, type CertificateOptions, type Issued, issueCertificate } from './certificates.ts';

export const EK_PURPOSE = '2.23.133.8.1';

/** A DER value of any length. */
export function tlv(tag: number, ...content: Uint8Array[]): Buffer {
  const value = Buffer.concat(content);
  const { length } = value;
  const head = length < 128 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), value]);
}

const hex = (text: string) => Buffer.from(text, 'hex');

/** A TPM attribute: 2.23.133.2.`kind` (1 manufacturer, 2 model, 3 version). */
export function tpmAttribute(kind: 1 | 2 | 3, text: string): Buffer {
  return tlv(0x30, tlv(0x06, hex(`678105020${kind}`)), tlv(0x0c, Buffer.from(text)));
}

/** One directory name of these sets (each a relative distinguished name) of attributes. */
export function sanOf(...sets: Buffer[][]): Buffer {
  return tlv(0x30, tlv(0xa4, tlv(0x30, ...sets.map((attributes) => tlv(0x31, ...attributes)))));
}

export function extensionOf(extnID: string, der: Uint8Array, critical = false): Extension {
  return new Extension({ extnID, critical, extnValue: new OctetString(new Uint8Array(der)) });
}

export const attributesOf = (manufacturer = 'id:494E5443'): Buffer[] => [
  tpmAttribute(1, manufacturer),
  tpmAttribute(2, 'model'),
  tpmAttribute(3, 'id:00010002'),
];

export const sanExtension = (der: Buffer, critical = true): Extension => extensionOf('2.5.29.17', der, critical);

/** One attribute a set, as most makers have it. */
export const usualSan = (): Extension => sanExtension(sanOf(...attributesOf().map((attribute) => [attribute])));

export const rsaKeys: { publicKey: KeyObject; privateKey: KeyObject } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
});
export const ecKeys: { publicKey: KeyObject; privateKey: KeyObject } = generateKeyPairSync('ec', {
  namedCurve: 'P-384',
});

export const makerRoot: Issued = issueCertificate({ name: 'maker root', ca: true, usage: CA_USAGE });
export const makerAuthority: Issued = issueCertificate({
  name: 'maker authority',
  issuer: makerRoot,
  ca: true,
  pathLength: 0,
  usage: CA_USAGE,
  purposes: [EK_PURPOSE],
});

/** The certificate of an RSA endorsement key, as the profile wants it, with changes; `undefined` leaves a part out. */
export function issueEk(
  changes: { [Name in keyof CertificateOptions]?: CertificateOptions[Name] | undefined } = {},
): Issued {
  const usual: CertificateOptions = {
    name: 'TPM',
    issuer: makerAuthority,
    ca: false,
    usage: KeyUsageFlags.keyEncipherment,
    purposes: [EK_PURPOSE],
    more: [usualSan()],
    keys: rsaKeys,
  };
  return issueCertificate({ ...usual, ...changes } as CertificateOptions);
}

/** The key of a certificate under RSAES-OAEP's name, with the parameters that TPM 1.2 makers wrote: the defaults. */
export function oaepSpki(key: KeyObject): Buffer {
  const pkcs1 = key.export({ type: 'pkcs1', format: 'der' });
  return tlv(0x30, tlv(0x30, tlv(0x06, hex('2a864886f70d010107')), tlv(0x30)), tlv(0x03, Buffer.of(0), pkcs1));
}
