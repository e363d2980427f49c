/**
 * Every way in which this package refuses. The first group travels on the wire as an OAuth error code (ABCA §7.4,
 * RFC 6749 §5.2, RFC 6750 §3, RFC 9449 §12); the second stays on the machine that raised it.
 */
export type ErrorCode =
  | 'invalid_client_attestation'
  | 'use_attestation_challenge'
  | 'use_fresh_attestation'
  | 'use_dpop_nonce'
  | 'invalid_dpop_proof'
  | 'invalid_client'
  | 'invalid_grant'
  | 'invalid_request'
  | 'invalid_token'
  | 'insufficient_scope'
  | 'access_denied'
  | 'device_conflict'
  | 'temporarily_unavailable'
  // local
  | 'invalid_argument'
  | 'key_not_found'
  | 'key_store_corrupt'
  | 'key_store_locked'
  | 'key_store_unavailable'
  | 'key_store_wrong_secret'
  | 'attester_refused'
  | 'attester_unavailable'
  | 'server_unsupported'
  | 'metadata_mismatch'
  | 'authorization_failed'
  | 'tracking_refused'
  | 'store_unavailable'
  | 'tpm_malformed'
  | 'tpm_refused'
  | 'http_failed'
  | 'http_too_large'
  | 'http_timeout';

export interface ErrorDetails {
  /** Requirement id (`ATT-3`), or a section such as `RFC 9449 §4.3`, that the input broke. */
  rule?: string;
  cause?: unknown;
  /** Fresh challenge that the refusal must carry (ERR-1). */
  challenge?: string;
  /** Fresh DPoP nonce that the refusal must carry (DPOP-4). */
  dpopNonce?: string;
}

/**
 * The one error type of this package.
 *
 * `code` is stable and is what programs decide on; `rule` names the requirement that was broken; `message` is for people
 * and never contains a token, a key or any value taken from the input.
 */
export class AttestedError extends Error {
  readonly code: ErrorCode;
  readonly rule: string | undefined;
  readonly challenge: string | undefined;
  readonly dpopNonce: string | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'AttestedError';
    this.code = code;
    this.rule = details.rule;
    this.challenge = details.challenge;
    this.dpopNonce = details.dpopNonce;
  }
}
