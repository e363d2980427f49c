/** Where a request goes, by its target in any form (RFC 9112 §3.2). Its authority is not believed: ours is known. */

/**
 * The URL of a request target under our own origin; undefined for a target that names no path (`*`, `host:port`).
 *
 * The parts are put together as text. Resolved like a reference, the target `//other/mcp` would become another server's
 * URL, and a DPoP proof made for that server would pass here.
 */
export function urlUnder(origin: string, target: string): URL | undefined {
  const path = target.startsWith('/') ? target : pathOfAbsolute(target);
  const text = origin + path;
  return path === undefined || !URL.canParse(text) ? undefined : new URL(text);
}

function pathOfAbsolute(target: string): string | undefined {
  if (!/^https?:\/\//i.test(target) || !URL.canParse(target)) return undefined;
  const { pathname, search } = new URL(target);
  return pathname + search;
}
