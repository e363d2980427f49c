/** Metadata documents of servers, fetched from the servers themselves (RFC 8414, RFC 9728; META-4, META-6). */
import type { JsonObject } from '../core/json.ts';
import { readServerNeeds, type ServerNeeds } from '../core/metadata.ts';
import { AttestedError } from '../errors.ts';
import { assertSafeUrl, type FetchLike, fetchJson, isLoopback } from '../platform/http.ts';

export interface ServerDocument {
  role: 'as' | 'rs';
  /** Issuer identifier or resource identifier, exactly as the document writes it: the PoP's audience. */
  id: string;
  needs: ServerNeeds;
  /** Every endpoint that the document names, without query and fragment. */
  endpoints: ReadonlySet<string>;
  metadata: JsonObject;
}

export interface MetadataFetch {
  fetch: FetchLike | undefined;
  /** Milliseconds. */
  timeout: number;
}

/**
 * Fetches an authorization server's metadata from its issuer identifier, and from nowhere else.
 *
 * @throws AttestedError `metadata_mismatch` when the document speaks for another issuer, `server_unsupported` when there
 *   is none, `http_*` when the server cannot be reached
 */
export async function fetchIssuer(issuer: string, { fetch, timeout }: MetadataFetch): Promise<ServerDocument> {
  for (const url of issuerDocumentUrls(assertSafeUrl(issuer))) {
    const { status, json } = await fetchJson(url, { method: 'GET' }, { fetch, timeout });
    if (status >= 500) throw new AttestedError('http_failed', `${new URL(url).origin} failed with status ${status}`);
    if (status !== 200 || json === undefined) continue;
    if (json.issuer !== issuer) {
      throw new AttestedError('metadata_mismatch', 'the metadata at the issuer is for another issuer', {
        rule: 'META-6',
      });
    }
    return issuerDocument(issuer, json);
  }
  throw new AttestedError('server_unsupported', 'the authorization server publishes no metadata', { rule: 'META-4' });
}

function issuerDocument(issuer: string, metadata: JsonObject): ServerDocument {
  return {
    role: 'as',
    id: issuer,
    needs: readServerNeeds(metadata),
    endpoints: endpointsOf(metadata, issuer),
    metadata,
  };
}

/** Where {@link fetchIssuer} looks first, apart from the issuer's own path. */
export const ISSUER_WELL_KNOWN = '/.well-known/oauth-authorization-server';

/**
 * Reads an authorization server's document that somebody else fetched: undefined unless {@link fetchIssuer} would have got
 * this very one from this very address.
 *
 * @throws AttestedError as {@link fetchIssuer} does
 */
export function readIssuer(url: URL, json: JsonObject): ServerDocument | undefined {
  const { issuer } = json;
  if (typeof issuer !== 'string' || !URL.canParse(issuer)) return undefined;
  return issuerDocumentUrls(assertSafeUrl(issuer))[0] === url.href ? issuerDocument(issuer, json) : undefined;
}

/** RFC 8414 §3.1 with the path moved behind the well-known part, then the places of OpenID Connect Discovery. */
function issuerDocumentUrls({ origin, pathname }: URL): string[] {
  const path = pathname === '/' ? '' : pathname.replace(/\/$/, '');
  return [
    ...new Set([
      `${origin}${ISSUER_WELL_KNOWN}${path}`,
      `${origin}${path}/.well-known/openid-configuration`,
      `${origin}/.well-known/openid-configuration${path}`,
    ]),
  ];
}

export const RESOURCE_WELL_KNOWN = '/.well-known/oauth-protected-resource';

/**
 * Fetches a protected resource's metadata from where its 401 says it is. Only the resource's own origin may say so, and
 * the document must cover the URL that was asked for, so that no resource speaks for another (RFC 9728 §3.3). For more than
 * exactly that URL it has to be at a well-known place.
 */
export async function fetchResource(location: string, asked: URL, limits: MetadataFetch): Promise<ServerDocument> {
  if (assertSafeUrl(location).origin !== asked.origin) {
    throw new AttestedError('metadata_mismatch', 'the resource points to metadata on another origin', {
      rule: 'META-6',
    });
  }
  const { status, json } = await fetchJson(location, { method: 'GET' }, limits);
  const document = status === 200 && json !== undefined ? readResource(json) : undefined;
  const believed =
    document !== undefined &&
    covers(document.id, asked) &&
    (speaksFor(new URL(location), document.id) || covers(bare(asked), new URL(document.id)));
  if (!believed) {
    throw new AttestedError('metadata_mismatch', "the resource's metadata is for another resource", { rule: 'META-6' });
  }
  return document;
}

/** Reads a protected resource's document; undefined when it names no usable resource. */
export function readResource(json: JsonObject): ServerDocument | undefined {
  const { resource } = json;
  if (typeof resource !== 'string') return undefined;
  try {
    assertSafeUrl(resource);
  } catch {
    return undefined;
  }
  return {
    role: 'rs',
    id: resource,
    needs: readServerNeeds(json),
    endpoints: endpointsOf(json, resource),
    metadata: json,
  };
}

/**
 * May the document at this address name this resource? The one at the origin's well-known place may name any below it, the
 * one of a path only what is at or below that path: of two tenants of one origin neither speaks for the other or for both.
 */
export function speaksFor({ origin, pathname }: URL, resource: string): boolean {
  const path = pathname.startsWith(RESOURCE_WELL_KNOWN) ? pathname.slice(RESOURCE_WELL_KNOWN.length) : undefined;
  return (path === '' || path?.startsWith('/') === true) && covers(origin + path, new URL(resource));
}

/** Does a resource identifier cover a URL: same origin, and the identifier's path as whole segments of the URL's? */
export function covers(resource: string, url: URL): boolean {
  const { origin, pathname } = new URL(resource);
  const prefix = pathname.endsWith('/') ? pathname : `${pathname}/`;
  return url.origin === origin && `${url.pathname}/`.startsWith(prefix);
}

/** A URL as endpoints are compared: without query and fragment. */
export function bare(url: URL): string {
  return url.origin + url.pathname;
}

function endpointsOf(metadata: JsonObject, id: string): Set<string> {
  const found = new Set<string>();
  const isLocal = isLoopback(new URL(id).hostname);
  for (const [name, value] of Object.entries(metadata)) {
    if (!name.endsWith('_endpoint') || typeof value !== 'string') continue;
    try {
      const url = assertSafeUrl(value);
      // a server elsewhere has none on this machine: it could have us send requests to any local service
      if (isLocal || !isLoopback(url.hostname)) found.add(bare(url));
    } catch {
      // an endpoint without TLS is no endpoint for us: a request to it is then refused like one to a stranger
    }
  }
  return found;
}
