/** Check 3: the key that signs for the TPM. */
import { KeyObject } from 'node:crypto';
import type { PublicJwk } from '../core/jwk.ts';
import { type HashName, type SignatureScheme, signatureSchemes } from './algorithms.ts';
import { parsePublic } from './public.ts';
import type { TpmPublic } from './public-area.ts';
import { refused, requireAll, soundKey } from './refusal.ts';
import { jwsSchemes } from './signature.ts';

/** An attestation key as the caller knows it: a TPMT_PUBLIC, or its public key alone. */
export type AttestationKeyInput = Uint8Array | KeyObject | AttestationKeyJwk;

/** A public JWK. Where it has an `alg`, the AK must have signed with that. */
export interface AttestationKeyJwk {
  kty?: string;
  alg?: string;
  crv?: string;
  x?: string;
  y?: string;
  n?: string;
  e?: string;
}

export interface AttestationKey {
  key: KeyObject;
  jwk: PublicJwk;
  /** What it signs with; undefined where only the public key is known. */
  scheme: { name: SignatureScheme; hash: HashName } | undefined;
  /** `unknown`: only the public key is known, so somebody must have judged the attributes before. */
  attributes: 'checked' | 'unknown';
  name: Uint8Array | undefined;
}

/**
 * The AK, judged: restricted and sign, not decrypt; fixedTPM, fixedParent, sensitiveDataOrigin; P-256, P-384 or RSA of 2048
 * bits and more; a signing scheme of its own; no SHA-1. Without `restricted`, its holder could sign any structure it likes;
 * with `decrypt`, the TPM would not hold it to structures of its own.
 *
 * @throws AttestedError `tpm_malformed`, `tpm_refused`
 */
export function readAttestationKey(input: AttestationKeyInput, allowSha1 = false): AttestationKey {
  if (input instanceof Uint8Array) return fromPublicArea(parsePublic(input), allowSha1);
  const known = input instanceof KeyObject ? exported(input) : input;
  const { key, jwk } = soundKey(known, 3);
  requireAll(3, [curveRow(jwk)]);
  return { key, jwk, scheme: schemeOf(known), attributes: 'unknown', name: undefined };
}

function fromPublicArea(area: TpmPublic, allowSha1: boolean): AttestationKey {
  const { attributes, scheme, nameAlg, name } = area;
  requireAll(3, [
    [attributes.restricted, 'the attestation key is not restricted: it signs whatever its holder likes'],
    [attributes.sign, 'the attestation key is not for signing'],
    [!attributes.decrypt, 'the attestation key may also decrypt'],
    [attributes.fixedTPM, 'the attestation key may leave its TPM'],
    [attributes.fixedParent, 'the attestation key may be moved to another parent'],
    [attributes.sensitiveDataOrigin, 'the attestation key was not made in the TPM'],
    [allowSha1 || nameAlg !== 'sha1', 'the Name of the attestation key is by SHA-1'],
  ]);
  const { key, jwk } = soundKey(area.publicJwk, 3);
  const { name: schemeName, hash } = scheme ?? {};
  if (schemeName === undefined || hash === undefined || !isSignatureScheme(schemeName)) {
    throw refused(3, 'the attestation key has no signing scheme of its own');
  }
  requireAll(3, [curveRow(jwk), [allowSha1 || hash !== 'sha1', 'the attestation key signs with SHA-1']]);
  return { key, jwk, scheme: { name: schemeName, hash }, attributes: 'checked', name };
}

const isSignatureScheme = (name: string): name is SignatureScheme => Object.hasOwn(signatureSchemes, name);

/** RSA sizes are {@link soundKey}'s matter. */
const curveRow = (jwk: PublicJwk): readonly [boolean, string] => [
  jwk.kty === 'RSA' || (jwk.kty === 'EC' && jwk.crv !== 'P-521'),
  'the attestation key is on none of the curves P-256 and P-384',
];

function exported(key: KeyObject): AttestationKeyJwk {
  try {
    return key.export({ format: 'jwk' }) as AttestationKeyJwk;
  } catch {
    throw refused(3, 'the attestation key is of an unknown kind');
  }
}

/** What a JWK says it signs with. */
function schemeOf({ alg }: AttestationKeyJwk): AttestationKey['scheme'] {
  if (alg === undefined) return undefined;
  const row = typeof alg === 'string' && Object.hasOwn(jwsSchemes, alg) ? jwsSchemes[alg as 'ES256'] : undefined;
  if (row === undefined) throw refused(3, 'the attestation key is for an algorithm that a TPM does not have');
  return { name: row.scheme, hash: row.hash };
}
