/** Refusals on the wire (ABCA §7.4): how a server writes them, how a client reads them. Pure. */
import type { AttestedError, ErrorCode } from '../errors.ts';
import { CHALLENGE_HEADER, DPOP_NONCE_HEADER } from './headers.ts';
import { isJsonObject } from './json.ts';

/** Status at an AS (RFC 6749 §5.2) and at an RS (RFC 6750 §3.1) of each code that may travel. */
const WIRE: Readonly<Partial<Record<ErrorCode, { as: number; rs: number }>>> = {
  use_attestation_challenge: { as: 400, rs: 401 },
  use_fresh_attestation: { as: 400, rs: 401 },
  use_dpop_nonce: { as: 400, rs: 401 },
  invalid_dpop_proof: { as: 400, rs: 401 },
  invalid_client_attestation: { as: 400, rs: 401 },
  invalid_client: { as: 401, rs: 401 },
  invalid_grant: { as: 400, rs: 400 },
  invalid_request: { as: 400, rs: 400 },
  invalid_token: { as: 400, rs: 401 },
  insufficient_scope: { as: 400, rs: 403 },
  access_denied: { as: 403, rs: 403 },
  device_conflict: { as: 409, rs: 409 },
  temporarily_unavailable: { as: 503, rs: 503 },
};

export interface WireAnswer {
  status: number;
  headers: Record<string, string>;
  body: { error: string; error_description?: string };
}

/**
 * The HTTP answer for a refusal (ERR-1 to ERR-3). Errors that are not of the wire, so faults of our own, give a bare 503
 * `temporarily_unavailable`: their message is for the log.
 *
 * @param extra further WWW-Authenticate parameters of an RS, such as `resource_metadata` (RFC 9728 §5.1)
 */
export function wireAnswer(
  error: AttestedError | undefined,
  role: 'as' | 'rs',
  extra: Record<string, string> = {},
): WireAnswer {
  const row = error === undefined ? undefined : WIRE[error.code];
  const known = row === undefined ? undefined : error;
  const code = known?.code ?? 'temporarily_unavailable';
  const status = row?.[role] ?? 503;
  const body: WireAnswer['body'] = { error: code };
  if (known !== undefined) body.error_description = known.message;
  const headers: Record<string, string> = { 'Cache-Control': 'no-store', 'Content-Type': 'application/json' };
  if (known?.challenge !== undefined) headers[CHALLENGE_HEADER] = known.challenge;
  if (known?.dpopNonce !== undefined) headers[DPOP_NONCE_HEADER] = known.dpopNonce;
  if (status === 503) headers['Retry-After'] = '1';
  // a 403 of ours says what was missing in the same way (RFC 6750 §3.1)
  if (status === 401 || (status === 403 && code === 'insufficient_scope')) {
    const scheme = code === 'use_dpop_nonce' || code === 'invalid_dpop_proof' ? 'DPoP' : 'Bearer';
    headers['WWW-Authenticate'] =
      role === 'as'
        ? 'Bearer error="invalid_client"'
        : `${scheme} ${Object.entries({ error: code, error_description: body.error_description, ...extra })
            .filter(([, value]) => value !== undefined)
            .map(([name, value]) => `${name}=${quoted(value as string)}`)
            .join(', ')}`;
  }
  return { status, headers, body };
}

function quoted(text: string): string {
  return `"${text.replace(/[^\x20-\x7e]/g, ' ').replace(/[\\"]/g, '\\$&')}"`;
}

/** Codes after which a client tries once more (ERR-4), and what it has to renew first. */
export const RETRY_AFTER: Readonly<Record<RetryCode, string>> = {
  use_attestation_challenge: 'challenge',
  use_dpop_nonce: 'nonce',
  use_fresh_attestation: 'attestation',
};

export type RetryCode = Extract<ErrorCode, 'use_attestation_challenge' | 'use_dpop_nonce' | 'use_fresh_attestation'>;

export function isRetryCode(code: string | undefined): code is RetryCode {
  return code !== undefined && Object.hasOwn(RETRY_AFTER, code);
}

/**
 * The OAuth error code of a refusal, from `WWW-Authenticate` or from a JSON body, whichever has one. The status plays no
 * part (ERR-4): servers differ in it.
 */
export function readErrorCode(wwwAuthenticate: string | null | undefined, body: unknown): string | undefined {
  if (wwwAuthenticate != null) {
    const codes = parseChallenges(wwwAuthenticate).flatMap(({ params }) => params.error ?? []);
    const retry = codes.find(isRetryCode);
    if (retry !== undefined) return retry;
    if (codes.length > 0 && !isJsonObject(body)) return codes[0];
  }
  return isJsonObject(body) && typeof body.error === 'string' ? body.error : undefined;
}

export interface AuthChallenge {
  /** Lower case. */
  scheme: string;
  params: Record<string, string>;
}

const MAX_CHALLENGE_TEXT = 8192;

/** Parses `WWW-Authenticate` (RFC 9110 §11.6.1), several challenges included. Stops at the first thing it cannot read. */
export function parseChallenges(text: string): AuthChallenge[] {
  const challenges: AuthChallenge[] = [];
  if (text.length > MAX_CHALLENGE_TEXT) return challenges;
  const token = /[\t ,]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)/y;
  const value = /[\t ]*=[\t ]*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+\-.^_`|~0-9A-Za-z]+))/y;
  // what Negotiate and the like have in place of parameters
  const token68 = /[\t ]+[A-Za-z0-9\-._~+/]+=*(?=[\t ]*(?:,|$))/y;
  let position = 0;
  for (;;) {
    token.lastIndex = position;
    const name = token.exec(text)?.[1];
    if (name === undefined) return challenges;
    position = token.lastIndex;
    value.lastIndex = position;
    const match = value.exec(text);
    if (match === null) {
      challenges.push({ scheme: name.toLowerCase(), params: Object.create(null) as Record<string, string> });
      token68.lastIndex = position;
      if (token68.test(text)) position = token68.lastIndex;
      continue;
    }
    position = value.lastIndex;
    const current = challenges.at(-1);
    if (current === undefined) return challenges;
    current.params[name.toLowerCase()] ??= match[1]?.replace(/\\(.)/g, '$1') ?? match[2] ?? '';
  }
}
