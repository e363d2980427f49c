/** From a blob to what the helper needs to use it. */
import { createHash } from 'node:crypto';
import { utf8 } from '../../core/bytes.ts';
import { AttestedError } from '../../errors.ts';
import { hmacSha256, sha256 } from '../../platform/crypto.ts';
import type { Blob } from './blobs.ts';
import { banksOf } from './pcrs.ts';
import type { KeyReference } from './protocol.ts';

/** How this provider uses its keys. */
export interface KeyUse {
  /** `tpm.keyAuth` */
  keyAuth: Uint8Array | undefined;
  salted: boolean;
}

/**
 * The auth value of one object: another one for each, so that what is seen of one opens no other.
 * @param purpose what the object is for, such as its label
 */
export function authValueFor(keyAuth: Uint8Array, purpose: string): Uint8Array {
  const value = Uint8Array.from(hmacSha256(sha256(keyAuth), utf8(`attested TPM key auth v1 ${purpose}`)));
  value[31] = (value[31] as number) | 1; // TPMs drop zeros at the end of an auth value
  return value;
}

/** @throws AttestedError `key_store_locked` when the key needs the auth value that was not given */
export function referenceTo(blob: Blob, purpose: string, { keyAuth, salted }: KeyUse): KeyReference {
  if (blob.auth && keyAuth === undefined) {
    throw new AttestedError('key_store_locked', 'the key was made with an auth value: give it as tpm.keyAuth');
  }
  const authValue = blob.auth && keyAuth !== undefined ? authValueFor(keyAuth, purpose) : undefined;
  const pcrs = blob.pcrs && banksOf(blob.pcrs);
  // all that is used: what is loaded under this name must not stand for a file that was changed in part
  const hash = createHash('sha256');
  for (const part of [blob.public, blob.private, blob.parent]) hash.update(sha256(part));
  hash.update(authValue ?? '').update(JSON.stringify([salted, pcrs ?? []]));
  return {
    ref: hash.digest('base64url').slice(0, 22),
    public: blob.public,
    private: blob.private,
    parent: blob.parent,
    ...(authValue && { authValue }),
    ...(pcrs && { pcrs }),
    ...(salted && { salted }),
  };
}
