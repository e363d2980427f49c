/** What an EK certificate says of its TPM: the attributes in its subject alternative name (TCG EK Credential Profile §3.1.2). */
import { AsnConvert } from '@peculiar/asn1-schema';
import { id_ce_subjectAltName, type Name, SubjectAlternativeName } from '@peculiar/asn1-x509';
import type { ReadCertificate } from '../platform/certificates.ts';
import type { EkQuirk } from './ek-quirks.ts';
import { readVendor } from './vendors.ts';
import { malformed } from './wire.ts';

export interface EkSubject {
  /** The manufacturer's id, as `id:` and eight hexadecimal digits in upper case where the certificate has it in any such form. */
  manufacturer?: string;
  /** The part number, as it stands. */
  model?: string;
  /** The firmware version when the certificate was made, as it stands (mostly `id:` and hexadecimal digits). */
  version?: string;
}

const ATTRIBUTES: ReadonlyMap<string, keyof EkSubject> = new Map([
  ['2.23.133.2.1', 'manufacturer'],
  ['2.23.133.2.2', 'model'],
  ['2.23.133.2.3', 'version'],
]);
const MAX_TEXT = 256;

/**
 * Reads the TPM's attributes, in one relative distinguished name or several, and notes what is unusual.
 * @throws AttestedError `tpm_malformed` also for an attribute that is there twice
 */
export function readEkSubject(
  certificate: ReadCertificate,
  note: (quirk: EkQuirk) => void,
): { subject: EkSubject; manufacturerName?: string } {
  const names = directoryNames(certificate);
  if (names === undefined) {
    note('no-san');
    return { subject: {} };
  }
  if (certificate.critical.includes(id_ce_subjectAltName)) note('critical-san');
  const subject: EkSubject = {};
  for (const set of names.flatMap((name) => [...name])) {
    if (set.length > 1) note('multi-valued-rdn');
    if (!isOrdered([...set])) note('unordered-set');
    for (const { type, value } of set) {
      const attribute = ATTRIBUTES.get(type);
      if (attribute === undefined) continue;
      const text = value.toString();
      if (subject[attribute] !== undefined) throw malformed('EK certificate', 'names its TPM twice');
      if (text.length > MAX_TEXT) throw malformed('EK certificate', 'has an attribute of its TPM that is too long');
      subject[attribute] = text;
    }
  }
  const { manufacturer } = subject;
  const vendor = manufacturer === undefined ? undefined : readVendor(manufacturer);
  if (manufacturer === undefined || vendor === undefined) return { subject };
  if (vendor.id !== manufacturer) note('manufacturer-form');
  return {
    subject: { ...subject, manufacturer: vendor.id },
    ...(vendor.name !== undefined && { manufacturerName: vendor.name }),
  };
}

/** Undefined without the extension; empty where it has names of other kinds only. */
function directoryNames(certificate: ReadCertificate): Name[] | undefined {
  const der = certificate.extension(id_ce_subjectAltName);
  if (der === undefined) return undefined;
  try {
    return [...AsnConvert.parse(der, SubjectAlternativeName)].flatMap(({ directoryName }) =>
      directoryName === undefined ? [] : [directoryName],
    );
  } catch {
    throw malformed('EK certificate', 'has a subject alternative name that cannot be read');
  }
}

/** DER wants the elements of a set sorted by their bytes (X.690 §11.6). */
function isOrdered(elements: readonly object[]): boolean {
  const encoded = elements.map((element) => Buffer.from(AsnConvert.serialize(element)));
  return encoded.every((one, i) => i === 0 || Buffer.compare(encoded[i - 1] as Buffer, one) <= 0);
}
