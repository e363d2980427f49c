/** The attacker's tools: requests written by hand, and a plain look at the answer. */
import { isJsonObject, parseJsonObject } from '../../core/json.ts';
import { parseChallenges, readErrorCode } from '../../core/oauth-errors.ts';
import { fetchJson } from '../../platform/http.ts';
import type { RecordedRequest } from './protocol.ts';

export interface RawRequest {
  url: string;
  headers: Record<string, string>;
  body: string;
}

export interface RawAnswer {
  status: number;
  /** OAuth error code. */
  error: string | undefined;
  /** The server's own words. */
  description: string | undefined;
}

export async function post({ url, headers, body }: RawRequest): Promise<RawAnswer> {
  const response = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(5000) });
  const json = parseJsonObject(await response.text());
  const challenge = response.headers.get('www-authenticate');
  const spoken =
    (isJsonObject(json) && typeof json.error_description === 'string' ? json.error_description : undefined) ??
    parseChallenges(challenge ?? '').find(({ params }) => params.error_description !== undefined)?.params
      .error_description;
  return { status: response.status, error: readErrorCode(challenge, json), description: spoken };
}

export interface Fresh {
  challenge: string;
  nonce: string;
}

/** A server's current challenge and DPoP nonce: it gives them to anybody, so the attacker has them too. */
export async function freshValues(metadataUrl: string): Promise<Fresh> {
  const { json } = await fetchJson(metadataUrl, {});
  if (typeof json?.challenge_endpoint !== 'string') throw new Error('the server names no challenge endpoint');
  const { headers } = await fetchJson(json.challenge_endpoint, { method: 'POST' });
  const [challenge, nonce] = [headers.get('oauth-client-attestation-challenge'), headers.get('dpop-nonce')];
  if (challenge === null || nonce === null) throw new Error('the server gave no challenge or no nonce');
  return { challenge, nonce };
}

export function copyOf({ url, headers, body }: RecordedRequest): RawRequest {
  return { url, headers: Object.fromEntries(headers), body };
}

export function withHeaders(request: RecordedRequest, changed: Record<string, string>): RawRequest {
  const { url, headers, body } = copyOf(request);
  return { url, headers: { ...headers, ...changed }, body };
}

export function without(request: RecordedRequest, ...names: string[]): RecordedRequest {
  return { ...request, headers: request.headers.filter(([name]) => !names.includes(name)) };
}

export function headerOf({ headers }: RecordedRequest, wanted: string): string {
  const value = headers.find(([name]) => name === wanted)?.[1];
  if (value === undefined) throw new Error(`the recorded request has no ${wanted} header`);
  return value;
}
