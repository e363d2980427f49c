/** AES-256-GCM under a key of its own for each sealing, derived from a root key by HKDF (RFC 5869). */
import { createCipheriv, createDecipheriv, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';
import { encodeBase64url } from '../../core/bytes.ts';
import type { JsonObject } from '../../core/json.ts';
import type { JsonReader } from './json-file.ts';

const CIPHER = 'aes-256-gcm';
const [KEY_BYTES, SALT_BYTES, NONCE_BYTES, TAG_BYTES] = [32, 16, 12, 16];

export interface Sealed {
  salt: Uint8Array;
  nonce: Uint8Array;
  ciphertext: Uint8Array;
  tag: Uint8Array;
}

/** A key of 32 bytes derived from the root for one purpose. */
export function deriveSubkey(root: KeyObject, salt: Uint8Array, info: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', root, salt, info, KEY_BYTES));
}

/** @param info the purpose, so that nothing sealed for one is opened for another */
export function seal(root: KeyObject, info: string, additionalData: Uint8Array, plaintext: Uint8Array): Sealed {
  const [salt, nonce] = [randomBytes(SALT_BYTES), randomBytes(NONCE_BYTES)];
  const cipher = createCipheriv(CIPHER, deriveSubkey(root, salt, info), nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(additionalData);
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return { salt, nonce, ciphertext, tag: cipher.getAuthTag() };
}

/** @throws when anything of it was altered; the error says nothing that a caller should pass on */
export function unseal(root: KeyObject, info: string, additionalData: Uint8Array, sealed: Sealed): Buffer {
  const key = deriveSubkey(root, sealed.salt, info);
  const decipher = createDecipheriv(CIPHER, key, sealed.nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(additionalData);
  decipher.setAuthTag(sealed.tag);
  return Buffer.concat([decipher.update(sealed.ciphertext), decipher.final()]);
}

/** The members `derivation` and `encryption` of a JSON file. */
export function sealedMembers({ salt, nonce, ciphertext, tag }: Sealed): JsonObject {
  return {
    derivation: { name: 'hkdf-sha256', salt: encodeBase64url(salt) },
    encryption: {
      name: 'A256GCM',
      nonce: encodeBase64url(nonce),
      ciphertext: encodeBase64url(ciphertext),
      tag: encodeBase64url(tag),
    },
  };
}

/** Reads what {@link sealedMembers} wrote. @throws AttestedError `key_store_corrupt` */
export function readSealedMembers(file: JsonObject, reader: JsonReader, most: number, least = 0): Sealed {
  const derivation = reader.object(file.derivation, ['name', 'salt']);
  const encryption = reader.object(file.encryption, ['name', 'nonce', 'ciphertext', 'tag']);
  if (derivation.name !== 'hkdf-sha256' || encryption.name !== 'A256GCM') {
    reader.refuse('is encrypted in an unknown way');
  }
  return {
    salt: reader.bytes(derivation.salt, SALT_BYTES),
    nonce: reader.bytes(encryption.nonce, NONCE_BYTES),
    ciphertext: reader.bytes(encryption.ciphertext, least, most),
    tag: reader.bytes(encryption.tag, TAG_BYTES),
  };
}
