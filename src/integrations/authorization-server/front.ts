/**
 * What stands in front of an authorization server that knows nothing of attestation: it authenticates clients by their
 * attestations at every endpoint, and ties codes and refresh tokens to instances (BIND-1, BIND-2). The server behind sees an
 * attested client as a public one. No framework is known here: adapters hand in method, path, header fields and form.
 */
import { CHALLENGE_HEADER, DPOP_NONCE_HEADER, type HeadersInput, readAttestationFields } from '../../core/headers.ts';
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { AttestedError } from '../../errors.ts';
import { type PushedRequestOptions, pushedRequests, REQUEST_URN } from '../../verifier/pushed-requests.ts';
import { sealedTokens } from '../../verifier/sealed-tokens.ts';
import type { AttestedClient, Verifier } from '../../verifier/verifier.ts';
import { EXPOSED, FOR_PAGES, preflight } from './cors.ts';
import { isAttestedMethod, withAttestationMetadata } from './metadata.ts';

export interface FrontOptions extends PushedRequestOptions {
  /** Role `as`; its audience is the server's issuer identifier, exactly as the metadata document has it. */
  verifier: Verifier;
  /**
   * Secrets of 32 bytes or more that refresh tokens are sealed with, the same on every node and after every restart. The
   * first seals, all open.
   */
  keys: readonly (Uint8Array | string)[];
  /**
   * Whether attested clients have to push their authorization requests, so that every code is bound to an instance (BIND-2).
   * `optional` (default): only those that do have bound codes; PKCE protects the others.
   */
  pushed?: 'optional' | 'required';
  /** Path of the challenge endpoint. Default `/attestation-challenge`, below the issuer's path. */
  challengePath?: string;
  /** Path of the endpoint for pushed requests. Default `/par`, below the issuer's path. */
  pushPath?: string;
  /** What was refused and why, for the operator's log. */
  onRefusal?: (error: AttestedError) => void;
}

/** Where the server behind has its endpoints: paths. */
export interface ServerEndpoints {
  /** Of the endpoints' URLs. Default: the issuer's. */
  origin?: string | undefined;
  metadata: readonly string[];
  authorize: string;
  token: string;
  revoke?: string | undefined;
  introspect?: string | undefined;
  register?: string | undefined;
}

export interface FrontRequest {
  method: string;
  /** Absolute, as the client sees it. */
  url: URL;
  headers: HeadersInput;
  /** The form of a POST; called where it is needed. Undefined: the body is no form. */
  form(): Promise<URLSearchParams | undefined>;
  /** The same for a JSON object. */
  json(): Promise<JsonObject | undefined>;
}

/** What is to become of a request. */
export type Verdict =
  | { kind: 'pass' }
  | { kind: 'answer'; response: Response }
  /** Goes on with another query. */
  | { kind: 'redirected'; query: URLSearchParams }
  /** Goes on with this form, as the attested client; its answer goes through {@link Front.finish}. */
  | { kind: 'attested'; client: AttestedClient; form: URLSearchParams }
  /** The answer is the metadata document, and goes through {@link Front.document}. */
  | { kind: 'metadata' };

export interface Front {
  /** Of all endpoints. */
  origin: string;
  judge(request: FrontRequest): Promise<Verdict>;
  document(document: unknown): unknown;
  /** The body of a token answer for an attested client. */
  finish(body: unknown, client: AttestedClient): unknown;
  nextHeaders(client: AttestedClient): Record<string, string>;
}

/** Endpoints at which clients authenticate. */
type Role = 'token' | 'revoke' | 'introspect' | 'push';

/**
 * @param isAttested whether a client is registered with one of our methods
 * @param vouch puts into a form what tells the server behind that the client is authenticated, where it is no public one
 * @throws AttestedError `invalid_argument`
 */
