/**
 * One key as a file: the public part in clear, so that listing costs no decryption, and the PKCS #8 private key under
 * AES-256-GCM with the public part as additional data. Nobody can so move a private key under another label or algorithm.
 *
 * The public part is authentic only once the private part was opened; a listing on its own may show what was tampered with.
 */
import { createCipheriv, createDecipheriv, createPrivateKey, type KeyObject, randomBytes } from 'node:crypto';
import type { SignatureAlgorithm } from '../../core/algorithms.ts';
import { algorithmRow, keyFits, signatureAlgorithms } from '../../core/algorithms.ts';
import { encodeBase64url, utf8 } from '../../core/bytes.ts';
import { type PublicJwk, readPublicJwk, thumbprintInput } from '../../core/jwk.ts';
import type { Signer } from '../../core/signer.ts';
import { sha256, signerOf, thumbprintOf } from '../../platform/crypto.ts';
import { corrupt } from './faults.ts';
import { deriveSubkey } from './header.ts';
import { type JsonReader, readJsonFile, writeJsonFile } from './json-file.ts';

const FORMAT = 'attested software key';
const VERSION = 1;
const CIPHER = 'aes-256-gcm';
const [SALT_BYTES, NONCE_BYTES, TAG_BYTES, MAX_DER] = [16, 12, 16, 16_384];
const SUFFIX = '.key.json';
const NAME = /^[0-9a-f]{64}\.key\.json$/;

export interface PublicPart {
  label: string;
  alg: SignatureAlgorithm;
  jwk: PublicJwk;
  thumbprint: string;
}

export interface KeyFile {
  public: PublicPart;
  salt: Uint8Array;
  nonce: Uint8Array;
  ciphertext: Uint8Array;
  tag: Uint8Array;
}

/** A hash, in hexadecimal: labels may look like paths, and some file systems ignore case. */
export function keyFileName(label: string): string {
  return `${Buffer.from(sha256(utf8(label))).toString('hex')}${SUFFIX}`;
}

export function isKeyFileName(name: string): boolean {
  return NAME.test(name);
}

/** A new key file's content. @param der PKCS #8; overwritten with zeros */
export function sealKey(label: string, alg: SignatureAlgorithm, der: Uint8Array, root: KeyObject): string {
  const key = privateKeyOf(der);
  const signer = signerOf(key, alg);
  const part: PublicPart = {
    label,
    alg,
    jwk: readPublicJwk(signer.publicJwk, 'invalid_argument'),
    thumbprint: signer.thumbprint,
  };
  const [salt, nonce] = [randomBytes(SALT_BYTES), randomBytes(NONCE_BYTES)];
  const cipher = createCipheriv(CIPHER, fileKey(root, salt), nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(additionalData(part));
  const ciphertext = Buffer.concat([cipher.update(der), cipher.final()]);
  der.fill(0);
  return writeJsonFile({
    format: FORMAT,
    version: VERSION,
    public: { ...part, jwk: { ...part.jwk } },
    derivation: { name: 'hkdf-sha256', salt: encodeBase64url(salt) },
    encryption: {
      name: 'A256GCM',
      nonce: encodeBase64url(nonce),
      ciphertext: encodeBase64url(ciphertext),
      tag: encodeBase64url(cipher.getAuthTag()),
    },
  });
}

/** Reads a key file as far as it can be read without a secret. @throws AttestedError `key_store_corrupt` */
export function parseKeyFile(path: string, name: string, content: Uint8Array): KeyFile {
  const { json, reader } = readJsonFile(path, content);
  const file = reader.object(json, ['format', 'version', 'public', 'derivation', 'encryption']);
  if (file.format !== FORMAT || file.version !== VERSION) reader.refuse('is no key file of a known version');
  const derivation = reader.object(file.derivation, ['name', 'salt']);
  const encryption = reader.object(file.encryption, ['name', 'nonce', 'ciphertext', 'tag']);
  if (derivation.name !== 'hkdf-sha256' || encryption.name !== 'A256GCM')
    reader.refuse('is encrypted in an unknown way');
  return {
    public: parsePublicPart(file.public, name, reader),
    salt: reader.bytes(derivation.salt, SALT_BYTES),
    nonce: reader.bytes(encryption.nonce, NONCE_BYTES),
    ciphertext: reader.bytes(encryption.ciphertext, 1, MAX_DER),
    tag: reader.bytes(encryption.tag, TAG_BYTES),
  };
}

/** Decrypts the private key. @throws AttestedError `key_store_corrupt` */
export function openKey(path: string, file: KeyFile, root: KeyObject): KeyObject {
  try {
    const decipher = createDecipheriv(CIPHER, fileKey(root, file.salt), file.nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(additionalData(file.public));
    decipher.setAuthTag(file.tag);
    const der = Buffer.concat([decipher.update(file.ciphertext), decipher.final()]);
    const key = privateKeyOf(der);
    der.fill(0);
    const signer: Signer = signerOf(key, file.public.alg);
    if (signer.thumbprint === file.public.thumbprint) return key;
  } catch {
    // one answer for every failure; a cause might quote what was decrypted
  }
  throw corrupt(path, 'was altered, or was copied here from another store');
}

/** Do two files say the same of the same key? */
export function samePublicPart(a: PublicPart, b: PublicPart): boolean {
  return a.label === b.label && a.alg === b.alg && a.thumbprint === b.thumbprint;
}

function parsePublicPart(value: unknown, name: string, reader: JsonReader): PublicPart {
  const part = reader.object(value, ['label', 'alg', 'jwk', 'thumbprint']);
  const label = reader.text(part.label);
  if (keyFileName(label) !== name) reader.refuse('does not belong to its label');
  const alg = signatureAlgorithms.find((known) => known === part.alg);
  const jwk = publicJwkOf(part.jwk, reader);
  if (alg === undefined || algorithmRow(alg) === undefined || !keyFits(alg, jwk)) return reader.refuse('is damaged');
  if (thumbprintOf(jwk) !== part.thumbprint) return reader.refuse('is damaged');
  return { label, alg, jwk, thumbprint: part.thumbprint };
}

function publicJwkOf(value: unknown, reader: JsonReader): PublicJwk {
  try {
    return readPublicJwk(value, 'key_store_corrupt');
  } catch {
    return reader.refuse('is damaged'); // with the file's name
  }
}

function fileKey(root: KeyObject, salt: Uint8Array): Uint8Array {
  return deriveSubkey(root, salt, 'attested software keys v1 key file');
}

function additionalData({ label, alg, jwk }: PublicPart): Uint8Array {
  return utf8(JSON.stringify([FORMAT, VERSION, label, alg, thumbprintInput(jwk)]));
}

function privateKeyOf(der: Uint8Array): KeyObject {
  return createPrivateKey({
    key: Buffer.from(der.buffer, der.byteOffset, der.byteLength),
    format: 'der',
    type: 'pkcs8',
  });
}
