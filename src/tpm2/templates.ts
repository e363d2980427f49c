/**
 * The keys that Attested makes in a TPM, and those that a TPM's maker made, as data. Each function gives a TPMT_PUBLIC for
 * TPM2_Create or TPM2_CreatePrimary.
 *
 * Keys of ours have `noDA`: a power cut after the use of a key without it counts as a failed authorization (TPM 2.0 Part 1
 * §19.8), and three of those would lock the owner's TPM.
 */
import { AttestedError } from '../errors.ts';
import type { CurveName, HashName, SignatureScheme } from './algorithms.ts';
import { type AttributeName, attributesOf } from './attributes.ts';
import { encodePublic } from './encode-public.ts';
import { parsePublic } from './public.ts';
import type { PublicArea, TpmPublic, TpmSymmetric } from './public-area.ts';

const none = new Uint8Array(0);
const zeros = (length: number): Uint8Array => new Uint8Array(length);
const point = (bytes: number): { x: Uint8Array; y: Uint8Array } => ({ x: zeros(bytes), y: zeros(bytes) });

const aesCfb = (keyBits: 128 | 256): TpmSymmetric => ({ name: 'aes', keyBits, mode: 'cfb' });

const madeHere: readonly AttributeName[] = ['fixedTPM', 'fixedParent', 'sensitiveDataOrigin'];
const storage: readonly AttributeName[] = ['restricted', 'decrypt'];

export type SrkKind = 'ecc' | 'rsa';

/** Storage root keys of the TCG's TPM v2.0 Provisioning Guidance §7.5.1: what is at 0x81000001 where there is one. */
const srks: Readonly<Record<SrkKind, PublicArea>> = {
  ecc: {
    type: 'ecc',
    nameAlg: 'sha256',
    attributes: attributesOf(...madeHere, 'userWithAuth', 'noDA', ...storage),
    authPolicy: none,
    symmetric: aesCfb(128),
    scheme: null,
    parameters: { curve: 'P-256', kdf: null },
    unique: point(32),
  },
  rsa: {
    type: 'rsa',
    nameAlg: 'sha256',
    attributes: attributesOf(...madeHere, 'userWithAuth', 'noDA', ...storage),
    authPolicy: none,
    symmetric: aesCfb(128),
    scheme: null,
    parameters: { keyBits: 2048, exponent: 65537 },
    unique: zeros(256),
  },
};

/** The standard storage root key: ECC P-256 (0x00030472) or RSA-2048. */
export function srkTemplate(kind: SrkKind = 'ecc'): Uint8Array {
  return encodePublic(srks[kind]);
}

/**
 * Is this the public area of a storage root key as the standard templates make it? Everything but the key itself must agree.
 * It does not prove that a TPM holds it.
 *
 * @throws AttestedError `tpm_malformed` for bytes that are no public area
 */
export function isStandardSrk(area: TpmPublic | Uint8Array): boolean {
  const { bytes: _, name: __, publicJwk, ...fields } = area instanceof Uint8Array ? parsePublic(area) : area;
  if (publicJwk === undefined || (fields.type !== 'ecc' && fields.type !== 'rsa')) return false;
  const { unique } = srks[fields.type];
  const emptied = encodePublic({ ...fields, unique } as PublicArea);
  return Buffer.compare(emptied, srkTemplate(fields.type)) === 0;
}

/** The algorithms an instance key may have, by their JWS names. */
export type InstanceKeyAlgorithm = 'ES256' | 'ES384' | 'PS256' | 'RS256';

const instanceKeys: Readonly<Record<InstanceKeyAlgorithm, SigningKey>> = {
  ES256: { curve: 'P-256', scheme: { name: 'ecdsa', hash: 'sha256' } },
  ES384: { curve: 'P-384', scheme: { name: 'ecdsa', hash: 'sha384' } },
  PS256: { keyBits: 2048, scheme: { name: 'rsapss', hash: 'sha256' } },
  RS256: { keyBits: 2048, scheme: { name: 'rsassa', hash: 'sha256' } },
};

type SigningKey = { scheme: { name: SignatureScheme; hash: HashName } } & ({ curve: CurveName } | { keyBits: number });

export interface TemplateOptions {
  /** SHA-256 policy digest that every use needs; then the object's auth value no longer suffices (`userWithAuth` clear). */
  authPolicy?: Uint8Array;
}

/**
 * A client instance's signing key (0x00040472, with a policy 0x00040432): made in the TPM, never to leave it, signs what it
 * is given. `Name` algorithm SHA-256, whatever it signs with.
 *
 * @throws AttestedError `invalid_argument` for an algorithm that is not in the table, or a policy that is no SHA-256 digest
 */
