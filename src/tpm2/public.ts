/** TPMT_PUBLIC: the public area of a TPM's key, and its Name (TPM 2.0 Part 1 §16, Part 2 §12.2). */
import { encodeBase64url } from '../core/bytes.ts';
import type { EcJwk, PublicJwk, RsaJwk } from '../core/jwk.ts';
import {
  ALG_NULL,
  byId,
  ciphers,
  curves,
  curvesById,
  digest,
  hashesById,
  kdfs,
  modes,
  type ObjectType,
  objectTypes,
  type SchemeName,
  schemes,
} from './algorithms.ts';
import { readAttributes } from './attributes.ts';
import type { Area, EccArea, RsaArea, TpmKdf, TpmPublic, TpmScheme, TpmSymmetric } from './public-area.ts';
import { concat, Reader, u16, u32, withoutSize } from './wire.ts';

const STRUCTURE = 'TPMT_PUBLIC';
const MAX_RSA_BYTES = 512;
const DEFAULT_EXPONENT = 65537;

const typesById = byId(objectTypes);
const ciphersById = byId(ciphers);
const modesById = byId(modes);
const kdfsById = byId(kdfs);

/** The schemes each type of object may have (TPM 2.0 Part 2 §11.1, §11.2). */
const schemesOf: Readonly<Record<Exclude<ObjectType, 'symcipher'>, readonly SchemeName[]>> = {
  rsa: ['rsassa', 'rsapss', 'rsaes', 'oaep'],
  ecc: ['ecdsa', 'ecdaa', 'sm2', 'ecschnorr', 'ecdh', 'ecmqv'],
  keyedhash: ['hmac', 'xor'],
};

type SchemeTable = ReadonlyMap<number, SchemeName | null>;
const schemeTable = (type: keyof typeof schemesOf): SchemeTable =>
  new Map([[ALG_NULL, null], ...schemesOf[type].map((name) => [schemes[name], name] as const)]);
const schemeTables = { rsa: schemeTable('rsa'), ecc: schemeTable('ecc'), keyedhash: schemeTable('keyedhash') };

/**
 * Reads a TPMT_PUBLIC, or a TPM2B_PUBLIC whose size prefix matches. Strict: no byte left over, reserved attribute bits zero,
 * an `authPolicy` as long as a digest of `nameAlg` or empty, SHA-1/256/384/512, AES, NIST P-256/384/521 and RSA up to 4096
 * bits. Says what the area is, not whether it can be trusted: nothing here is proved before a signature covers the Name.
 *
 * @throws AttestedError `tpm_malformed`
 */
export function parsePublic(bytes: Uint8Array): TpmPublic {
  const reader = new Reader(withoutSize(bytes, STRUCTURE, typesById), STRUCTURE);
  const type = reader.id(typesById, 'the type');
  const nameAlg = reader.id(hashesById, 'the name algorithm');
  const attributes = readAttributes(reader.u32()) ?? reader.fail('a reserved attribute bit is set');
  const authPolicy = reader.sized(nameAlg.bytes);
  if (authPolicy.length !== 0 && authPolicy.length !== nameAlg.bytes) reader.fail('the policy is no digest');
  const area = areaReaders[type](reader, nameAlg.bytes);
  reader.end();
  const publicJwk = jwkOf(area);
  return {
    nameAlg: nameAlg.name,
    attributes,
    authPolicy,
    ...area,
    ...(publicJwk !== undefined && { publicJwk }),
    name: concat(u16(nameAlg.id), digest(nameAlg.name, reader.bytes)),
    bytes: reader.bytes,
  };
}

