/**
 * Client ID Metadata Documents: a client_id that is the URL of the client's metadata, and the attesters that the client's
 * publisher endorses there (draft-mcguinness-oauth-client-attesters). Pure.
 */
import { algorithmRow } from '../core/algorithms.ts';
import { isJsonObject, type JsonObject, type JsonValue } from '../core/json.ts';
import { authMethodOf, POP_METHODS } from '../core/metadata.ts';

/** A statement of the client's publisher: this attester may speak for this client. */
export interface EndorsedAttester {
  /** The attestations' exact `iss`. */
  issuer: string;
  jwksUri: string;
}

/**
 * The attesters that a client's metadata endorses.
 *
 * @returns undefined when one entry is malformed or an issuer is there twice: then none of the list may be used
 */
export function readClientAttesters(document: JsonObject): EndorsedAttester[] | undefined {
  const { client_attesters: list = [] } = document;
  if (!Array.isArray(list)) return undefined;
  const attesters: EndorsedAttester[] = [];
  for (const entry of list) {
    if (!isJsonObject(entry)) return undefined;
    const { issuer, jwks_uri: jwksUri } = entry;
    if (!isStringOrUri(issuer) || !isHttpsUrl(jwksUri)) return undefined;
    if (attesters.some((other) => other.issuer === issuer)) return undefined;
    attesters.push({ issuer, jwksUri });
  }
  return attesters;
}

/** RFC 7519 §2: any string, but one with a colon must be a URI. */
function isStringOrUri(value: JsonValue | undefined): value is string {
  return typeof value === 'string' && value !== '' && (!value.includes(':') || URL.canParse(value));
}

/** https, and neither user information nor fragment. */
export function isHttpsUrl(value: unknown): value is string {
  if (typeof value !== 'string' || !URL.canParse(value)) return false;
  const { protocol, username, password } = new URL(value);
  return protocol === 'https:' && username === '' && password === '' && !value.includes('#') && !value.includes('@');
}

/**
 * Why a text cannot be a client_id that is a document's URL; undefined when it can. Only the normal form of a URL will do, so
 * that comparing texts is comparing URLs.
 */
export function clientUrlFault(clientId: string): string | undefined {
  if (!URL.canParse(clientId)) return 'is no URL';
  const url = new URL(clientId);
  if (url.protocol !== 'https:') return 'is not https';
  if (url.username !== '' || url.password !== '') return 'carries credentials';
  if (clientId.includes('#')) return 'has a fragment';
  if (url.pathname === '/') return 'has no path';
  if (url.href !== clientId) return 'is not in its normal form (upper case, dot segments, default port or the like)';
  if (/%2f|%5c/i.test(url.pathname)) return 'has an encoded slash in its path';
  // some servers take the parameter off and then climb
  if (/\/\.{1,2};/.test(url.pathname)) return 'has a dot segment with a parameter in its path';
  return undefined;
}

export interface DocumentFinding {
  /** `refused`: an authorization server has to refuse it, or would be wrong not to. `warning`: it works, but look at it. */
  severity: 'refused' | 'warning';
  rule: string;
  message: string;
}

/** What most authorization servers read of a document at most, bytes. */
export const MAX_DOCUMENT_BYTES: number = 5 * 1024;

const OURS: readonly string[] = Object.values(authMethodOf);
const SYMMETRIC = ['client_secret_basic', 'client_secret_post', 'client_secret_jwt'];
const OTHERS = ['none', 'private_key_jwt', 'tls_client_auth', 'self_signed_tls_client_auth'];

/**
 * Looks at a client's metadata document as an authorization server should.
 *
 * @param url where the document is, or will be
 */
export function checkClientDocument(document: JsonObject, url: string): DocumentFinding[] {
  const findings: DocumentFinding[] = [];
  const refuse = (rule: string, message: string) => void findings.push({ severity: 'refused', rule, message });
  const warn = (rule: string, message: string) => void findings.push({ severity: 'warning', rule, message });
  const fault = clientUrlFault(url);
  if (fault !== undefined) refuse('CIMD', `the document's URL ${fault}`);
  else if (url.includes('?')) warn('CIMD', "the document's URL has a query");
  if (typeof document.client_id !== 'string') refuse('CIMD', 'client_id is missing');
  else if (document.client_id !== url) refuse('CIMD', "client_id is not the document's URL, character by character");

  const notes: Notes = { refuse, warn };
  checkSecrets(document, notes);
  checkMethod(document, notes);
  checkAlgorithms(document, notes);
  checkRedirects(document, notes);
  checkAttesters(document, notes);
  return findings;
}

type Note = (rule: string, message: string) => void;
interface Notes {
  refuse: Note;
  warn: Note;
}

function checkSecrets(document: JsonObject, { refuse, warn }: Notes): void {
  for (const name of ['client_secret', 'client_secret_expires_at']) {
    if (document[name] !== undefined) refuse('CIMD', `${name} is in a document that everybody can read`);
  }
  const keys = isJsonObject(document.jwks) && Array.isArray(document.jwks.keys) ? document.jwks.keys : [];
  if (keys.some((key) => isJsonObject(key) && (key.kty === 'oct' || key.d !== undefined || key.k !== undefined))) {
    refuse('VER-4', 'jwks holds a private or symmetric key: take it out of use');
  }
  if (document.jwks !== undefined || document.jwks_uri !== undefined) {
    warn('META-5', 'jwks and jwks_uri play no part in attestation: every instance has a key of its own');
  }
}

