/** Looks at a client's metadata document as an authorization server would, and at its attesters' keys if asked to. */
import { keyFits, signatureAlgorithms } from '../../core/algorithms.ts';
import { isJsonObject, type JsonObject, parseJsonObject } from '../../core/json.ts';
import { readPublicJwk } from '../../core/jwk.ts';
import type { JsonWebKey } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import {
  checkClientDocument,
  type DocumentFinding,
  type EndorsedAttester,
  MAX_DOCUMENT_BYTES,
  readClientAttesters,
} from '../../platform/client-document.ts';
import { type FetchLike, fetchJson, fetchText, isJson } from '../../platform/http.ts';
import { publicFetch } from '../../platform/public-fetch.ts';
import { UsageError } from '../command.ts';
import { readText } from '../files.ts';

export interface DocumentCheck {
  /** The document's URL. */
  url: string;
  /** No finding is a refusal. */
  ok: boolean;
  method: string | undefined;
  attesters: { issuer: string; jwksUri: string; keys?: number }[];
  findings: DocumentFinding[];
}

export interface CheckOptions {
  /** The document's URL where it is read from a file; default its own client_id. */
  url: string | undefined;
  /** Fetch the attesters' keys. */
  online: boolean;
  /** Follow the document into private networks too. What is behind its URLs its publisher decides, not who checks it. */
  privateNetworks: boolean;
}

/** @param where URL or file. @throws UsageError for a file that cannot be read or has no document in it */
export async function checkDocument(where: string, options: CheckOptions): Promise<DocumentCheck> {
  const findings: DocumentFinding[] = [];
  const refuse = (rule: string, message: string) => void findings.push({ severity: 'refused', rule, message });
  const isUrl = /^https?:/i.test(where);
  const document = isUrl ? await fetched(where, findings) : await fromFile(where, findings);
  const url = options.url ?? (isUrl ? where : String(document?.client_id ?? ''));
  if (document === undefined) return { url, ok: false, method: undefined, attesters: [], findings };
  findings.push(...checkClientDocument(document, url));
  const attesters: DocumentCheck['attesters'] = [];
  const fetch = options.privateNetworks ? globalThis.fetch : publicFetch();
  for (const attester of readClientAttesters(document) ?? []) {
    if (!options.online) attesters.push(attester);
    else attesters.push({ ...attester, keys: await keysOf(attester, fetch, refuse) });
  }
  const { token_endpoint_auth_method: method } = document;
  return {
    url,
    ok: findings.every(({ severity }) => severity !== 'refused'),
    method: typeof method === 'string' ? method : undefined,
    attesters,
    findings,
  };
}

async function fromFile(path: string, findings: DocumentFinding[]): Promise<JsonObject | undefined> {
  return parsed(await readText(path), findings);
}

async function fetched(url: string, findings: DocumentFinding[]): Promise<JsonObject | undefined> {
  const refuse = (message: string) => void findings.push({ severity: 'refused', rule: 'CIMD', message });
  try {
    const { status, headers, text } = await fetchText(url, { headers: { accept: 'application/json' } });
    if (status !== 200) {
      refuse(`the URL answers with status ${status}, where only 200 counts`);
      return undefined;
    }
    if (!isJson(headers.get('content-type'))) refuse('the document is not labelled as JSON');
    return parsed(text, findings);
  } catch (error) {
    if (!(error instanceof AttestedError)) throw error;
    if (error.code === 'invalid_argument') throw new UsageError('--check: a URL must be https');
    refuse(`the document cannot be fetched: ${error.message}`);
    return undefined;
  }
}

function parsed(text: string, findings: DocumentFinding[]): JsonObject | undefined {
  const document = parseJsonObject(text);
  if (document === undefined) {
    const message = 'the document is not one JSON object, or has a member twice';
    findings.push({ severity: 'refused', rule: 'CIMD', message });
  } else if (Buffer.byteLength(text) > MAX_DOCUMENT_BYTES) {
    const message = `the document is larger than the ${MAX_DOCUMENT_BYTES} bytes that servers read`;
    findings.push({ severity: 'refused', rule: 'CIMD', message });
  }
  return document;
}

/** How many keys an attester publishes that attestations may be signed with. */
async function keysOf(
  { jwksUri }: EndorsedAttester,
  fetch: FetchLike,
  refuse: (rule: string, message: string) => void,
): Promise<number> {
  try {
    const { status, json } = await fetchJson(jwksUri, {}, { fetch });
    const keys = status === 200 && Array.isArray(json?.keys) ? json.keys : undefined;
    if (keys === undefined) {
      refuse('client_attesters', `an attester's jwks_uri gives no JWK Set (status ${status})`);
      return 0;
    }
    const good = keys.filter((key) => isJsonObject(key) && isSigningKey(key));
    const kids = new Set(good.map((key) => (key as JsonObject).kid));
    if (good.length === 0)
      refuse('client_attesters', 'an attester publishes no key that attestations can be signed with');
    else if (kids.size < good.length) refuse('client_attesters', 'an attester publishes two keys under one kid');
    return good.length;
  } catch (error) {
    if (!(error instanceof AttestedError)) throw error;
    refuse('client_attesters', `an attester's keys cannot be fetched: ${error.message}`);
    return 0;
  }
}

function isSigningKey(key: JsonObject): boolean {
  if (typeof key.kid !== 'string' || key.kid === '' || (key.use !== undefined && key.use !== 'sig')) return false;
  try {
    const jwk = readPublicJwk(key as JsonWebKey, 'invalid_argument', 'IMPL-5');
    return signatureAlgorithms.some((alg) => keyFits(alg, jwk));
  } catch {
    return false;
  }
}
