/** What real EK certificates have that a strict reader would stumble over, and is lived with here. */

/** Each quirk by a stable name, and what it means. */
export const ekQuirks = {
  padding: 'one byte stands after the certificate again and again, as in an NV index that is larger',
  'critical-san': 'the subject alternative name is critical and holds a directory name',
  'multi-valued-rdn': "the TPM's attributes stand in one relative distinguished name",
  'unordered-set': 'a SET OF is not in DER order',
  'manufacturer-form': 'the manufacturer id is not written as the registry has it',
  'rsa-oaep-key': 'the key is named as one for RSAES-OAEP',
  'explicit-ca-false': 'a default value, cA FALSE, is written out',
  'critical-policies': 'certificate policies are critical; any policy is accepted',
  'no-basic-constraints': 'the certificate does not say whether it is an authority; it is taken for none',
  'no-key-usage': 'the certificate does not limit the usage of its key',
  'no-san': 'the certificate does not name its TPM',
  'no-eku': 'nothing says that the certificate is one of an endorsement key',
  'unreadable-intermediate': 'an intermediate that came along is no certificate, and was left out',
  'anchor-is-intermediate': 'the chain ends at a trusted certificate that another one issued',
} as const;

export type EkQuirk = keyof typeof ekQuirks;
