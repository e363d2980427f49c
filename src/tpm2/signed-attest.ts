/** Checks 1 and 3 to 5, which every attest structure has to pass, whatever it attests. */
import { equalInConstantTime } from '../platform/crypto.ts';
import type { HashName, SignatureScheme } from './algorithms.ts';
import { type AttestOf, type AttestType, type ClockInfo, parseAttest } from './attest.ts';
import { type AttestationKeyInput, readAttestationKey } from './attestation-key.ts';
import { refused, requireAll } from './refusal.ts';
import { parseSignature, verifyTpmSignature } from './signature.ts';

export interface SignedAttestInput {
  /** TPMS_ATTEST. */
  attest: Uint8Array;
  /** TPMT_SIGNATURE over it. */
  signature: Uint8Array;
  /** TPMT_PUBLIC of the key that signed; or a KeyObject or JWK, where only the public key is known. */
  ak: AttestationKeyInput;
  /**
   * What the attest structure must carry, as the caller computed it from a challenge of its own. Absent: not compared, and the
   * caller compares the result's `extraData`; without either, an old structure passes as a fresh one.
   */
  extraData?: Uint8Array;
  /** Take SHA-1 in the AK's scheme and in Names. Only for old hardware that has nothing else. Default false. */
  allowSha1?: boolean;
}

/** What is known of a structure once the signature holds. */
export interface VerifiedAttest {
  /** `unknown` when the AK was given as a bare public key: then nothing here says that a TPM holds it. */
  akAttributes: 'checked' | 'unknown';
  /** The AK's Name; absent when the AK was given as a bare public key. */
  akName?: Uint8Array;
  signatureScheme: SignatureScheme;
  signatureHash: HashName;
  /** Qualified Name of the AK. The caller pins it at enrolment and compares it ever after. */
  qualifiedSigner: Uint8Array;
  extraData: Uint8Array;
  /** Only differences between structures of one `qualifiedSigner` mean anything: for most AKs the TPM obfuscates it. */
  clockInfo: ClockInfo;
  /** Likewise obfuscated. */
  firmwareVersion: bigint;
}

export interface SignedAttestOf<Type extends AttestType> {
  attest: AttestOf<Type>;
  verified: VerifiedAttest;
}

/** @throws AttestedError `tpm_malformed`, `tpm_refused` (checks 3, 4, 5) */
export function verifySignedAttest<Type extends AttestType>(
  input: SignedAttestInput,
  type: Type,
): SignedAttestOf<Type> {
  const { allowSha1 = false } = input;
  const attest = parseAttest(input.attest);
  const signature = parseSignature(input.signature);
  const ak = readAttestationKey(input.ak, allowSha1);
  requireAll(4, [
    [attest.type === type, `a structure of another type than ${type}`],
    [ak.scheme === undefined || signature.alg === ak.scheme.name, "not the attestation key's signature scheme"],
    [ak.scheme === undefined || signature.hash === ak.scheme.hash, "not the hash of the attestation key's scheme"],
    [allowSha1 || signature.hash !== 'sha1', 'signed with SHA-1'],
    [verifyTpmSignature(signature, ak.key, attest.bytes), 'the signature is not by the attestation key'],
  ]);
  if (input.extraData !== undefined) compareExtraData(attest.extraData, input.extraData);
  return {
    attest: attest as AttestOf<Type>,
    verified: {
      akAttributes: ak.attributes,
      ...(ak.name !== undefined && { akName: ak.name }),
      signatureScheme: signature.alg,
      signatureHash: signature.hash,
      qualifiedSigner: attest.qualifiedSigner,
      extraData: attest.extraData,
      clockInfo: attest.clockInfo,
      firmwareVersion: attest.firmwareVersion,
    },
  };
}

function compareExtraData(found: Uint8Array, expected: Uint8Array): void {
  // an empty one would bind nothing, and is what a lost challenge looks like
  if (!(expected instanceof Uint8Array) || expected.length === 0) throw refused(5, 'the expected extra data is empty');
  if (!equalInConstantTime(found, expected)) throw refused(5, 'the extra data is not the one that was asked for');
}
