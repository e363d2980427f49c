/**
 * One key as an entry of the keychain: a private JWK with its `alg`, as text, at most 2560 bytes (Windows takes no more).
 * Whatever `importSigner` reads is understood too, so that a PEM which a person put there is a key.
 */
import { createPrivateKey, type webcrypto } from 'node:crypto';
import { algorithms, type SignatureAlgorithm } from '../../core/algorithms.ts';
import { utf8 } from '../../core/bytes.ts';
import { parseJsonObject } from '../../core/json.ts';
import type { JsonWebKey } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { equalInConstantTime, generatePrivateKey, sha256 } from '../../platform/crypto.ts';
import { type HeldKey, publicPartOf } from '../kept.ts';
import { importSigner } from '../signers.ts';

export interface EntryKey extends HeldKey {
  key: webcrypto.CryptoKey;
  /** Of the entry, to see whether it is still the same. */
  digest: Uint8Array;
}

/** A new key as the text of its entry. */
export function newEntry(alg: SignatureAlgorithm): Uint8Array {
  return utf8(JSON.stringify({ ...generatePrivateKey(alg).export({ format: 'jwk' }), alg }));
}

/** The key of an entry, imported non-extractable. The entry's bytes are overwritten. @throws AttestedError `key_store_corrupt` */
export async function openEntry(label: string, entry: Uint8Array, held: EntryKey | undefined): Promise<EntryKey> {
  const digest = sha256(entry);
  try {
    if (held !== undefined && equalInConstantTime(held.digest, digest)) return held;
    const text = textOf(entry);
    const named: JsonWebKey | undefined = parseJsonObject(text);
    const signer = importSigner(named ?? text); // its public and private parts belong together
    const alg = signer.alg as SignatureAlgorithm;
    const der = createPrivateKey(named === undefined ? text : { key: named, format: 'jwk' }).export({
      type: 'pkcs8',
      format: 'der',
    });
    const key = await crypto.subtle.importKey('pkcs8', der, webAlgorithm(alg), false, ['sign']);
    der.fill(0);
    return { part: publicPartOf(label, alg, signer), key, digest };
  } catch {
    // the cause is left out: it may quote the key
    throw new AttestedError(
      'key_store_corrupt',
      'the keychain entry of this label is no private key; it was left as it is',
    );
  } finally {
    entry.fill(0);
  }
}

export async function signWith({ part, key }: EntryKey, data: Uint8Array): Promise<Uint8Array> {
  const bytes = Uint8Array.from(data); // WebCrypto takes no view of shared memory
  return new Uint8Array(await crypto.subtle.sign(webAlgorithm(part.alg), key, bytes));
}

type WebAlgorithm = webcrypto.EcdsaParams & webcrypto.EcKeyImportParams & webcrypto.RsaPssParams;

/** A JWS algorithm in WebCrypto's words, for import and for signing. */
function webAlgorithm(alg: SignatureAlgorithm): WebAlgorithm {
  const { kty, crv, hash, pss } = algorithms[alg];
  const name = kty === 'EC' ? 'ECDSA' : kty === 'OKP' ? 'Ed25519' : pss ? 'RSA-PSS' : 'RSASSA-PKCS1-v1_5';
  const bits = Number(hash?.slice(3) ?? 0);
  return { name, namedCurve: crv ?? '', hash: `SHA-${bits}`, saltLength: bits / 8 };
}

/** Programs on Windows write UTF-16. A key's text is ASCII, so that a zero in the second byte tells. */
function textOf(entry: Uint8Array): string {
  return Buffer.from(entry.buffer, entry.byteOffset, entry.byteLength).toString(entry[1] === 0 ? 'utf16le' : 'utf8');
}
