/**
 * The fetch layer. It never follows a redirect with an attestation, a PoP or a DPoP proof on the request: the 3xx comes
 * back as it is, and whoever follows it comes through here again. It retries a refusal at most once (ERR-4), and, apart from
 * that, once when a 401 has just taught it that the resource wants attestation.
 */

import { isUsableChallenge } from '../core/challenge.ts';
import { ATTESTATION_HEADER, CHALLENGE_HEADER, DPOP_HEADER, DPOP_NONCE_HEADER, POP_HEADER } from '../core/headers.ts';
import type { JsonObject } from '../core/json.ts';
import { isRetryCode, parseChallenges, type RetryCode, readErrorCode } from '../core/oauth-errors.ts';
import { AttestedError } from '../errors.ts';
import type { FetchLike } from '../platform/http.ts';
import { discard, isReplayable, peekJson } from './bodies.ts';
import { BoundedMap } from './bounded.ts';
import type { HeaderBudget } from './budget.ts';
import type { AgentParts } from './client-auth.ts';
import type { Events } from './events.ts';
import { ISSUER_WELL_KNOWN, RESOURCE_WELL_KNOWN, readIssuer, readResource, speaksFor } from './metadata.ts';
import { type OutgoingRequest, type Plan, planRequest } from './plan.ts';
import { present } from './present.ts';
import type { Warnings } from './warnings.ts';

export interface FetchLayer {
  parts: AgentParts;
  budget: HeaderBudget;
  warnings: Warnings;
  events: Events;
  now: () => number;
}

/** Milliseconds in which a resource's metadata that could not be read is not asked for again. */
const LEARN_PAUSE = 30_000;
const MAX_LOCATIONS = 256;

export function openMiddleware(layer: FetchLayer): (next: FetchLike) => FetchLike {
  const { parts } = layer;
  const learntAt = new BoundedMap<string, number>(MAX_LOCATIONS);

  return (next) =>
    async (input, init = {}) => {
      const request = readRequest(input, init);
      const plan = await planRequest(request, parts);
      const response = await exchange(request, plan, next, layer);
      if (response.status !== 401 || !request.headers.has('authorization') || !isReplayable(request.init.body)) {
        return response;
      }
      if (plan?.demand !== undefined || !(await learn(response, request.url))) return response;
      const better = await planRequest(request, parts);
      if (better?.demand === undefined) return response;
      await discard(response);
      return exchange(request, better, next, layer);
    };

  /** Reads the metadata that a 401 points to (RFC 9728 §5.1). Anything wrong with it is as if it had not been there. */
  async function learn(response: Response, url: URL): Promise<boolean> {
    const challenges = parseChallenges(response.headers.get('www-authenticate') ?? '');
    const location = challenges.map(({ params }) => params.resource_metadata).find((value) => value !== undefined);
    if (location === undefined || layer.now() < (learntAt.get(location) ?? 0)) return false;
    learntAt.set(location, layer.now() + LEARN_PAUSE);
    try {
      const server = await parts.servers.resource(location, url);
      return server.needs.popMethods.length > 0;
    } catch {
      return false;
    }
  }
}

function readRequest(input: string | URL | Request, init: RequestInit): OutgoingRequest {
  if (!(input instanceof Request)) {
    const method = (init.method ?? 'GET').toUpperCase();
    return { url: new URL(input), method, headers: new Headers(init.headers), init };
  }
  const { url, method, signal, redirect, body } = input;
  const own: RequestInit = { method, signal, redirect, body };
  if (body !== null) own.duplex = 'half';
  const headers = new Headers(init.headers ?? input.headers);
  return { url: new URL(url), method: (init.method ?? method).toUpperCase(), headers, init: { ...own, ...init } };
}

async function exchange(
  request: OutgoingRequest,
  plan: Plan | undefined,
  next: FetchLike,
  layer: FetchLayer,
): Promise<Response> {
  if (plan === undefined) {
    const { url, init, headers } = request;
    // a proof, or somebody else's attestation: fetch would carry both along to another origin
    const telling = [ATTESTATION_HEADER, POP_HEADER, DPOP_HEADER].some((name) => headers.has(name));
    const response = await next(url, { ...init, headers, ...(telling && { redirect: unfollowed(init) }) });
    return overhear(request, response, layer.parts);
  }
  const first = await send(
    request,
    plan,
    plan.ready ? request.headers : await dress(request, plan, layer),
    next,
    layer,
  );
  const code = retryCode(first.response, first.json);
  if (code === undefined || plan.foreignDpop || !isReplayable(request.init.body)) return first.response;
  const headers = await renew(code, request, plan, first.response, layer);
  if (headers === undefined) return first.response;
  await discard(first.response);
  const { thumbprint } = plan.identity.signer;
  layer.events.emit({ type: 'retry', server: plan.audience, thumbprint, reason: code });
  return (await send(request, plan, headers, next, layer)).response;
}

