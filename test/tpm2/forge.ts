/**
 * TPM structures from keys in memory: what no TPM would sign, or not like this. A software AK has every attribute of a real
 * one in its public area, so that nothing but the one change of a test makes its evidence worse.
 */
import {
  constants,
  createDecipheriv,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  sign,
} from 'node:crypto';
import type { EcJwk, RsaJwk } from '../../src/core/jwk.ts';
import {
  curves,
  digest,
  type HashName,
  hashes,
  type SignatureScheme,
  signatureSchemes,
} from '../../src/tpm2/algorithms.ts';
import { attestTypes, type ClockInfo, TPM_GENERATED } from '../../src/tpm2/attest.ts';
import {
  type AttestType,
  akTemplate,
  type Credential,
  type EkKind,
  ekTemplate,
  encodePcrSelection,
  encodePublic,
  instanceKeyTemplate,
  type PcrSelectionList,
  type PcrValues,
  type PublicArea,
  parsePublic,
  type SignedAttest,
  type TpmPublic,
} from '../../src/tpm2/index.ts';
import { kdfa, kdfe } from '../../src/tpm2/kdf.ts';
import { concat, Reader, sized, u8, u16, u32, u64 } from '../../src/tpm2/wire.ts';

export interface SoftwareKey {
  /** TPMT_PUBLIC. */
  publicArea: Uint8Array;
  parsed: TpmPublic;
  privateKey: KeyObject;
}

const base64url = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64url'));

/** A key pair in memory, with the public area that a TPM would give a key of this template. */
export function keyFromTemplate(template: Uint8Array, changes: Partial<PublicArea> = {}): SoftwareKey {
  const { privateKey, publicKey } = keyPair(parsePublic(template));
  return keyOf(privateKey, publicKey, template, changes);
}

/** A TPM's public area around a key that there is already. */
export function keyAround(privateKey: KeyObject, template: Uint8Array, changes: Partial<PublicArea> = {}): SoftwareKey {
  return keyOf(privateKey, createPublicKey(privateKey), template, changes);
}

function keyPair(area: TpmPublic): { privateKey: KeyObject; publicKey: KeyObject } {
  if (area.type === 'rsa') return generateKeyPairSync('rsa', { modulusLength: area.parameters.keyBits });
  if (area.type === 'ecc') return generateKeyPairSync('ec', { namedCurve: curves[area.parameters.curve].openssl });
  throw new Error('no asymmetric key');
}

function keyOf(
  privateKey: KeyObject,
  publicKey: KeyObject,
  template: Uint8Array,
  changes: Partial<PublicArea>,
): SoftwareKey {
  const jwk = publicKey.export({ format: 'jwk' }) as unknown as EcJwk | RsaJwk;
  const unique = jwk.kty === 'EC' ? { x: base64url(jwk.x), y: base64url(jwk.y) } : base64url(jwk.n);
  const { name: _, bytes: __, publicJwk: ___, ...area } = parsePublic(template);
  const publicArea = encodePublic({ ...area, unique, ...changes } as PublicArea);
  return { publicArea, parsed: parsePublic(publicArea), privateKey };
}

export const softwareAk = (changes: Partial<PublicArea> = {}): SoftwareKey => keyFromTemplate(akTemplate(), changes);

export const softwareInstanceKey = (changes: Partial<PublicArea> = {}): SoftwareKey =>
  keyFromTemplate(instanceKeyTemplate('ES256'), changes);

export const softwareEk = (kind: EkKind = 'P-256', changes: Partial<PublicArea> = {}): SoftwareKey =>
  keyFromTemplate(ekTemplate(kind), changes);

export interface AttestFields {
  magic?: number;
  type?: AttestType | number;
  qualifiedSigner?: Uint8Array;
  extraData?: Uint8Array;
  clockInfo?: Partial<ClockInfo>;
  firmwareVersion?: bigint;
}

/** TPMS_ATTEST around the bytes of what is attested. */
export function attestBytes(fields: AttestFields, attested: Uint8Array): Uint8Array {
  const { magic = TPM_GENERATED, type = 'certify', firmwareVersion = 0x2019102300163636n } = fields;
  const { clock = 1000n, resetCount = 3, restartCount = 0, safe = true } = fields.clockInfo ?? {};
  return concat(
    u32(magic),
    u16(typeof type === 'number' ? type : attestTypes[type]),
    sized(fields.qualifiedSigner ?? concat(u16(hashes.sha256.id), new Uint8Array(32).fill(0x51))),
    sized(fields.extraData ?? new Uint8Array(0)),
    concat(u64(clock), u32(resetCount), u32(restartCount), u8(safe ? 1 : 0)),
    u64(firmwareVersion),
    attested,
  );
}

export interface SigningScheme {
  alg: SignatureScheme;
  hash: HashName;
}

/** TPMT_SIGNATURE over bytes, by the key's own scheme unless another is given. */
export function signatureBytes(key: SoftwareKey, data: Uint8Array, scheme: SigningScheme = schemeOf(key)): Uint8Array {
  const { alg, hash } = scheme;
  const head = concat(u16(signatureSchemes[alg]), u16(hashes[hash].id));
  const { privateKey } = key;
  if (alg === 'ecdsa') {
    const both = new Uint8Array(sign(hash, data, { key: privateKey, dsaEncoding: 'ieee-p1363' }));
    const half = both.length / 2;
    return concat(head, sized(both.slice(0, half)), sized(both.slice(half)));
  }
  const padding = alg === 'rsapss' ? constants.RSA_PKCS1_PSS_PADDING : constants.RSA_PKCS1_PADDING;
  return concat(head, sized(new Uint8Array(sign(hash, data, { key: privateKey, padding }))));
}

