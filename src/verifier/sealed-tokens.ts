/** Refresh tokens that only their instance can use (BIND-1), for an AS whose token store cannot be changed. Nothing is stored. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { decodeBase64url, encodeBase64url, fromUtf8, utf8 } from '../core/bytes.ts';
import { AttestedError } from '../errors.ts';
import { hmacSha256 } from '../platform/crypto.ts';

/** The instance that something belongs to. */
export interface Owner {
  clientId: string;
  thumbprint: string;
}

export interface SealedTokens {
  /** What the client gets in place of the token. */
  seal(token: string, owner: Owner): string;
  /**
   * The token, for the instance it was issued to.
   * @throws AttestedError `invalid_grant` for everything that was not sealed here for this instance
   */
  open(text: string, owner: Owner): string;
  /** Whether the text looks like a sealed token. It says nothing about whose it is. */
  isSealed(text: string): boolean;
}

const PREFIX = 'attested.';
const IV_BYTES = 12;
const TAG_BYTES = 16;
const MAX_LENGTH = 16_384;

/**
 * Seals tokens to a client instance: AES-256-GCM with client_id and thumbprint as associated data. The client never sees the
 * token itself, so another instance can neither use it nor show it to the AS in any other way; and as a wrong owner is found
 * before the AS is asked, its attempt burns nothing.
 *
 * @param options.keys secrets of 32 bytes or more, the same on every node, kept for as long as tokens live. The first seals,
 *   all open, so that keys can roll over
 * @throws AttestedError `invalid_argument` without a key, or for a short one
 */
export function sealedTokens(options: { keys: readonly (Uint8Array | string)[] }): SealedTokens {
  const { keys: given } = options ?? {};
  if (!Array.isArray(given) || given.length === 0) throw badKeys();
  const keys = given.map((key: Uint8Array | string) => {
    const bytes = typeof key === 'string' ? utf8(key) : key;
    if (!(bytes instanceof Uint8Array && bytes.length >= 32)) throw badKeys();
    return hmacSha256(bytes, utf8('attested sealed token v1'));
  });
  const [current] = keys as [Uint8Array, ...Uint8Array[]];
  const associated = ({ clientId, thumbprint }: Owner) => utf8(JSON.stringify([clientId, thumbprint]));

  return {
    seal(token, owner) {
      const iv = randomBytes(IV_BYTES);
      const cipher = createCipheriv('aes-256-gcm', current, iv).setAAD(associated(owner));
      const bytes = Buffer.concat([iv, cipher.update(token, 'utf8'), cipher.final(), cipher.getAuthTag()]);
      return PREFIX + encodeBase64url(bytes);
    },
    open(text, owner) {
      const bytes =
        text.startsWith(PREFIX) && text.length <= MAX_LENGTH ? decodeBase64url(text.slice(PREFIX.length)) : undefined;
      if (bytes !== undefined && bytes.length > IV_BYTES + TAG_BYTES) {
        for (const key of keys) {
          const token = decrypt(key, bytes, associated(owner));
          if (token !== undefined) return token;
        }
      }
      throw new AttestedError('invalid_grant', 'the refresh token was not issued to this client instance', {
        rule: 'BIND-1',
      });
    },
    isSealed: (text) => text.startsWith(PREFIX),
  };
}

function decrypt(key: Uint8Array, bytes: Uint8Array, associated: Uint8Array): string | undefined {
  const tag = bytes.subarray(bytes.length - TAG_BYTES);
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, IV_BYTES), { authTagLength: TAG_BYTES })
      .setAAD(associated)
      .setAuthTag(tag);
    const text = decipher.update(bytes.subarray(IV_BYTES, bytes.length - TAG_BYTES));
    return fromUtf8(Buffer.concat([text, decipher.final()]));
  } catch {
    return undefined; // not made with this key, or not for this owner
  }
}

function badKeys(): AttestedError {
  return new AttestedError('invalid_argument', 'sealed tokens need a list of keys of 32 bytes or more', {
    rule: 'BIND-1',
  });
}
