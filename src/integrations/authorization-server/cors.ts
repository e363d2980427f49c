/** Clients in browsers, whose pages are from other origins (Fetch, CORS protocol). Nothing here depends on cookies. */
import {
  ATTESTATION_HEADER,
  CHALLENGE_HEADER,
  DPOP_HEADER,
  DPOP_NONCE_HEADER,
  POP_HEADER,
} from '../../core/headers.ts';

/** What a page may read of an answer besides its body: the next challenge and nonce. */
export const EXPOSED: Readonly<Record<string, string>> = {
  'Access-Control-Expose-Headers': [CHALLENGE_HEADER, DPOP_NONCE_HEADER, 'WWW-Authenticate', 'Retry-After'].join(', '),
};

/** With every answer of our own. */
export const FOR_PAGES: Readonly<Record<string, string>> = { 'Access-Control-Allow-Origin': '*', ...EXPOSED };

const ASKED_FOR = [ATTESTATION_HEADER, POP_HEADER, DPOP_HEADER, 'Content-Type'].join(', ');

/** The browser's question whether the page may send its POST at all. */
export function preflight(): { kind: 'answer'; response: Response } {
  const headers = {
    'Access-Control-Allow-Methods': 'POST',
    'Access-Control-Allow-Headers': ASKED_FOR,
    'Access-Control-Max-Age': '600',
  };
  return { kind: 'answer', response: new Response(null, { status: 204, headers }) };
}
