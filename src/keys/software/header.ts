/**
 * `store.json`, the header of a key directory: how its root key is derived, and a verifier that tells a wrong secret from
 * a damaged key. The costly derivation is done once per opening; each key file then gets its own key by HKDF (RFC 5869).
 */
import { createSecretKey, hkdfSync, type KeyObject, randomBytes, scrypt } from 'node:crypto';
import { encodeBase64url, utf8 } from '../../core/bytes.ts';
import type { JsonObject } from '../../core/json.ts';
import { equalInConstantTime, sha256Base64url } from '../../platform/crypto.ts';
import { unavailable } from '../files/faults.ts';
import { readJsonFile, writeJsonFile } from '../files/json-file.ts';
import { deriveSubkey } from '../files/sealed.ts';
import { isScryptLog2N } from '../options.ts';
import { MACHINE_SOURCES, type MachineSource } from './machine-secret.ts';

const FORMAT = 'attested software key store';
const VERSION = 1;
const SALT_BYTES = 16;
const KEY_BYTES = 32;
const VERIFIER_INFO = 'attested software keys v1 verifier';
const MACHINE_INFO = 'attested software keys v1 machine';

/** Derivation of the root key: scrypt (RFC 7914, r = 8, p = 1) over a passphrase, or HKDF over a secret that needs no stretching. */
export type Derivation = ScryptDerivation | MachineDerivation;
export interface ScryptDerivation {
  name: 'scrypt';
  log2N: number;
  salt: Uint8Array;
}
export interface MachineDerivation {
  name: 'hkdf-sha256';
  source: MachineSource;
  salt: Uint8Array;
}
export interface StoreHeader {
  derivation: Derivation;
  verifier: Uint8Array;
}

export function newSalt(): Uint8Array {
  return randomBytes(SALT_BYTES);
}

/** The root key, 32 bytes. `secret` is the passphrase in UTF-8 (NFC), or the machine's secret. */
export async function deriveRoot(derivation: Derivation, secret: Uint8Array): Promise<KeyObject> {
  return createSecretKey(
    derivation.name === 'scrypt'
      ? await stretch(derivation, secret)
      : Buffer.from(hkdfSync('sha256', secret, derivation.salt, MACHINE_INFO, KEY_BYTES)),
  );
}

export function isRootOf(header: StoreHeader, root: KeyObject): boolean {
  return equalInConstantTime(verifierOf(root), header.verifier);
}

export function encodeHeader(derivation: Derivation, root: KeyObject): string {
  const json: JsonObject = {
    format: FORMAT,
    version: VERSION,
    derivation: { ...derivation, salt: encodeBase64url(derivation.salt) },
    verifier: encodeBase64url(verifierOf(root)),
  };
  return writeJsonFile({ ...json, checksum: checksumOf(json) });
}

/** Reads a header. The costs it may ask for are bounded. @throws AttestedError `key_store_corrupt` */
export function decodeHeader(path: string, content: Uint8Array): StoreHeader {
  const { json, reader } = readJsonFile(path, content);
  const file = reader.object(json, ['format', 'version', 'derivation', 'verifier', 'checksum']);
  if (file.format !== FORMAT || file.version !== VERSION) reader.refuse('is no key store header of a known version');
  const { checksum, ...rest } = file;
  // against accidents only: without it, a flipped bit in the salt would be reported as a wrong passphrase
  if (checksum !== checksumOf(rest)) reader.refuse('is damaged (its checksum does not fit)');
  const isScrypt = (file.derivation as JsonObject | null)?.name === 'scrypt';
  const derivation = reader.object(file.derivation, ['name', isScrypt ? 'log2N' : 'source', 'salt']);
  const salt = reader.bytes(derivation.salt, SALT_BYTES);
  const verifier = reader.bytes(file.verifier, KEY_BYTES);
  if (isScrypt) {
    const { log2N } = derivation;
    if (!isScryptLog2N(log2N)) return reader.refuse('asks for a scrypt cost out of bounds');
    return { derivation: { name: 'scrypt', log2N, salt }, verifier };
  }
  const source = MACHINE_SOURCES.find((known) => known === derivation.source);
  if (derivation.name !== 'hkdf-sha256' || source === undefined) return reader.refuse('is derived in an unknown way');
  return { derivation: { name: 'hkdf-sha256', source, salt }, verifier };
}

function verifierOf(root: KeyObject): Uint8Array {
  return deriveSubkey(root, new Uint8Array(), VERIFIER_INFO);
}

function checksumOf(json: JsonObject): string {
  return sha256Base64url(utf8(JSON.stringify(json)));
}

function stretch({ log2N, salt }: ScryptDerivation, secret: Uint8Array): Promise<Buffer> {
  const N = 2 ** log2N;
  return new Promise((resolve, reject) => {
    scrypt(secret, salt, KEY_BYTES, { N, r: 8, p: 1, maxmem: 2 * 128 * 8 * N }, (error, key) => {
      if (error) reject(unavailable('scrypt did not get the memory that it needs', error));
      else resolve(key);
    });
  });
}
