/** Decides what a request needs before it is sent: nothing, a proof for a protected resource, or client authentication. */
import { ATTESTATION_HEADER, DPOP_HEADER, POP_HEADER } from '../core/headers.ts';
import { choosePopMethod, type PopMethod } from '../core/metadata.ts';
import { AttestedError } from '../errors.ts';
import type { AgentParts } from './client-auth.ts';
import { SHARED_SCOPE, scopeOf } from './identity.ts';
import { bare, covers } from './metadata.ts';
import type { Presentation } from './present.ts';
import type { Server } from './servers.ts';

export interface OutgoingRequest {
  url: URL;
  method: string;
  headers: Headers;
  init: RequestInit;
}

export interface Plan extends Presentation {
  kind: 'client' | 'resource';
  /** The headers on the request are good for the first send. */
  ready: boolean;
  /** The request carries a DPoP proof that is not ours, so that it cannot be sent twice. */
  foreignDpop: boolean;
}

/** @throws AttestedError `metadata_mismatch` when proof and target do not belong together (META-6) */
export async function planRequest(request: OutgoingRequest, parts: AgentParts): Promise<Plan | undefined> {
  const attestation = request.headers.get(ATTESTATION_HEADER);
  return attestation === null ? resourcePlan(request, parts) : clientPlan(request, attestation, parts);
}

/** The request was authenticated already, by one of our hooks as a rule: does it go where its proof was made for? */
function clientPlan(request: OutgoingRequest, attestation: string, parts: AgentParts): Plan | undefined {
  const { url, method, headers } = request;
  const { proofs, attestations } = parts;
  const dpopProof = proofs.recall(headers.get(DPOP_HEADER));
  const proof = proofs.recall(headers.get(POP_HEADER) ?? headers.get(DPOP_HEADER));
  if (proof?.server === undefined || proof.method === undefined) {
    if (attestations.isOurs(attestation))
      throw mismatch('the attestation comes with a proof that is not of this agent');
    return undefined; // another client's affair
  }
  const { server, identity, audience = server.id } = proof;
  const belongs = server.role === 'rs' ? covers(server.id, url) : server.endpoints.has(bare(url));
  if (!belongs) throw mismatch("the request goes to an address that is not in its server's metadata");
  if (server.role === 'rs') return undefined; // proved by this layer, one middleware above
  const fits =
    dpopProof === undefined ||
    (dpopProof.identity === identity &&
      dpopProof.target?.method === method &&
      bare(new URL(dpopProof.target.url)) === bare(url));
  const ready = fits && !proof.sent && dpopProof?.sent !== true;
  proof.sent = true;
  if (dpopProof !== undefined) dpopProof.sent = true;
  return {
    kind: 'client',
    ready,
    foreignDpop: headers.has(DPOP_HEADER) && dpopProof === undefined,
    identity,
    audience,
    demand: { server, method: proof.method },
    dpop: dpopProof !== undefined,
    accessToken: undefined,
  };
}

/** The request is for a protected resource that asks for attestation, or carries a token that is bound to one of our keys. */
async function resourcePlan({ url, headers }: OutgoingRequest, parts: AgentParts): Promise<Plan | undefined> {
  const { servers, artifacts, identities, proofs, guard } = parts;
  const accessToken = /^(?:bearer|dpop) +(\S+)$/i.exec(headers.get('authorization') ?? '')?.[1];
  const server = servers.resourceAt(url);
  if (accessToken === undefined && server?.needs.required !== true) return undefined;
  const bound = accessToken === undefined ? undefined : artifacts.of(accessToken);
  const dpopBound = bound?.scheme === 'DPoP';
  const foreignDpop = !dpopBound && headers.has(DPOP_HEADER) && proofs.recall(headers.get(DPOP_HEADER)) === undefined;
  const method = server === undefined ? undefined : chooseAt(server, parts, dpopBound, foreignDpop);
  if (method === undefined && !dpopBound) return undefined;

  const scope = server === undefined ? undefined : scopeOf(server.id);
  const own = bound === undefined ? undefined : await identities.byLabel(bound.label);
  if (own === undefined && (method === undefined || scope === undefined)) return undefined; // the token's key is gone
  const identity = own ?? (await identities.current(parts.tracking === 'separate' ? (scope as string) : SHARED_SCOPE));
  const audience = scope ?? (bound !== undefined && coversSafely(bound.audience, url) ? bound.audience : url.origin);
  // a token that was asked for without a resource is at home at the first resource that it is used at
  const unnamed = bound !== undefined && bound.audience === scopeOf(bound.issuer);
  await guard.show(identity, audience, unnamed ? bound.audience : undefined);
  return {
    kind: 'resource',
    ready: false,
    foreignDpop,
    identity,
    audience,
    demand: server === undefined || method === undefined ? undefined : { server, method },
    dpop: dpopBound,
    accessToken,
  };
}

/**
 * The method at a resource. There is no registration here; what decides is the token: one that is bound by DPoP brings a
 * proof of the key anyway, so combined mode comes first, and another comes with a PoP.
 */
function chooseAt(
  server: Server,
  { alg, methods }: AgentParts,
  dpopBound: boolean,
  foreignDpop: boolean,
): PopMethod | undefined {
  const first: PopMethod = dpopBound ? 'dpop_combined' : 'attestation_pop_jwt';
  const wanted = [...methods].filter((method) => !(foreignDpop && method === 'dpop_combined'));
  wanted.sort((a, b) => Number(b === first) - Number(a === first));
  const { needs } = server;
  if (needs.popMethods.length === 0 && !needs.required) return undefined;
  try {
    return choosePopMethod(needs, alg, wanted);
  } catch (error) {
    if (needs.required) throw error;
    return undefined; // attestation is an offer here, and one that we cannot take
  }
}

function mismatch(why: string): AttestedError {
  return new AttestedError('metadata_mismatch', why, { rule: 'META-6' });
}

function coversSafely(audience: string, url: URL): boolean {
  return URL.canParse(audience) && covers(audience, url);
}
