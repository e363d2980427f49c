/** Keys, and tokens of any shape: also those that our own code would never write. */

import type { SignatureAlgorithm } from '../../src/core/algorithms.ts';
import { encodeBase64url, utf8 } from '../../src/core/bytes.ts';
import type { Signer } from '../../src/core/signer.ts';
import { generatePrivateKey, signerOf } from '../../src/platform/crypto.ts';

export function newSigner(alg: SignatureAlgorithm = 'ES256', kid?: string): Signer {
  return signerOf(generatePrivateKey(alg), alg, kid);
}

/** One part of a token: an object as JSON (undefined members are left out), a text as its UTF-8 bytes, bytes as they are. */
export type Part = object | string | Uint8Array;

export interface Forgery {
  header: Part;
  payload: Part;
  /** Signs the input; absent = the signature is 64 zero bytes. */
  signer?: Pick<Signer, 'sign'> | undefined;
  /** Text of the third part, instead of a signature. */
  signature?: string | undefined;
}

/** Builds `header.payload.signature` and asks nothing. */
export async function forge({ header, payload, signer, signature }: Forgery): Promise<string> {
  const input = `${part(header)}.${part(payload)}`;
  const bytes = signer === undefined ? new Uint8Array(64) : await signer.sign(utf8(input));
  return `${input}.${signature ?? encodeBase64url(bytes)}`;
}

export function part(value: Part): string {
  if (value instanceof Uint8Array) return encodeBase64url(value);
  return encodeBase64url(utf8(typeof value === 'string' ? value : JSON.stringify(value)));
}

/** The members of a token's header and payload, unverified. */
export function decode(token: string): { header: Record<string, unknown>; payload: Record<string, unknown> } {
  const [header, payload] = token.split('.').map((text) => Buffer.from(text, 'base64url').toString());
  return { header: JSON.parse(header ?? ''), payload: JSON.parse(payload ?? '') };
}
