/** Signing in: authorization code with PKCE and a loopback redirect (RFC 6749 §4.1, RFC 7636, RFC 8252 §7.3, RFC 9126, RFC 9207). */
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as oauth from 'oauth4webapi';
import type { Agent } from '../../agent/agent.ts';
import { utf8 } from '../../core/bytes.ts';
import { AttestedError } from '../../errors.ts';
import { equalInConstantTime } from '../../platform/crypto.ts';
import { assertSafeUrl, isLoopback } from '../../platform/http.ts';
import { textsOf } from './discovery.ts';

export interface LoginOptions {
  /** Shows the page to a person. */
  show: (page: URL) => void;
  /** Milliseconds that the person has. */
  timeout: number;
  /** Port of the redirect address, for servers that compare it. Default: a free one. */
  port: number | undefined;
  signal: AbortSignal;
}

/** How oauth4webapi is to send its requests. */
export interface OAuthOptions {
  [oauth.customFetch]: (url: string, init: object) => Promise<Response>;
  [oauth.allowInsecureRequests]: boolean;
}

export interface SignedIn {
  /** The authorization response, checked. */
  answer: URLSearchParams;
  redirectUri: string;
  verifier: string;
}

/**
 * @throws AttestedError `authorization_failed` when nobody signs in in time or the server lacks PKCE, `access_denied`,
 *   `metadata_mismatch` for a page that no browser should be sent to
 */
export async function signIn(request: {
  as: oauth.AuthorizationServer;
  client: oauth.Client;
  agent: Agent;
  options: OAuthOptions;
  parameters: Readonly<Record<string, string>>;
  login: LoginOptions;
}): Promise<SignedIn> {
  const { as, client, login } = request;
  const page = pageOf(as);
  const state = oauth.generateRandomState();
  const verifier = oauth.generateRandomCodeVerifier();
  const callback = await listenForCallback(login.port, state);
  try {
    const { redirectUri } = callback;
    const parameters = {
      response_type: 'code',
      ...request.parameters,
      redirect_uri: redirectUri,
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    };
    page.search = (await searchOf(page, parameters, request)).toString();
    login.show(page);
    const answer = oauth.validateAuthResponse(as, client, await within(callback.answer, login), state);
    return { answer, redirectUri, verifier };
  } finally {
    callback.close();
  }
}

function pageOf(as: oauth.AuthorizationServer): URL {
  const { authorization_endpoint: page, issuer } = as;
  if (typeof page !== 'string') {
    throw new AttestedError('server_unsupported', 'the authorization server has no page to sign in at', {
      rule: 'RFC 8414 §2',
    });
  }
  // a browser would open anything: a file, a program's own scheme, a service of this machine
  const url = URL.canParse(page) ? assertSafeUrl(page) : undefined;
  if (url === undefined || (isLoopback(url.hostname) && !isLoopback(new URL(issuer).hostname))) {
    throw new AttestedError('metadata_mismatch', 'the page to sign in at is not the authorization server’s own', {
      rule: 'META-6',
    });
  }
  if (!textsOf(as.code_challenge_methods_supported).includes('S256')) {
    throw new AttestedError('server_unsupported', 'the authorization server does not offer PKCE with S256', {
      rule: 'RFC 7636 §4.2',
    });
  }
  return url;
}

/** Pushed where the server takes it: then the code is bound to this instance, and worth nothing to who catches it (BIND-2). */
async function searchOf(
  page: URL,
  parameters: Record<string, string>,
  { as, client, agent, options }: Parameters<typeof signIn>[0],
): Promise<URLSearchParams> {
  if (as.pushed_authorization_request_endpoint === undefined) {
    return new URLSearchParams([...page.searchParams, ['client_id', client.client_id], ...Object.entries(parameters)]);
  }
  const response = await oauth.pushedAuthorizationRequest(as, client, agent.clientAuth, parameters, options);
  const { request_uri } = await oauth.processPushedAuthorizationResponse(as, client, response);
  return new URLSearchParams([...page.searchParams, ['client_id', client.client_id], ['request_uri', request_uri]]);
}

async function within(answer: Promise<URL>, { timeout, signal }: LoginOptions): Promise<URL> {
  const stopped = AbortSignal.any([signal, AbortSignal.timeout(timeout)]);
  const late = new Promise<never>((_, reject) => {
    const stop = () =>
      reject(new AttestedError('authorization_failed', 'nobody signed in in time', { rule: 'RFC 6749 §4.1' }));
    stopped.addEventListener('abort', stop, { once: true });
    if (stopped.aborted) stop();
  });
  return Promise.race([answer, late]);
}

interface Callback {
  redirectUri: string;
  answer: Promise<URL>;
  close(): void;
}

const PATH = '/callback';

/**
 * One request counts: for our path, under our name, with our state. Whatever else comes to the port, from pages that guess at
 * it for one, is sent away and changes nothing.
 */
async function listenForCallback(port: number | undefined, state: string): Promise<Callback> {
  let settle: (url: URL) => void = () => undefined;
  const answer = new Promise<URL>((resolve) => {
    settle = resolve;
  });
  const server = createServer((request, response) => {
    const target = `http://${host}${request.url ?? ''}`;
    const url = request.url?.startsWith('/') && URL.canParse(target) ? new URL(target) : undefined;
    const given = url?.searchParams.getAll('state') ?? [];
    const ours =
      request.method === 'GET' &&
      request.headers.host === host &&
      url?.pathname === PATH &&
      given.length === 1 &&
      equalInConstantTime(utf8(given[0] as string), utf8(state));
    if (!ours || url === undefined) return reply(response, 400, 'This is not the page you are looking for.');
    const refused = url.searchParams.has('error');
    reply(response, 200, refused ? 'You were not signed in.' : 'You are signed in. You can close this window.');
    settle(url);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new AttestedError('authorization_failed', 'the port of the redirect address cannot be had', { cause })),
    );
    server.listen(port ?? 0, '127.0.0.1', resolve);
  });
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    redirectUri: `http://${host}${PATH}`,
    answer,
    close: () => {
      server.close();
      server.closeIdleConnections();
    },
  };
}

function reply(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, {
    'Content-Type': 'text/html; charset=utf-8',
    'Cache-Control': 'no-store',
    'Referrer-Policy': 'no-referrer',
    'Content-Security-Policy': "default-src 'none'",
    Connection: 'close',
  });
  response.end(`<!doctype html><title>attested</title><p>${text}</p>\n`);
}
