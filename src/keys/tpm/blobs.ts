/**
 * What the TPM wrapped, as files: one JSON file each. A blob is of use in the TPM that made it only, so it is not encrypted
 * once more; what it is a key for, and under which label, the file says in clear.
 *
 * The TPM vouches for the public area; the label is the file's word. Who may write here could give a key of this machine
 * another label of this machine, and no more.
 */
import { encodeBase64url } from '../../core/bytes.ts';
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { thumbprintOf } from '../../platform/crypto.ts';
import type { PcrSelection } from '../../tpm2/device.ts';
import { encodePublic } from '../../tpm2/encode-public.ts';
import { readNamedPcrs } from '../../tpm2/named-pcrs.ts';
import { parsePublic } from '../../tpm2/public.ts';
import type { PublicArea, TpmPublic } from '../../tpm2/public-area.ts';
import {
  akTemplate,
  type InstanceKeyAlgorithm,
  instanceKeyTemplate,
  sealTemplate,
  type TemplateOptions,
} from '../../tpm2/templates.ts';
import { type JsonReader, readJsonFile, writeJsonFile } from '../files/json-file.ts';
import { keyFileName } from '../files/key-files.ts';
import type { PublicPart } from '../kept.ts';
import { TPM_ALGORITHMS } from './algorithms.ts';

const VERSION = 1;
const formats = {
  key: 'attested TPM key',
  attestation: 'attested TPM attestation key',
  secrets: 'attested TPM sealed secrets key',
} as const;
const templates: Record<'attestation' | 'secrets', (options: TemplateOptions) => Uint8Array> = {
  attestation: akTemplate,
  secrets: sealTemplate,
};
/** A TPM2B is shorter than any command of a TPM. */
const MAX_TPM2B = 4096;
const MAX_NAME = 66;

export type BlobKind = keyof typeof formats;

export interface Blob {
  /** TPM2B_PUBLIC and TPM2B_PRIVATE. */
  public: Uint8Array;
  private: Uint8Array;
  /** Name of the parent that wrapped it: it tells one TPM from another. */
  parent: Uint8Array;
  /** It has an auth value, made from `tpm.keyAuth`. */
  auth: boolean;
  /** Its policy binds it to the values that these PCRs had. */
  pcrs: PcrSelection | undefined;
}

/** A blob of a key, with what its public area says. */
export interface KeyBlob extends Blob {
  part: PublicPart;
}

export function encodeKeyBlob(label: string, alg: InstanceKeyAlgorithm, blob: Blob): string {
  const { publicJwk } = parsePublic(blob.public);
  return encodeBlob('key', blob, { label, alg, jwk: { ...publicJwk } });
}

export function encodeBlob(kind: BlobKind, blob: Blob, described: JsonObject = {}): string {
  return writeJsonFile({
    format: formats[kind],
    version: VERSION,
    ...described,
    public: encodeBase64url(blob.public),
    private: encodeBase64url(blob.private),
    parent: encodeBase64url(blob.parent),
    auth: blob.auth,
    pcrs: blob.pcrs === undefined ? null : (structuredClone(blob.pcrs) as JsonObject),
  });
}

/**
 * @throws AttestedError `key_store_corrupt`, also where the key in the public area is not the one that the file names, or not
 *   one as we make them: who may write here could have imported a key that he knows into this TPM
 */
export function parseKeyBlob(path: string, name: string, content: Uint8Array): KeyBlob {
  const { file, reader } = readFile(path, content, 'key', ['label', 'alg', 'jwk']);
  const label = reader.text(file.label);
  if (keyFileName(label) !== name) reader.refuse('does not belong to its label');
  const alg = TPM_ALGORITHMS.find((known) => known === file.alg) ?? reader.refuse('is damaged');
  const { area, ...blob } = blobOf(file, reader, (options) => instanceKeyTemplate(alg, options));
  const jwk = area.publicJwk ?? reader.refuse('is damaged');
  if (!isSameJwk(file.jwk, jwk)) reader.refuse('names another key than its public area');
  return { ...blob, part: { label, alg, jwk, thumbprint: thumbprintOf(jwk) } };
}

/** @throws AttestedError `key_store_corrupt` */
export function parseBlob(path: string, kind: keyof typeof templates, content: Uint8Array): Blob & { area: TpmPublic } {
  const { file, reader } = readFile(path, content, kind, []);
  return blobOf(file, reader, templates[kind]);
}

function readFile(
  path: string,
  content: Uint8Array,
  kind: BlobKind,
  described: readonly string[],
): { file: JsonObject; reader: JsonReader } {
  const { json, reader } = readJsonFile(path, content);
  const file = reader.object(json, ['format', 'version', ...described, 'public', 'private', 'parent', 'auth', 'pcrs']);
  if (file.format !== formats[kind] || file.version !== VERSION) reader.refuse('is no file of a known version');
  return { file, reader };
}

function blobOf(
  file: JsonObject,
  reader: JsonReader,
  template: (options: TemplateOptions) => Uint8Array,
): Blob & { area: TpmPublic } {
  const bytes = reader.bytes(file.public, 2, MAX_TPM2B);
  const area = publicAreaOf(bytes, reader);
  const pcrs = file.pcrs === null ? undefined : (readNamedPcrs(file.pcrs) ?? reader.refuse('is damaged'));
  if (typeof file.auth !== 'boolean') return reader.refuse('is damaged');
  const policy = area.authPolicy.length > 0 ? { authPolicy: area.authPolicy } : {};
  if ((pcrs === undefined) !== (policy.authPolicy === undefined) || !isMadeFrom(template(policy), area)) {
    return reader.refuse('holds an object that is not as this program makes them');
  }
  return {
    public: bytes,
    private: reader.bytes(file.private, 2, MAX_TPM2B),
    parent: reader.bytes(file.parent, 2, MAX_NAME),
    auth: file.auth,
    pcrs,
    area,
  };
}

/** Everything but the key itself must be the template's. */
function isMadeFrom(template: Uint8Array, area: TpmPublic): boolean {
  const { type, nameAlg, attributes, authPolicy, symmetric, scheme } = area;
  const none = new Uint8Array();
  const unique = type === 'ecc' ? { x: none, y: none } : none;
  const parameters = { ...area.parameters };
  if ('wireExponent' in parameters) delete parameters.wireExponent;
  const emptied = { type, nameAlg, attributes, authPolicy, symmetric, scheme, parameters, unique } as PublicArea;
  return Buffer.compare(encodePublic(emptied), template) === 0;
}

function publicAreaOf(bytes: Uint8Array, reader: JsonReader): TpmPublic {
  try {
    return parsePublic(bytes);
  } catch {
    return reader.refuse('is damaged'); // with the file's name
  }
}

function isSameJwk(value: unknown, jwk: PublicPart['jwk']): boolean {
  if (!isJsonObject(value)) return false;
  const members = Object.entries(jwk);
  return Object.keys(value).length === members.length && members.every(([name, text]) => value[name] === text);
}