async function send(
  { url, init }: OutgoingRequest,
  plan: Plan,
  headers: Headers,
  next: FetchLike,
  { parts, budget }: FetchLayer,
): Promise<{ response: Response; json: JsonObject | undefined }> {
  budget.check(plan.audience, headers);
  const response = await next(url, { ...init, headers, redirect: unfollowed(init) });
  parts.servers.observe(url, response.headers, plan.demand?.server);
  if (response.status === 431) budget.refused(plan.audience, headers);
  // a resource's success is none of our business, and may be a stream
  if (plan.kind === 'resource' && response.status < 400) return { response, json: undefined };
  const peeked = await peekJson(response);
  const issuer = plan.kind === 'client' ? plan.demand?.server.id : undefined;
  if (issuer !== undefined && response.ok && peeked.json !== undefined) {
    const owner = { label: plan.identity.label, audience: plan.audience, issuer };
    parts.artifacts.noteAnswer(peeked.json, owner, plan.foreignDpop ? 'caller' : 'instance');
  }
  return peeked;
}

function unfollowed({ redirect }: RequestInit): 'error' | 'manual' {
  return redirect === 'error' ? 'error' : 'manual';
}

/** New proofs for every send (POP-9), and the scheme that belongs to the token (RFC 9449 §7.1). */
async function dress(
  request: OutgoingRequest,
  plan: Plan,
  { parts }: FetchLayer,
  challenge?: string,
): Promise<Headers> {
  const headers = new Headers(request.headers);
  if (!plan.foreignDpop) headers.delete(DPOP_HEADER);
  for (const name of [ATTESTATION_HEADER, POP_HEADER]) headers.delete(name);
  await present(headers, plan, request, parts, challenge);
  if (plan.dpop && plan.accessToken !== undefined) headers.set('authorization', `DPoP ${plan.accessToken}`);
  return headers;
}

/** Gets what the refusal asked for; undefined when it cannot be had, and the refusal stands. */
async function renew(
  code: RetryCode,
  request: OutgoingRequest,
  plan: Plan,
  response: Response,
  layer: FetchLayer,
): Promise<Headers | undefined> {
  const { attestations, servers } = layer.parts;
  const server = plan.demand?.server;
  // the refusal's own challenge, not the latest: another answer's may have been spent meanwhile
  let challenge: string | undefined;
  try {
    switch (code) {
      case 'use_attestation_challenge': {
        if (server === undefined) return undefined;
        const given = response.headers.get(CHALLENGE_HEADER);
        if (isUsableChallenge(given)) {
          challenge = given;
          break;
        }
        server.challenge = undefined;
        await servers.prepare(server, { challenge: true, nonce: false });
        if (server.challenge === undefined) return undefined;
        break;
      }
      case 'use_dpop_nonce':
        if (!isUsableChallenge(response.headers.get(DPOP_NONCE_HEADER))) return undefined;
        break;
      case 'use_fresh_attestation':
        if (server === undefined || (await attestations.fresh(plan.identity)) === undefined) return undefined;
        break;
    }
    return await dress(request, plan, layer, challenge);
  } catch (error) {
    const why = error instanceof AttestedError ? error.message : 'the key could not be used';
    layer.warnings.emit({ code: 'renewal_failed', message: `a refused request could not be tried again: ${why}` });
    return undefined;
  }
}

function retryCode(response: Response, json: JsonObject | undefined): RetryCode | undefined {
  const code = readErrorCode(response.headers.get('www-authenticate'), json);
  return isRetryCode(code) ? code : undefined;
}

/** Requests that need nothing of us still teach us: challenges, nonces, and the documents of servers. */
async function overhear({ url, method }: OutgoingRequest, response: Response, parts: AgentParts): Promise<Response> {
  const { servers } = parts;
  servers.observe(url, response.headers);
  const ofResource = url.pathname.startsWith(RESOURCE_WELL_KNOWN);
  const document = method === 'GET' && (ofResource || url.pathname.startsWith(ISSUER_WELL_KNOWN));
  if (!document || response.status !== 200 || response.redirected) return response;
  const { json, response: passedOn } = await peekJson(response);
  try {
    if (json === undefined) return passedOn;
    const found = ofResource ? readResource(json) : readIssuer(url, json);
    if (found?.role === 'as') servers.overhear(found);
    else if (found !== undefined && speaksFor(url, found.id)) servers.learn(found);
  } catch {
    // a malformed document is the reader's problem, not the messenger's
  }
  return passedOn;
}
