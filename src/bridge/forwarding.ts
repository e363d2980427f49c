/** Which header fields pass through the proxy, and which end there. */
import type { IncomingMessage } from 'node:http';

/** Belong to one connection (RFC 9110 §7.6.1), or to what fetch does itself. */
const HOP_BY_HOP = [
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
] as const;

/** What only the agent says to the server. The rest belongs to browsers and to proxies, whose word the server must not take. */
const NOT_FORWARDED: ReadonlySet<string> = new Set([
  ...HOP_BY_HOP,
  'accept-encoding',
  'authorization',
  'cookie',
  'dpop',
  'forwarded',
  'oauth-client-attestation',
  'oauth-client-attestation-pop',
  'origin',
  'referer',
  'via',
  'x-real-ip',
]);
const NOT_FORWARDED_PREFIXES = ['sec-', 'x-forwarded-'] as const;

/** What is between the server and the agent; `content-encoding` because fetch has undone it. */
const NOT_RETURNED: ReadonlySet<string> = new Set([
  ...HOP_BY_HOP,
  'alt-svc',
  'clear-site-data',
  'content-encoding',
  'dpop-nonce',
  'oauth-client-attestation-challenge',
  'refresh',
  'set-cookie',
  'strict-transport-security',
  'vary',
  'www-authenticate',
]);
/** Which pages may read an answer is not the server's to say. */
const NOT_RETURNED_PREFIX = 'access-control-';

/** The fields of a host's request that the server gets to see. */
export function forwardedOf({ rawHeaders, headers }: IncomingMessage): Headers {
  const named = new Set((headers.connection ?? '').split(',').map((name) => name.trim().toLowerCase()));
  const forwarded = new Headers();
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase();
    const skip =
      NOT_FORWARDED.has(name) || named.has(name) || NOT_FORWARDED_PREFIXES.some((prefix) => name.startsWith(prefix));
    if (!skip) forwarded.append(name, rawHeaders[i + 1] as string);
  }
  return forwarded;
}

/** The fields of the server's answer that the host gets to see. */
export function returnedOf({ headers }: Response): [name: string, value: string][] {
  return [...headers].filter(([name]) => !NOT_RETURNED.has(name) && !name.startsWith(NOT_RETURNED_PREFIX));
}