const areaReaders: Readonly<Record<ObjectType, (reader: Reader, digestBytes: number) => Area>> = {
  rsa(reader) {
    const symmetric = readSymmetric(reader);
    const scheme = readScheme(reader, schemeTables.rsa);
    const keyBits = reader.u16();
    if (keyBits % 8 !== 0 || keyBits < 1024 || keyBits > MAX_RSA_BYTES * 8) reader.fail('no sane size of an RSA key');
    const wireExponent = reader.u32();
    const exponent = wireExponent === 0 ? DEFAULT_EXPONENT : wireExponent;
    const unique = reader.sized(keyBits / 8);
    return { type: 'rsa', symmetric, scheme, parameters: { keyBits, exponent, wireExponent }, unique };
  },
  ecc(reader) {
    const symmetric = readSymmetric(reader);
    const scheme = readScheme(reader, schemeTables.ecc);
    const curve = reader.id(curvesById, 'the curve');
    const kdf = readKdf(reader);
    const unique = { x: reader.sized(curve.bytes), y: reader.sized(curve.bytes) };
    return { type: 'ecc', symmetric, scheme, parameters: { curve: curve.name, kdf }, unique };
  },
  keyedhash(reader, digestBytes) {
    const scheme = readScheme(reader, schemeTables.keyedhash);
    return { type: 'keyedhash', symmetric: null, scheme, parameters: {}, unique: readDigest(reader, digestBytes) };
  },
  symcipher(reader, digestBytes) {
    const symmetric = readSymmetric(reader) ?? reader.fail('a cipher key without a cipher');
    return { type: 'symcipher', symmetric, scheme: null, parameters: {}, unique: readDigest(reader, digestBytes) };
  },
};

function readDigest(reader: Reader, digestBytes: number): Uint8Array {
  const unique = reader.sized(digestBytes);
  if (unique.length !== 0 && unique.length !== digestBytes) reader.fail('the unique value is no digest');
  return unique;
}

const symmetricTable = new Map([[ALG_NULL, null], ...ciphersById]);
const kdfTable = new Map([[ALG_NULL, null], ...kdfsById]);

function readSymmetric(reader: Reader): TpmSymmetric | null {
  const name = nullable(reader, symmetricTable, 'the symmetric algorithm');
  if (name === null) return null;
  const keyBits = reader.u16();
  if (keyBits !== 128 && keyBits !== 192 && keyBits !== 256) reader.fail('no size of an AES key');
  return { name, keyBits, mode: reader.id(modesById, 'the cipher mode') };
}

function readScheme(reader: Reader, table: SchemeTable): TpmScheme | null {
  const name = nullable(reader, table, 'the scheme');
  if (name === null) return null;
  if (name === 'rsaes') return { name };
  const hash = reader.id(hashesById, "the scheme's hash").name;
  if (name === 'ecdaa') return { name, hash, count: reader.u16() };
  if (name === 'xor') return { name, hash, kdf: reader.id(kdfsById, "the scheme's key derivation") };
  return { name, hash };
}

function readKdf(reader: Reader): TpmKdf | null {
  const name = nullable(reader, kdfTable, 'the key derivation');
  return name === null ? null : { name, hash: reader.id(hashesById, "the key derivation's hash").name };
}

/** A row that may be null, which {@link Reader.id} would take for none. */
function nullable<Row>(reader: Reader, table: ReadonlyMap<number, Row | null>, what: string): Row | null {
  const id = reader.u16();
  const row = table.get(id);
  return row === undefined ? reader.fail(`${what} is none that this version knows`) : row;
}

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

function jwkOf(area: Area): PublicJwk | undefined {
  if (area.type === 'ecc') return eccJwk(area);
  if (area.type === 'rsa') return rsaJwk(area);
  return undefined;
}

function eccJwk({ parameters: { curve }, unique: { x, y } }: EccArea): EcJwk | undefined {
  if (isZero(x) && isZero(y)) return undefined; // a template; no point of these curves is (0, 0)
  const { bytes } = curves[curve];
  return {
    kty: 'EC',
    crv: curve,
    x: encodeBase64url(leftPadded(x, bytes)),
    y: encodeBase64url(leftPadded(y, bytes)),
  };
}

function rsaJwk({ parameters: { exponent }, unique }: RsaArea): RsaJwk | undefined {
  if (isZero(unique)) return undefined;
  return { kty: 'RSA', n: encodeBase64url(withoutZeros(unique)), e: encodeBase64url(withoutZeros(u32(exponent))) };
}

/** @param length at least that of `bytes` */
export function leftPadded(bytes: Uint8Array, length: number): Uint8Array {
  const padded = new Uint8Array(length);
  padded.set(bytes, length - bytes.length);
  return padded;
}

function withoutZeros(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0);
  return first <= 0 ? bytes : bytes.subarray(first);
}
