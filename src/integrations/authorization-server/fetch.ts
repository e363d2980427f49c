/** The front for servers that are a function from `Request` to `Response`. */
import { fromUtf8 } from '../../core/bytes.ts';
import { type JsonObject, parseJsonObject } from '../../core/json.ts';
import { AttestedError } from '../../errors.ts';
import { urlUnder } from '../../mcp/request-target.ts';
import { isJson, readBounded } from '../../platform/http.ts';
import { runFor } from './current.ts';
import type { Front, FrontRequest } from './front.ts';

export type FetchHandler = (request: Request) => Response | Promise<Response>;

/** Most that is read of a body, bytes. */
const MAX_BODY = 64 * 1024;

/** Puts a front before a server. What does not concern it is passed on as it came. */
export function behindFront(front: Front, handle: FetchHandler): (request: Request) => Promise<Response> {
  return async (request) => {
    const url = urlUnder(front.origin, request.url);
    if (url === undefined) return handle(request);
    const verdict = await front.judge(frontRequest(request, url));
    switch (verdict.kind) {
      case 'pass':
        return handle(request);
      case 'answer':
        return verdict.response;
      case 'redirected':
        return handle(withQuery(request, verdict.query));
      case 'metadata':
        return rewritten(await handle(request), front.document);
      case 'attested': {
        const { client, form } = verdict;
        const answer = await runFor(client, () => handle(withBody(request, form)));
        return rewritten(answer, (body) => front.finish(body, client), front.nextHeaders(client));
      }
    }
  };
}

function frontRequest(request: Request, url: URL): FrontRequest {
  const { method, headers } = request;
  return {
    method,
    url,
    headers,
    async form() {
      const type = headers.get('content-type') ?? '';
      if (!/^application\/x-www-form-urlencoded\s*(;|$)/i.test(type)) return undefined;
      return new URLSearchParams(await bodyOf(request));
    },
    json: async () => jsonBody(request),
  };
}

/** The JSON object of a request, which can be read again afterwards. */
export async function jsonBody(request: Request): Promise<JsonObject | undefined> {
  return isJson(request.headers.get('content-type')) ? parseJsonObject(await bodyOf(request)) : undefined;
}

/** @throws AttestedError `invalid_request` */
async function bodyOf(request: Request): Promise<string> {
  const bytes = await readBounded(request.clone(), MAX_BODY).catch((cause: unknown) => {
    throw new AttestedError('invalid_request', 'the body is too large or broke off', { rule: 'RFC 6749 §3.2', cause });
  });
  const text = fromUtf8(bytes);
  if (text !== undefined) return text;
  throw new AttestedError('invalid_request', 'the body is not UTF-8', { rule: 'RFC 6749 §3.2' });
}

function withQuery(request: Request, query: URLSearchParams): Request {
  if (request.method === 'POST') return withBody(request, query);
  const url = new URL(request.url);
  url.search = query.toString();
  return new Request(url, request);
}

/** The same request with another body: a form, or JSON. */
export function withBody(request: Request, content: URLSearchParams | JsonObject): Request {
  const { method, url, signal } = request;
  const headers = new Headers(request.headers);
  for (const name of ['content-length', 'content-encoding', 'transfer-encoding']) headers.delete(name);
  const body = content instanceof URLSearchParams ? content.toString() : JSON.stringify(content);
  headers.set(
    'content-type',
    content instanceof URLSearchParams ? 'application/x-www-form-urlencoded' : 'application/json',
  );
  return new Request(url, { method, headers, body, signal });
}

/** Changes a JSON answer; others keep their body. */
export async function rewritten(
  response: Response,
  change: (body: unknown) => unknown,
  added: Record<string, string> = {},
): Promise<Response> {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(added)) headers.set(name, value);
  const { status, statusText } = response;
  if (response.body === null || !isJson(headers.get('content-type'))) {
    return new Response(response.body, { status, statusText, headers });
  }
  for (const name of ['content-length', 'etag']) headers.delete(name);
  return new Response(JSON.stringify(change(await response.json())), { status, statusText, headers });
}