function schemeOf({ parsed: { type, scheme } }: SoftwareKey): SigningScheme {
  return {
    alg: (scheme?.name as SignatureScheme | undefined) ?? (type === 'rsa' ? 'rsapss' : 'ecdsa'),
    hash: scheme?.hash ?? 'sha256',
  };
}

export interface ForgedCertify extends AttestFields {
  ak: SoftwareKey;
  subject: Pick<SoftwareKey, 'parsed'>;
  /** The Name that is certified; default the subject's. */
  name?: Uint8Array;
  qualifiedName?: Uint8Array;
  scheme?: SigningScheme;
}

/** TPM2_Certify, without a TPM. */
export function forgeCertify({ ak, subject, name, qualifiedName, scheme, ...fields }: ForgedCertify): SignedAttest {
  const certified = name ?? subject.parsed.name;
  const attested = concat(sized(certified), sized(qualifiedName ?? subject.parsed.name));
  return signed(ak, attestBytes({ type: 'certify', ...fields }, attested), scheme);
}

export interface ForgedQuote extends AttestFields {
  ak: SoftwareKey;
  pcrs: PcrValues;
  /** What is selected, in which order; default all of `pcrs`. */
  selection?: PcrSelectionList;
  pcrDigest?: Uint8Array;
  scheme?: SigningScheme;
}

/** TPM2_Quote, without a TPM. */
export function forgeQuote({ ak, pcrs, selection, pcrDigest, scheme, ...fields }: ForgedQuote): SignedAttest {
  const selected = selection ?? selectionOf(pcrs);
  const values = selected.flatMap(({ bank, pcrs: numbers }) =>
    numbers.map((pcr) => pcrs[bank]?.[pcr] ?? new Uint8Array(0)),
  );
  const { hash } = scheme ?? schemeOf(ak);
  const attested = concat(encodePcrSelection(selected), sized(pcrDigest ?? digest(hash, ...values)));
  return signed(ak, attestBytes({ type: 'quote', ...fields }, attested), scheme);
}

export function selectionOf(pcrs: PcrValues): PcrSelectionList {
  return Object.entries(pcrs).map(([bank, values]) => ({
    bank: bank as HashName,
    pcrs: Object.keys(values).map(Number),
  }));
}

/** Any attest bytes, signed. */
export function signed(ak: SoftwareKey, attest: Uint8Array, scheme?: SigningScheme): SignedAttest {
  return { attest, signature: signatureBytes(ak, attest, scheme) };
}

/** PCR values that differ from each other. */
export function somePcrs(bank: HashName, ...numbers: number[]): PcrValues {
  return { [bank]: Object.fromEntries(numbers.map((pcr) => [pcr, digest(bank, u8(pcr))])) };
}

/** TPM2_ActivateCredential of a software EK. Undefined where the integrity check fails. */
export function openCredential(
  ek: SoftwareKey,
  name: Uint8Array,
  { credentialBlob, encryptedSecret }: Credential,
): Uint8Array | undefined {
  const { nameAlg, symmetric } = ek.parsed;
  const seed = seedOf(ek, encryptedSecret);
  const blob = new Reader(credentialBlob, 'a credential');
  const integrity = blob.sized(64);
  const identity = credentialBlob.slice(2 + integrity.length);
  const macKey = kdfa(nameAlg, seed, 'INTEGRITY', new Uint8Array(0), hashes[nameAlg].bytes * 8);
  const expected = createHmac(nameAlg, macKey).update(identity).update(name).digest();
  if (!expected.equals(integrity)) return undefined;
  const keyBits = symmetric!.keyBits;
  const cipher = createDecipheriv(
    `aes-${keyBits}-cfb`,
    kdfa(nameAlg, seed, 'STORAGE', name, keyBits),
    new Uint8Array(16),
  );
  const inner = new Reader(concat(cipher.update(identity), cipher.final()), 'a credential');
  const secret = inner.sized(64);
  inner.end();
  return secret;
}

function seedOf({ parsed, privateKey }: SoftwareKey, encryptedSecret: Uint8Array): Uint8Array {
  const { nameAlg } = parsed;
  if (parsed.type !== 'ecc') {
    const padding = constants.RSA_PKCS1_OAEP_PADDING;
    const oaepLabel = Buffer.from('IDENTITY\0');
    return privateDecrypt({ key: privateKey, padding, oaepHash: nameAlg, oaepLabel }, encryptedSecret);
  }
  const reader = new Reader(encryptedSecret, 'a point');
  const [x, y] = [reader.sized(66), reader.sized(66)].map((part) => Buffer.from(part).toString('base64url'));
  const jwk = { kty: 'EC', crv: parsed.parameters.curve, x: x!, y: y! };
  const z = diffieHellman({ privateKey, publicKey: createPublicKey({ key: jwk, format: 'jwk' }) });
  return kdfe(nameAlg, z, 'IDENTITY', base64url(x!), parsed.unique.x, hashes[nameAlg].bytes * 8);
}
