/** One exchange with the MCP server: same-origin redirects only, errors that say what happened, bounded bodies. */
import { setTimeout as sleep } from 'node:timers/promises';
import { covers } from '../agent/metadata.ts';
import { AttestedError } from '../errors.ts';
import type { FetchLike } from '../platform/http.ts';
import { openSink } from './sink.ts';

const MAX_REDIRECTS = 3;
/** Those that keep method and body (RFC 9110 §15.4.8, §15.4.9). */
const KEEPING: readonly number[] = [307, 308];

/**
 * A fetch that follows a redirect only within the MCP server's own URL, as from `/mcp` to `/mcp/`, and goes through the given
 * fetch again for that, so that each address gets proofs of its own. Any other redirect would lead tokens to a stranger.
 *
 * @throws AttestedError `http_failed` for any other redirect
 */
export function withinServer(fetch: FetchLike, server: URL): FetchLike {
  return async (input, init) => {
    let url: URL = new URL(input);
    for (let hops = 0; ; hops++) {
      const response = await fetch(url, { ...init, redirect: 'manual' });
      if (response.status < 300 || response.status >= 400) return response;
      await response.body?.cancel().catch(() => undefined);
      const location = response.headers.get('location') ?? '';
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
      const kept = next !== undefined && KEEPING.includes(response.status) && covers(server.href, next);
      if (!kept || hops === MAX_REDIRECTS) {
        throw new AttestedError('http_failed', `${server.origin} answered with a redirect, which is not followed`);
      }
      url = next;
    }
  };
}

/** The connection was never made: nothing has been sent, and to try again is safe. */
const UNSENT: readonly unknown[] = [
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
];

/** What a failed fetch means. */
export function failureOf(error: unknown, origin: string): { error: AttestedError; unsent: boolean } {
  if (error instanceof AttestedError) return { error, unsent: false };
  const { cause } = error as { cause?: { code?: unknown; errors?: { code?: unknown }[] } };
  const codes = [cause?.code, ...(cause?.errors ?? []).map(({ code }) => code)];
  return {
    error: new AttestedError('http_failed', `${origin} could not be reached, or broke off`, { cause: error }),
    unsent: codes.some((code) => UNSENT.includes(code)),
  };
}

/** Reads a body whole. @throws AttestedError `http_too_large` */
export async function readBody(response: Response, maxBytes: number): Promise<Uint8Array> {
  const body = openSink();
  if (response.body === null) return body.take();
  for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
    body.push(chunk);
    if (body.size > maxBytes) throw new AttestedError('http_too_large', `an answer is larger than ${maxBytes} bytes`);
  }
  return body.take();
}

export function mediaTypeOf(response: Response): string {
  return (response.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

export async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => undefined);
}

/** Waits; false when the signal came first. */
export async function pause(milliseconds: number, signal: AbortSignal): Promise<boolean> {
  try {
    await sleep(milliseconds, undefined, { signal });
    return true;
  } catch {
    return false;
  }
}

/** Milliseconds before the next try: doubled each time, up to half a minute. */
export function backOff(failures: number, first: number): number {
  return Math.min(first * 2 ** failures, 30_000);
}
