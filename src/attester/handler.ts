/** The attester on the wire: web-standard Request to Response. */
import { CHALLENGE_HEADER } from '../core/headers.ts';
import type { JsonObject } from '../core/json.ts';
import { wireAnswer } from '../core/oauth-errors.ts';
import { AttestedError } from '../errors.ts';
import { evidenceKinds } from '../evidence/index.ts';
import { ATTESTER_PATHS, type EvidenceOffer } from '../evidence/protocol.ts';
import type { TpmTrust } from '../evidence/tpm/trust.ts';
import { type AttesterParts, answerAttestationRequest } from './issue.ts';
import { MAX_BODY, readAttestationRequest, readJsonBody, readOptionalJsonBody } from './request.ts';

/** Name of the only status list, below the status path. */
export const STATUS_LIST = '1';

/** How long servers may keep the JWK Set, seconds. They ask earlier for a kid they do not know. */
const JWKS_MAX_AGE = 300;

interface Route {
  method: 'GET' | 'POST';
  answer: (request: Request) => Promise<Response>;
}

export function createHandler(parts: AttesterParts): (request: Request) => Promise<Response> {
  const { challenges, signers, statusLists, tpm } = parts;
  const offer = offerOf(tpm);
  const routes = new Map<string, Route>([
    [
      ATTESTER_PATHS.challenge,
      {
        method: 'POST',
        answer: async (request) => {
          await readOptionalJsonBody(request, MAX_BODY);
          return json(200, { ...(await challenges.create()), ...offer });
        },
      },
    ],
    [ATTESTER_PATHS.attestation, { method: 'POST', answer: (request) => attestationAnswer(parts, request) }],
    [
      ATTESTER_PATHS.jwks,
      {
        method: 'GET',
        answer: async () => cacheable(JSON.stringify(signers.jwks()), 'application/jwk-set+json', JWKS_MAX_AGE),
      },
    ],
  ]);
  if (statusLists !== undefined) {
    routes.set(`${ATTESTER_PATHS.status}/${STATUS_LIST}`, {
      method: 'GET',
      answer: async () => cacheable(await statusLists.token(), 'application/statuslist+jwt', statusLists.maxAge),
    });
  }

  const { pathname } = new URL(parts.issuer);
  const base = pathname === '/' ? '' : pathname;
  return async (request) => {
    const path = new URL(request.url).pathname;
    const route = path.startsWith(`${base}/`) ? routes.get(path.slice(base.length)) : undefined;
    if (route === undefined)
      return json(404, { error: 'invalid_request', error_description: 'there is nothing at this path' });
    if (request.method !== route.method) {
      const description = `this path answers to ${route.method} only`;
      return json(405, { error: 'invalid_request', error_description: description }, { Allow: route.method });
    }
    try {
      return await route.answer(request);
    } catch (error) {
      return refusal(parts, error, undefined);
    }
  };
}

/** A type alias, so that it is a JsonObject. */
type Offer = Pick<EvidenceOffer, keyof EvidenceOffer>;

function offerOf(tpm: TpmTrust | undefined): Offer {
  const evidence = [...evidenceKinds(tpm)];
  if (tpm?.quote === undefined) return { evidence };
  return { evidence, quote: { pcrs: tpm.quote.pcrs as Record<string, number[]>, event_log: tpm.quote.eventLog } };
}

function maxBody({ tpm }: AttesterParts): number {
  return MAX_BODY + (tpm?.quote?.eventLog ? Math.ceil(tpm.maxEventLog / 3) * 4 : 0);
}

async function attestationAnswer(parts: AttesterParts, request: Request): Promise<Response> {
  let clientId: string | undefined;
  try {
    const asked = readAttestationRequest(await readJsonBody(request, maxBody(parts)));
    clientId = asked.client_id;
    return json(200, { ...(await answerAttestationRequest(parts, asked)) });
  } catch (error) {
    if (!(error instanceof AttestedError) || error.code !== 'use_attestation_challenge')
      return refusal(parts, error, clientId);
    return challengeRefusal(parts, error, clientId);
  }
}

/** A stale challenge is answered with the next one, which saves the agent a round. */
async function challengeRefusal(
  parts: AttesterParts,
  error: AttestedError,
  clientId: string | undefined,
): Promise<Response> {
  try {
    const fresh = await parts.challenges.create();
    return refusal(parts, error, clientId, { ...fresh }, { [CHALLENGE_HEADER]: fresh.challenge });
  } catch (fault) {
    return refusal(parts, fault, clientId);
  }
}

/** Whatever went wrong, as JSON: the asker's faults with their code, ours as a bare 503. */
function refusal(
  { log }: AttesterParts,
  error: unknown,
  clientId: string | undefined,
  members: JsonObject = {},
  headers: Record<string, string> = {},
): Response {
  if (error instanceof AttestedError && error.code === 'http_too_large') {
    log({ type: 'refused', code: error.code, rule: error.rule, message: error.message, clientId });
    return json(413, { error: 'invalid_request', error_description: error.message });
  }
  const answer = wireAnswer(error instanceof AttestedError ? error : undefined, 'as');
  if (answer.status >= 500) log({ type: 'fault', error });
  else if (error instanceof AttestedError) {
    log({ type: 'refused', code: error.code, rule: error.rule, message: error.message, clientId });
  }
  return json(answer.status, { ...answer.body, ...members }, { ...answer.headers, ...headers });
}

function json(status: number, body: JsonObject, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', ...headers },
  });
}

function cacheable(body: string, contentType: string, maxAge: number): Response {
  return new Response(body, { headers: { 'Content-Type': contentType, 'Cache-Control': `public, max-age=${maxAge}` } });
}