function checkMethod(document: JsonObject, { refuse, warn }: Notes): void {
  const { token_endpoint_auth_method: method, client_attestation_pop_methods_supported: methods } = document;
  if (method === undefined) {
    refuse('META-5', 'token_endpoint_auth_method is missing, which means a shared secret');
  } else if (SYMMETRIC.includes(method as string)) {
    refuse('CIMD', 'token_endpoint_auth_method is one with a shared secret, which a public document cannot have');
  } else if (OTHERS.includes(method as string)) {
    warn('META-5', 'token_endpoint_auth_method does not demand an attestation: whoever can use the client_id gets in');
  } else if (!OURS.includes(method as string)) {
    refuse('META-5', 'token_endpoint_auth_method is not known');
  }
  if (methods === undefined) return;
  const list = strings(methods);
  if (list === undefined || list.length === 0) {
    refuse('META-5', 'client_attestation_pop_methods_supported is not a list of names');
  } else if (list.some((name) => name !== 'none' && !POP_METHODS.includes(name as never))) {
    refuse('META-5', 'client_attestation_pop_methods_supported has a method that is not known');
  } else if (OURS.includes(method as string) && !list.some((name) => authMethodOf[name as never] === method)) {
    refuse('META-5', 'client_attestation_pop_methods_supported lacks the method of token_endpoint_auth_method');
  }
}

const ALGORITHM_LISTS = [
  'client_attestation_signing_alg_values_supported',
  'client_attestation_pop_signing_alg_values_supported',
];

function checkAlgorithms(document: JsonObject, { refuse, warn }: Notes): void {
  for (const name of ALGORITHM_LISTS) {
    const value = document[name];
    if (value === undefined) continue;
    const list = strings(value);
    if (list === undefined || list.length === 0) refuse('META-5', `${name} is not a list of names`);
    else if (list.some((alg) => alg === 'none' || algorithmRow(alg)?.kty === 'oct')) {
      refuse('VER-2', `${name} has none or a symmetric algorithm`);
    } else if (list.some((alg) => algorithmRow(alg) === undefined)) {
      warn('META-5', `${name} has an algorithm that is not known here`);
    }
  }
}

/** Schemes that run what is behind them. */
const ACTIVE = /^(javascript|data|vbscript|blob|file|about):$/;

function checkRedirects(document: JsonObject, { refuse, warn }: Notes): void {
  const grants = document.grant_types === undefined ? ['authorization_code'] : strings(document.grant_types);
  const uris = document.redirect_uris === undefined ? [] : strings(document.redirect_uris);
  if (grants === undefined || uris === undefined) {
    refuse('RFC 7591 §2', 'grant_types or redirect_uris is not a list of texts');
    return;
  }
  if (uris.length === 0 && grants.includes('authorization_code')) {
    refuse('RFC 7591 §2', 'redirect_uris is missing, and the authorization_code grant needs one');
  }
  for (const uri of uris) {
    if (!URL.canParse(uri) || uri.includes('#') || uri.includes('*')) {
      refuse('RFC 6749 §3.1.2', 'a redirect URI is not absolute, or has a fragment or a wildcard');
      continue;
    }
    const { protocol, hostname } = new URL(uri);
    const loopback = /^(127(\.\d{1,3}){3}|\[::1\]|localhost)$/.test(hostname);
    if (ACTIVE.test(protocol)) refuse('RFC 6749 §3.1.2', 'a redirect URI has a scheme that runs code or reads files');
    else if (protocol === 'http:' && !loopback) refuse('RFC 8252 §7.3', 'a redirect URI is http and not on loopback');
    else if (hostname === 'localhost') warn('RFC 8252 §8.3', 'a redirect URI says localhost: 127.0.0.1 is safer');
    else if (protocol !== 'https:' && protocol !== 'http:') {
      warn('RFC 8252 §7.1', 'a redirect URI has a scheme of its own, which other programs may claim');
    }
  }
}

function checkAttesters(document: JsonObject, { refuse, warn }: Notes): void {
  const attesters = readClientAttesters(document);
  if (attesters === undefined) {
    refuse('client_attesters', 'client_attesters is malformed or names an issuer twice: no entry counts');
    return;
  }
  if (attesters.length === 0) {
    warn('client_attesters', 'no attester is endorsed: servers have to know by other means who may attest this client');
  }
  for (const { issuer, jwksUri } of attesters) {
    if (!isHttpsUrl(issuer) || new URL(issuer).origin !== new URL(jwksUri).origin) {
      warn(
        'client_attesters',
        "an attester's jwks_uri is not at its issuer's origin: servers must know its keys already",
      );
    }
  }
}

function strings(value: JsonValue): string[] | undefined {
  return Array.isArray(value) && value.every((item) => typeof item === 'string') ? (value as string[]) : undefined;
}