export function instanceKeyTemplate(alg: InstanceKeyAlgorithm, options: TemplateOptions = {}): Uint8Array {
  if (!Object.hasOwn(instanceKeys, alg)) throw new AttestedError('invalid_argument', 'no template for this algorithm');
  return encodePublic(signingKey(instanceKeys[alg], ['sign'], options));
}

/** An attestation key (0x00050472), P-256 with ECDSA and SHA-256: restricted, so that it signs only what the TPM itself made. */
export function akTemplate(options: TemplateOptions = {}): Uint8Array {
  return encodePublic(signingKey(instanceKeys.ES256, ['sign', 'restricted'], options));
}

/** Sealed data (0x00000452, with a policy 0x00000412): not made in the TPM, but it does not leave it otherwise than unsealed. */
export function sealTemplate(options: TemplateOptions = {}): Uint8Array {
  return encodePublic({
    type: 'keyedhash',
    ...authorization(['fixedTPM', 'fixedParent', 'noDA'], options),
    symmetric: null,
    scheme: null,
    parameters: {},
    unique: none,
  });
}

function signingKey(row: SigningKey, use: readonly AttributeName[], options: TemplateOptions): PublicArea {
  const common = { ...authorization([...madeHere, 'noDA', ...use], options), symmetric: null, scheme: row.scheme };
  return 'curve' in row
    ? { type: 'ecc', ...common, parameters: { curve: row.curve, kdf: null }, unique: { x: none, y: none } }
    : { type: 'rsa', ...common, parameters: { keyBits: row.keyBits, exponent: 65537 }, unique: none };
}

function authorization(
  attributes: readonly AttributeName[],
  { authPolicy }: TemplateOptions,
): Pick<PublicArea, 'nameAlg' | 'attributes' | 'authPolicy'> {
  if (authPolicy === undefined) {
    return { nameAlg: 'sha256', attributes: attributesOf(...attributes, 'userWithAuth'), authPolicy: none };
  }
  if (authPolicy.length !== 32) throw new AttestedError('invalid_argument', 'a policy is a SHA-256 digest');
  return { nameAlg: 'sha256', attributes: attributesOf(...attributes), authPolicy };
}

const hex = (digits: string): Uint8Array => Uint8Array.from(Buffer.from(digits, 'hex'));

/** TPM2_PolicySecret(TPM_RH_ENDORSEMENT), SHA-256: PolicyA of the EK Credential Profile. */
const policyA = hex('837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa');
/** TPM2_PolicyOR of PolicySecret and PolicyAuthorizeNV, SHA-384: PolicyB of the same. */
const policyB = hex('b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12');

export type EkKind = 'RSA-2048' | 'P-256' | 'P-384';

/** Endorsement keys of the TCG EK Credential Profile for TPM 2.0: templates L-1, L-2 and H-3. */
const eks: Readonly<Record<EkKind, PublicArea>> = {
  'RSA-2048': {
    type: 'rsa',
    nameAlg: 'sha256',
    attributes: attributesOf(...madeHere, 'adminWithPolicy', ...storage),
    authPolicy: policyA,
    symmetric: aesCfb(128),
    scheme: null,
    parameters: { keyBits: 2048, exponent: 65537 },
    unique: zeros(256),
  },
  'P-256': {
    type: 'ecc',
    nameAlg: 'sha256',
    attributes: attributesOf(...madeHere, 'adminWithPolicy', ...storage),
    authPolicy: policyA,
    symmetric: aesCfb(128),
    scheme: null,
    parameters: { curve: 'P-256', kdf: null },
    unique: point(32),
  },
  'P-384': {
    type: 'ecc',
    nameAlg: 'sha384',
    attributes: attributesOf(...madeHere, 'userWithAuth', 'adminWithPolicy', ...storage),
    authPolicy: policyB,
    symmetric: aesCfb(256),
    scheme: null,
    parameters: { curve: 'P-384', kdf: null },
    unique: { x: none, y: none },
  },
};

/** The kinds of endorsement key, and the NV index in which the maker put the certificate of each (EK Credential Profile §2.2.1.4). */
export const ekCertificateIndexes: Readonly<Record<EkKind, number>> = {
  'RSA-2048': 0x01c00002,
  'P-256': 0x01c0000a,
  'P-384': 0x01c00016,
};

/** The template from which a TPM makes its endorsement key again, the same each time. */
export function ekTemplate(kind: EkKind): Uint8Array {
  return encodePublic(eks[kind]);
}
