/**
 * One key as a file: the public part in clear, so that listing costs no decryption, and the PKCS #8 private key under
 * AES-256-GCM with the public part as additional data. Nobody can so move a private key under another label or algorithm.
 *
 * The public part is authentic only once the private part was opened; a listing on its own may show what was tampered with.
 */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import type { SignatureAlgorithm } from '../../core/algorithms.ts';
import { algorithmRow, keyFits, signatureAlgorithms } from '../../core/algorithms.ts';
import { utf8 } from '../../core/bytes.ts';
import { type PublicJwk, readPublicJwk, thumbprintInput } from '../../core/jwk.ts';
import type { Signer } from '../../core/signer.ts';
import { signerOf, thumbprintOf } from '../../platform/crypto.ts';
import { corrupt } from '../files/faults.ts';
import { type JsonReader, readJsonFile, writeJsonFile } from '../files/json-file.ts';
import { keyFileName } from '../files/key-files.ts';
import { readSealedMembers, type Sealed, seal, sealedMembers, unseal } from '../files/sealed.ts';
import { type PublicPart, publicPartOf } from '../kept.ts';

const FORMAT = 'attested software key';
const VERSION = 1;
const PURPOSE = 'attested software keys v1 key file';
const MAX_DER = 16_384;

export interface KeyFile {
  public: PublicPart;
  private: Sealed;
}

/** A new key file's content. @param der PKCS #8; overwritten with zeros */
export function sealKey(label: string, alg: SignatureAlgorithm, der: Uint8Array, root: KeyObject): string {
  const key = privateKeyOf(der);
  const part = publicPartOf(label, alg, signerOf(key, alg));
  const sealed = seal(root, PURPOSE, additionalData(part), der);
  der.fill(0);
  return writeJsonFile({
    format: FORMAT,
    version: VERSION,
    public: { ...part, jwk: { ...part.jwk } },
    ...sealedMembers(sealed),
  });
}

/** Reads a key file as far as it can be read without a secret. @throws AttestedError `key_store_corrupt` */
export function parseKeyFile(path: string, name: string, content: Uint8Array): KeyFile {
  const { json, reader } = readJsonFile(path, content);
  const file = reader.object(json, ['format', 'version', 'public', 'derivation', 'encryption']);
  if (file.format !== FORMAT || file.version !== VERSION) reader.refuse('is no key file of a known version');
  return {
    public: parsePublicPart(file.public, name, reader),
    private: readSealedMembers(file, reader, MAX_DER, 1),
  };
}

/** Decrypts the private key. @throws AttestedError `key_store_corrupt` */
export function openKey(path: string, file: KeyFile, root: KeyObject): KeyObject {
  try {
    const der = unseal(root, PURPOSE, additionalData(file.public), file.private);
    const key = privateKeyOf(der);
    der.fill(0);
    const signer: Signer = signerOf(key, file.public.alg);
    if (signer.thumbprint === file.public.thumbprint) return key;
  } catch {
    // one answer for every failure; a cause might quote what was decrypted
  }
  throw corrupt(path, 'was altered, or was copied here from another store');
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
