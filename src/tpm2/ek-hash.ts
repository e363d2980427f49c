/** The name of an endorsement key on lists. */
import type { PublicJwk } from '../core/jwk.ts';
import { importPublicKey, sha256Base64url } from '../platform/crypto.ts';

/**
 * SHA-256 of the key's SubjectPublicKeyInfo in DER, base64url: one hash for one endorsement key, however a certificate encodes
 * it, and also where there is no certificate (`ekHash(parsePublic(ek).publicJwk)`).
 *
 * @throws AttestedError `tpm_refused` for a key that is none, such as a point off its curve
 */
export function ekHash(key: PublicJwk): string {
  return sha256Base64url(importPublicKey(key, 'tpm_refused').export({ type: 'spki', format: 'der' }));
}
