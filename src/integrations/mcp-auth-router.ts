/**
 * `attested/integrations/mcp-auth-router`: the authorization server of the MCP SDK v1 (`mcpAuthRouter`), whose clients
 * authenticate by attestation. Structural types, no import.
 */
import type { IncomingMessage } from 'node:http';
import { fromUtf8 } from '../core/bytes.ts';
import { type JsonObject, parseJsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import { urlUnder } from '../mcp/request-target.ts';
import { isJson } from '../platform/http.ts';
import { runFor } from './authorization-server/current.ts';
import { createFront, type FrontOptions, type FrontRequest } from './authorization-server/front.ts';
import { isAttestedMethod } from './authorization-server/metadata.ts';

export { attestedClient } from './authorization-server/current.ts';
export type { FrontOptions } from './authorization-server/front.ts';

/** The part of the SDK's `OAuthRegisteredClientsStore` that is used. */
export interface ClientsStore {
  getClient(clientId: string): unknown;
  registerClient?(client: never): unknown;
}

/** The part of the SDK's `AuthRouterOptions` that is used. */
export interface AuthRouterOptions {
  provider: { readonly clientsStore: ClientsStore };
  issuerUrl: URL;
  baseUrl?: URL | undefined;
}

/** An Express request. Its body may have been parsed before. */
export interface RouterRequest {
  method: string;
  url: string;
  originalUrl: string;
  rawHeaders: string[];
  headers: Readonly<Record<string, string | string[] | undefined>>;
  body?: unknown;
  /** Node's own: whether anybody has read of the body. */
  readableDidRead?: boolean;
}

export interface RouterResponse {
  status(code: number): unknown;
  setHeader(name: string, value: string): unknown;
  end(body?: string | Uint8Array): unknown;
  json(body?: unknown): unknown;
}

export type RouterHandler = (request: never, response: never, next: (error?: unknown) => void) => unknown;

/**
 * The SDK's router, made attested: `app.use(attestedAuthRouter(mcpAuthRouter, options, { verifier, keys }))` in the place of
 * `app.use(mcpAuthRouter(options))`, at the root of the app too.
 *
 * - The metadata document names our methods, algorithms, the challenge endpoint and an endpoint for pushed requests.
 * - Clients whose `token_endpoint_auth_method` is one of ours authenticate by attestation when they redeem, refresh and
 *   revoke; all other clients are refused, unless the verifier's policy has `none` among its `popMethods`.
 * - Such a client can register dynamically: it gets no secret, and none is asked of it.
 * - Refresh tokens belong to the instance they were issued to, and so do codes of pushed requests. An attempt of somebody
 *   else reaches neither provider nor store.
 *
 * The verifier's audience is `issuerUrl.href`, which is how the SDK writes the issuer: `https://as.example/` with its slash.
 *
 * @param mcpAuthRouter the SDK's function
 * @param options as for the SDK's function
 * @throws AttestedError `invalid_argument` for a verifier with another audience or role, or without keys
 */
export function attestedAuthRouter<O extends AuthRouterOptions, H extends RouterHandler>(
  mcpAuthRouter: (options: O) => H,
  options: O,
  attestation: FrontOptions,
): H {
  const { provider, issuerUrl, baseUrl } = options;
  const { verifier } = attestation;
  if (verifier?.audience !== issuerUrl.href) {
    throw new AttestedError('invalid_argument', "the verifier's audience must be issuerUrl.href, with its slash", {
      rule: 'POP-2',
    });
  }
  const methodOf = async (clientId: string) =>
    ((await provider.clientsStore.getClient(clientId)) as { token_endpoint_auth_method?: unknown } | undefined)
      ?.token_endpoint_auth_method;
  const { origin } = baseUrl ?? issuerUrl;
  const path = issuerUrl.pathname.replace(/\/$/, '');
  const wellKnown = '/.well-known/oauth-authorization-server';
  const front = createFront(
    attestation,
    {
      origin,
      metadata: [wellKnown, wellKnown + path],
      authorize: '/authorize',
      token: '/token',
      revoke: '/revoke',
      register: '/register',
    },
    async (clientId) => isAttestedMethod(await methodOf(clientId)),
  );
  const router = mcpAuthRouter({ ...options, provider: withoutSecrets(provider) }) as unknown as (
    request: RouterRequest,
    response: RouterResponse,
    next: (error?: unknown) => void,
  ) => unknown;

  async function handle(
    request: RouterRequest,
    response: RouterResponse,
    next: (error?: unknown) => void,
  ): Promise<unknown> {
    const url = urlUnder(origin, request.originalUrl);
    if (url === undefined) return next();
    const verdict = await front.judge(frontRequest(request, url));
    switch (verdict.kind) {
      case 'pass':
        return router(request, response, next);
      case 'answer':
        return send(verdict.response, response);
      case 'redirected': {
        const [at] = request.url.split('?', 1);
        if (request.method === 'POST') request.body = Object.fromEntries(verdict.query);
        else request.url = `${at}?${verdict.query}`;
        return router(request, response, next);
      }
      case 'metadata':
        rewriteJson(response, front.document);
        return router(request, response, next);
      case 'attested': {
        const { client, form } = verdict;
        request.body = Object.fromEntries(form);
        for (const [name, value] of Object.entries(front.nextHeaders(client))) response.setHeader(name, value);
        rewriteJson(response, (body) => front.finish(body, client));
        return runFor(client, () => router(request, response, next));
      }
    }
  }

  const handler = (request: RouterRequest, response: RouterResponse, next: (error?: unknown) => void): void =>
    void handle(request, response, next).catch(next);
  return handler as unknown as H;
}

/**
 * The same provider, in whose store clients of our methods have no secret: the SDK makes one up for every method but `none`
 * when a client registers, and demands it ever after.
 */
function withoutSecrets<P extends AuthRouterOptions['provider']>(provider: P): P {
  return bound(provider, (name) => {
    if (name !== 'clientsStore') return undefined;
    const store = provider.clientsStore;
    const { registerClient } = store;
    return bound(store, (method) => {
      if (method === 'getClient') return async (clientId: string) => withoutSecret(await store.getClient(clientId));
      if (method !== 'registerClient' || registerClient === undefined) return undefined;
      return async (client: never) => withoutSecret(await registerClient.call(store, withoutSecret(client) as never));
    });
  });
}

function withoutSecret(client: unknown): unknown {
  if (typeof client !== 'object' || client === null) return client;
  const { client_secret: _, client_secret_expires_at: __, ...rest } = client as Record<string, unknown>;
  return isAttestedMethod(rest.token_endpoint_auth_method) ? rest : client;
}

/** A proxy whose methods run on the object itself, which may have private members. */
function bound<T extends object>(target: T, replaced: (name: string | symbol) => unknown): T {
  return new Proxy(target, {
    get(_, name) {
      const other = replaced(name);
      if (other !== undefined) return other;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

function frontRequest(request: RouterRequest, url: URL): FrontRequest {
  const { method, rawHeaders: headers } = request;
  return {
    method,
    url,
    headers,
    async form() {
      if (!isParsed(request)) {
        if (!/^application\/x-www-form-urlencoded\s*(;|$)/i.test(contentType(request))) return undefined;
        const form = new URLSearchParams(await readBody(request));
        request.body = Object.fromEntries(form);
        return form;
      }
      return formOf(request.body as object);
    },
    async json() {
      if (!isParsed(request)) {
        if (!isJson(contentType(request))) return undefined;
        request.body = parseJsonObject(await readBody(request)) ?? {};
      }
      return request.body as JsonObject;
    },
  };
}

function contentType({ headers }: RouterRequest): string {
  return String(headers['content-type'] ?? '');
}

/**
 * Some middleware of the app has read the body before. An object alone does not say so: Express 4's parsers leave an empty one
 * on requests that are not theirs, and the SDK would then read, after us, what we had not judged.
 */
function isParsed({ body, readableDidRead }: RouterRequest): boolean {
  return typeof body === 'object' && body !== null && readableDidRead !== false;
}

/** What a body parser made of a form, or of a JSON text that the SDK would take for one. */
function formOf(body: object): URLSearchParams | undefined {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(body)) {
    for (const item of [value].flat()) {
      if (typeof item !== 'string') return undefined;
      form.append(name, item);
    }
  }
  return form;
}

const MAX_BODY = 64 * 1024;

/** @throws AttestedError `invalid_request` */
async function readBody(request: RouterRequest): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as unknown as IncomingMessage) {
    size += (chunk as Buffer).length;
    if (size > MAX_BODY) throw new AttestedError('invalid_request', 'the body is too large', { rule: 'RFC 6749 §3.2' });
    chunks.push(chunk as Buffer);
  }
  const text = fromUtf8(Buffer.concat(chunks));
  if (text === undefined) {
    throw new AttestedError('invalid_request', 'the body is not UTF-8', { rule: 'RFC 6749 §3.2' });
  }
  return text;
}

/** The SDK answers through `json`; it hears nothing of the change. */
function rewriteJson(response: RouterResponse, change: (body: unknown) => unknown): void {
  const json = response.json.bind(response);
  response.json = (body) => json(change(body));
}

async function send(answer: Response, response: RouterResponse): Promise<void> {
  response.status(answer.status);
  for (const [name, value] of answer.headers) response.setHeader(name, value);
  response.end(new Uint8Array(await answer.arrayBuffer()));
}