export function createFront(
  options: FrontOptions,
  endpoints: ServerEndpoints,
  isAttested: (clientId: string) => boolean | Promise<boolean>,
  vouch?: (form: URLSearchParams, client: AttestedClient) => void | Promise<void>,
): Front {
  const { verifier, keys, pushed: pushing = 'optional', onRefusal } = options;
  if (verifier?.role !== 'as') {
    throw new AttestedError('invalid_argument', 'an authorization server needs a verifier whose role is as');
  }
  const sealed = sealedTokens({ keys });
  const requests = pushedRequests(options);
  const issuer = new URL(verifier.audience);
  const base = issuer.pathname.replace(/\/$/, '');
  const challengePath = options.challengePath ?? `${base}/attestation-challenge`;
  const pushPath = options.pushPath ?? `${base}/par`;
  const everyClient = !verifier.policy.popMethods.includes('none');
  const roles = new Map<string, Role>([
    [endpoints.token, 'token'],
    [pushPath, 'push'],
  ]);
  if (endpoints.revoke !== undefined) roles.set(endpoints.revoke, 'revoke');
  if (endpoints.introspect !== undefined) roles.set(endpoints.introspect, 'introspect');
  const origin = endpoints.origin ?? issuer.origin;
  const added = {
    challengeUrl: origin + challengePath,
    pushUrl: origin + pushPath,
    pushRequired: pushing === 'required' && everyClient,
  };

  async function authenticate(role: Role, request: FrontRequest): Promise<Verdict> {
    const { method, url, headers } = request;
    const form = await request.form();
    if (form === undefined) throw malformed('the body must be a form (application/x-www-form-urlencoded)');
    refuseRepeated(form);
    const { attestation, pop, authorization } = readAttestationFields(headers);
    const named = namedClients(form, authorization);
    const known = await Promise.all(named.map(async (clientId) => isAttested(clientId)));
    const shown = attestation !== undefined || pop !== undefined;
    if (!shown && !everyClient && role !== 'push' && !known.includes(true)) return { kind: 'pass' };

    const clientId = form.get('client_id') ?? undefined;
    const dpopJkt = form.get('dpop_jkt') ?? undefined;
    const client = await verifier.verify({ headers, method, url: url.href, clientId, dpopJkt });
    if (form.has('client_secret') || form.has('client_assertion')) {
      throw malformed('the request authenticates its client in two ways at once', 'RFC 6749 §2.3');
    }
    if (!(await isAttested(client.clientId))) {
      // also where nobody knows the client: the attester may speak for it, but it is not registered here
      throw new AttestedError('invalid_client', 'the client is not registered for attestation', { rule: 'META-5' });
    }
    form.set('client_id', client.clientId);
    const verdict = await roleRules[role](form, client);
    if (verdict.kind === 'attested') await vouch?.(form, client);
    return verdict;
  }

  const roleRules: Record<Role, (form: URLSearchParams, client: AttestedClient) => Promise<Verdict>> = {
    async token(form, client) {
      const grant = form.get('grant_type');
      // some servers revoke at their token endpoint
      if (grant === null && form.has('token')) return roleRules.revoke(form, client);
      const refreshToken = form.get('refresh_token');
      if (refreshToken !== null) form.set('refresh_token', sealed.open(refreshToken, client));
      if (grant === 'authorization_code') {
        const bound = await requests.assertBound(form.get('code_verifier') ?? '', client);
        if (!bound && pushing === 'required') {
          throw new AttestedError('invalid_grant', 'the code was not asked for by a pushed request', {
            rule: 'BIND-2',
          });
        }
      }
      return { kind: 'attested', client, form };
    },
    async push(form, client) {
      const body = await requests.push(form, client);
      const headers = { 'Cache-Control': 'no-store', ...nextHeaders(client) };
      return { kind: 'answer', response: Response.json(body, { status: 201, headers }) };
    },
    revoke: async (form, client) => ofThisInstance(form, client) ?? revoked(client),
    introspect: async (form, client) => ofThisInstance(form, client) ?? inactive(client),
  };

  /** A refresh token of another instance does not exist for this one (RFC 7009 §2.2, RFC 7662 §2.2). */
  function ofThisInstance(form: URLSearchParams, client: AttestedClient): Verdict | undefined {
    const token = form.get('token') ?? '';
    if (!sealed.isSealed(token)) return { kind: 'attested', client, form };
    try {
      form.set('token', sealed.open(token, client));
      return { kind: 'attested', client, form };
    } catch {
      return undefined;
    }
  }

  /** Puts the pushed parameters in the place of their `request_uri`. */
  async function expand({ method, url, form }: FrontRequest): Promise<Verdict> {
    const given = method === 'POST' ? ((await form()) ?? new URLSearchParams()) : url.searchParams;
    const clientId = given.get('client_id') ?? '';
    const requestUri = given.get('request_uri');
    if (requestUri?.startsWith(REQUEST_URN)) {
      refuseRepeated(given);
      return { kind: 'redirected', query: await requests.take(requestUri, clientId) };
    }
    if (pushing === 'required' && (await anyAttested(given.getAll('client_id')))) {
      throw malformed('this client has to push its authorization requests', 'BIND-2');
    }
    return { kind: 'pass' };
  }

  /** Where every client has to attest, none is registered that says it will not (RFC 7591 §3.2.2). */
  async function register({ json }: FrontRequest): Promise<Verdict> {
    if (!everyClient || isAttestedMethod((await json())?.token_endpoint_auth_method)) return { kind: 'pass' };
    const body = {
      error: 'invalid_client_metadata',
      error_description: 'clients of this server authenticate by attestation',
    };
    const headers = { 'Cache-Control': 'no-store' };
    return { kind: 'answer', response: Response.json(body, { status: 400, headers }) };
  }

  async function anyAttested(clientIds: readonly string[]): Promise<boolean> {
    return (await Promise.all(clientIds.map(async (clientId) => isAttested(clientId)))).includes(true);
  }

  async function route(request: FrontRequest): Promise<Verdict> {
    const { method, url } = request;
    const path = url.pathname.length > 1 ? url.pathname.replace(/\/+$/, '') : url.pathname;
    if (method === 'OPTIONS' && (path === challengePath || samePath(path, pushPath))) return preflight();
    if (path === challengePath) {
      const verb = method === 'POST' ? 'POST' : 'GET';
      const response = await verifier.challengeHandler(new Request(added.challengeUrl, { method: verb }));
      return { kind: 'answer', response };
    }
    if (endpoints.metadata.includes(path)) return { kind: 'metadata' };
    if (endpoints.register !== undefined && method === 'POST' && samePath(path, endpoints.register)) {
      return register(request);
    }
    if (samePath(path, endpoints.authorize) && (method === 'GET' || method === 'POST')) return expand(request);
    const role = [...roles].find(([at]) => samePath(path, at))?.[1];
    if (role === undefined || (method !== 'POST' && role !== 'push')) return { kind: 'pass' };
    if (method !== 'POST') {
      return { kind: 'answer', response: new Response(null, { status: 405, headers: { Allow: 'POST' } }) };
    }
    return authenticate(role, request);
  }

  return {
    origin,
    async judge(request) {
      const verdict = await route(request).catch((error: unknown): Verdict => {
        if (error instanceof AttestedError) onRefusal?.(error);
        return { kind: 'answer', response: verifier.respond(error) };
      });
      if (verdict.kind === 'answer') {
        for (const [name, value] of Object.entries(FOR_PAGES)) verdict.response.headers.set(name, value);
      }
      return verdict;
    },
    // an answer without issuer is an error, not the document
    document: (document) =>
      isJsonObject(document) && typeof document.issuer === 'string'
        ? withAttestationMetadata(document, verifier, added)
        : document,
    finish(body, client) {
      if (!isJsonObject(body) || typeof body.refresh_token !== 'string') return body;
      return { ...body, refresh_token: sealed.seal(body.refresh_token, client) };
    },
    nextHeaders,
  };
}

function revoked(client: AttestedClient): Verdict {
  return { kind: 'answer', response: Response.json({}, { headers: nextHeaders(client) }) };
}

function inactive(client: AttestedClient): Verdict {
  return { kind: 'answer', response: Response.json({ active: false }, { headers: nextHeaders(client) }) };
}

function nextHeaders({ challengeForNext, dpopNonceForNext }: AttestedClient): Record<string, string> {
  return {
    ...EXPOSED,
    ...(challengeForNext !== undefined && { [CHALLENGE_HEADER]: challengeForNext }),
    ...(dpopNonceForNext !== undefined && { [DPOP_NONCE_HEADER]: dpopNonceForNext }),
  };
}

/** Routers differ in what they make of case, encoding and slashes: what one of them would take for the endpoint must not get past. */
function samePath(path: string, endpoint: string): boolean {
  return decoded(path).replace(/\/+/g, '/').toLowerCase() === endpoint.toLowerCase();
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/**
 * Every name under which the server behind might look a client up: one that must attest is not let past under another
 * spelling of its credentials.
 */
function namedClients(form: URLSearchParams, authorization: string | undefined): string[] {
  const names = form.getAll('client_id');
  const basic = authorization === undefined ? undefined : /^basic[\t ]+(\S+)/i.exec(authorization.trim())?.[1];
  if (basic !== undefined) {
    const user = Buffer.from(basic, 'base64').toString('utf8').split(':', 1)[0] ?? '';
    names.push(user, decoded(user), decoded(user.replaceAll('+', ' ')));
  }
  const assertion = form.get('client_assertion')?.split('.')[1];
  if (assertion !== undefined) names.push(...subjectsOf(assertion));
  return [...new Set(names)];
}

function subjectsOf(payload: string): string[] {
  try {
    const { sub, iss } = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')) as JsonObject;
    return [sub, iss].filter((name) => typeof name === 'string');
  } catch {
    return [];
  }
}

/** RFC 6749 §3.2: two values of one parameter, and we might have judged the one that the server does not use. */
function refuseRepeated(form: URLSearchParams): void {
  const seen = new Set<string>();
  for (const name of form.keys()) {
    const plain = name.replace(/\[.*$/s, '');
    if (plain !== name || (seen.has(name) && name !== 'resource' && name !== 'audience')) {
      throw malformed('a parameter is there more than once');
    }
    seen.add(name);
  }
}

function malformed(why: string, rule = 'RFC 6749 §3.2'): AttestedError {
  return new AttestedError('invalid_request', why, { rule });
}
