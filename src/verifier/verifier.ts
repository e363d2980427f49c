/** The verifier of an AS or RS: the draft's steps (ABCA §7) in the draft's order. */

import { challengeBody } from '../core/challenge.ts';
import { splitAttestation } from '../core/concatenated.ts';
import { CHALLENGE_HEADER, DPOP_NONCE_HEADER, type HeadersInput, readAttestationFields } from '../core/headers.ts';
import type { JsonObject } from '../core/json.ts';
import type { PublicJwk } from '../core/jwk.ts';
import { type JoseHeader, parseJoseHeader, type TokenKind } from '../core/jwt.ts';
import { type PopMethod, serverMetadata } from '../core/metadata.ts';
import { wireAnswer } from '../core/oauth-errors.ts';
import { baseProfile, type Profile } from '../core/profile.ts';
import { type RevisionNumber, revisionOf } from '../core/revisions.ts';
import type { KeyStatement } from '../core/storage.ts';
import { AttestedError } from '../errors.ts';
import { type AttestationVerdict, attestationVerifier } from './attestations.ts';
import { type Challenges, sealedChallenges } from './challenges.ts';
import { type Policy, type ResolvedPolicy, resolvePolicy } from './policy.ts';
import {
  type Possession,
  type PossessionRules,
  type ProofRequest,
  verifyCombined,
  verifyDpopAlone,
  verifyPop,
} from './possession.ts';
import { memoryReplay, type ReplayStore } from './replay.ts';
import { type StatusOptions, statusChecker } from './status.ts';
import type { TrustSource } from './trust/source.ts';

export interface VerifierOptions {
  /** Authorization Server or Resource Server: decides statuses and metadata. */
  role: 'as' | 'rs';
  /** This server's issuer identifier (AS, RFC 8414) or resource identifier (RS, RFC 9728), exactly as its metadata has it. */
  audience: string;
  /** Whom to believe. Without a match an attestation is refused. */
  trust: TrustSource | readonly TrustSource[];
  /** Default: memory of this process. */
  replay?: ReplayStore;
  /** Default: sealed challenges with a key of this process. */
  challenges?: Challenges;
  policy?: Policy;
  /** Draft revision to speak. Default: the newest known. */
  revision?: RevisionNumber;
  profile?: Profile;
  /** How status lists are fetched. */
  status?: StatusOptions;
  /** URL of this RS's metadata document, for `WWW-Authenticate` (RFC 9728 §5.1). */
  resourceMetadata?: string;
  /** Verified attestations kept in memory at most, about 12 kB each, most of it OpenSSL's. Default 25,000. */
  maxRemembered?: number;
  /** Milliseconds since the epoch. Default `Date.now`. */
  now?: () => number;
}

export interface VerifyRequest {
  /** Web `Headers`, pairs, Node's flat `rawHeaders`, or a record. Prefer raw forms: they show repeated fields best. */
  headers: HeadersInput;
  /** Needed for DPoP combined mode: the request's method and absolute URL as the client sees it. */
  method?: string | undefined;
  url?: string | undefined;
  /** The request's `client_id` parameter, where it has one (VER-6). */
  clientId?: string | undefined;
  /** The one challenge this session expects, for servers that bind challenges to sessions (CHA-5). */
  challenge?: string | undefined;
  /** The request's `dpop_jkt` parameter (RFC 9449 §10), where it has one: with combined mode it is refused (DPOP-5). */
  dpopJkt?: string | undefined;
}

/** Who is calling, and on what evidence. */
export interface AttestedClient {
  clientId: string;
  /** RFC 7638 thumbprint of the Client Instance Key: the name of the instance at this server. Bind artifacts to it (BIND). */
  thumbprint: string;
  publicJwk: PublicJwk;
  /** All claims of the attestation. */
  claims: Readonly<JsonObject>;
  /** The attester, by the name its trust source gives it. */
  attester: string;
  method: PopMethod;
  /** Where the key lives, as far as the attester says so. */
  keyStorage: KeyStatement['storage'];
  keyEvidence: KeyStatement['evidence'];
  /** Revocation: `valid`, `unchecked` (a status is named, but no origin is configured for it) or `none` (none is named). */
  status: 'valid' | 'unchecked' | 'none';
  /** Seconds since the epoch. */
  expiresAt: number;
  /** Send it as `OAuth-Client-Attestation-Challenge` with the answer, so that the client's next proof is fresh. */
  challengeForNext?: string;
  /** Send it as `DPoP-Nonce` with the answer. */
  dpopNonceForNext?: string;
}

export interface Verifier {
  readonly role: 'as' | 'rs';
  readonly audience: string;
  readonly policy: Readonly<Pick<ResolvedPolicy, 'popMethods' | 'concatenated'>>;
  /**
   * Verifies attestation and proof of possession of one request.
   *
   * Left to the caller: the access token at an RS and its binding to {@link AttestedClient.thumbprint}, and the binding of
   * codes and refresh tokens at an AS (`assertBoundTo`).
   *
   * @throws AttestedError with a wire code; give it to {@link Verifier.respond}
   */
  verify(request: VerifyRequest): Promise<AttestedClient>;
  /**
   * The same for the concatenated serialization (CAT), where revision or policy allow it.
   * @throws AttestedError as {@link Verifier.verify} does
   */
  verifyConcatenated(text: string, request?: Pick<VerifyRequest, 'clientId' | 'challenge'>): Promise<AttestedClient>;
  /**
   * Verifies an attestation alone. It proves nothing about who sent it: for servers that check possession by other means,
   * such as oidc-provider.
   * @throws AttestedError as {@link Verifier.verify} does
   */
  verifyAttestation(text: string): Promise<AttestationVerdict>;
  /**
   * Verifies the DPoP proof of a request that is not in combined mode (DPOP-1), so with a key of its own.
   * @returns the key's thumbprint, for the access token's `cnf.jkt`
   * @throws AttestedError `invalid_dpop_proof`, `use_dpop_nonce`
   */
  verifyDpop(request: VerifyRequest): Promise<string>;
  /** The HTTP answer for a refusal: status, headers and body as the draft wants them of this role. */
  respond(error: unknown): Response;
  /** Parameters for this server's metadata document. */
  metadata(options?: { challengeEndpoint?: string }): JsonObject;
  /** Headers that carry fresh values to the client with any answer (CHA-3, CHA-6). */
  freshHeaders(): Promise<Record<string, string>>;
  /** Serves the challenge endpoint (CHA-1). */
  challengeHandler(request: Request): Promise<Response>;
}

/** @throws AttestedError `invalid_argument` for options that make no sense */
export function createVerifier(options: VerifierOptions): Verifier {
  const { role, audience, profile = baseProfile, now = Date.now } = options;
  if (role !== 'as' && role !== 'rs') {
    throw new AttestedError('invalid_argument', 'the role of a verifier is as or rs: it decides which checks are made');
  }
  if (typeof audience !== 'string' || audience === '') {
    throw new AttestedError('invalid_argument', 'a verifier needs its audience: the issuer or resource identifier');
  }
  const trust = [options.trust].flat() as TrustSource[];
  if (trust.length === 0 || trust.some((source) => typeof source?.find !== 'function'))
    throw new AttestedError(
      'invalid_argument',
      'a verifier needs somebody to trust: remoteJwks(url, { clients }), jwks, x5c, jku or mac',
    );
  const revision = revisionOf(options.revision);
  const policy = resolvePolicy(options.policy, [...new Set(trust.flatMap(({ macAlgorithms = [] }) => macAlgorithms))]);
  const challenges = options.challenges ?? sealedChallenges();
  const parseHeader = rememberingHeaders();
  const verifyAttestation = attestationVerifier({
    trust,
    policy,
    revision,
    profile,
    parseHeader,
    status: statusChecker(trust, options.status),
    maxRemembered: options.maxRemembered ?? 25_000,
  });
  const rules: PossessionRules = {
    audience,
    policy,
    revision,
    profile,
    challenges,
    parseHeader,
    replay: options.replay ?? memoryReplay(),
  };
  const offersCombined = policy.popMethods.includes('dpop_combined') && revision.combined !== 'absent';
  if (!offersCombined && !policy.popMethods.includes('attestation_pop_jwt')) {
    throw new AttestedError('invalid_argument', 'this draft revision has none of the proof methods of the policy', {
      rule: 'DPOP-7',
    });
  }

  /** Chooses the proof by the fields that are there, never by what the client says it is (ABCA §7). */
  function chooseProof(pop: string | undefined, dpop: string | undefined): { method: PopMethod; text: string } {
    if (pop !== undefined) {
      if (!policy.popMethods.includes('attestation_pop_jwt'))
        throw refused('this server takes DPoP proofs only', 'META-3');
      return { method: 'attestation_pop_jwt', text: pop };
    }
    if (dpop === undefined) throw refused('the request has no proof of possession', 'POP-8');
    if (!offersCombined) throw refused('this server does not offer DPoP combined mode', 'DPOP-7');
    return { method: 'dpop_combined', text: dpop };
  }

  /** The steps of section 7. Reading comes first and inside, so that its refusals reject like all others. */
  async function judge(read: () => Tokens, clientId: string | undefined): Promise<AttestedClient> {
    const { text, proof, request } = read();
    const { attestation, status } = await verifyAttestation(text, request.now);
    const { parsed, thumbprint, trusted, statement } = attestation;
    if (clientId !== undefined && clientId !== parsed.clientId) {
      throw refused('the request names another client than the attestation', 'VER-6');
    }
    const verifyProof = proof.method === 'dpop_combined' ? verifyCombined : verifyPop;
    const possession = await verifyProof(proof.text, attestation, request, rules);
    return {
      clientId: parsed.clientId,
      thumbprint,
      publicJwk: parsed.instanceKey,
      claims: parsed.payload,
      attester: trusted.attester,
      method: proof.method,
      keyStorage: statement.storage,
      keyEvidence: statement.evidence,
      status,
      expiresAt: parsed.exp,
      ...nextValues(possession),
    };
  }

  function readHeaders({ headers, method, url, challenge, dpopJkt }: VerifyRequest): Tokens {
    const { attestation, pop, dpop, authorization } = readAttestationFields(headers);
    if (attestation === undefined) throw refused('the request has no Client Attestation', 'VER-1');
    const proof = chooseProof(pop, dpop);
    if (dpopJkt !== undefined && proof.method === 'dpop_combined') {
      throw new AttestedError('invalid_request', 'dpop_jkt cannot be used with DPoP combined mode', { rule: 'DPOP-5' });
    }
    if (role === 'as' && !policy.alongside) refuseSecondMethod(authorization);
    const accessToken = role === 'rs' ? accessTokenOf(authorization) : undefined;
    return {
      text: attestation,
      proof,
      request: { method, url, accessToken, expectedChallenge: challenge, now: now() },
    };
  }

  function readConcatenated(text: string, challenge: string | undefined): Tokens {
    if (!revision.concatenated && !policy.concatenated) {
      throw refused('this server does not accept the concatenated serialization', 'CAT-1');
    }
    if (text.length > 2 * policy.maxTokenBytes + 1) {
      throw refused('the tokens are larger than this server accepts', 'IMPL-3');
    }
    const { attestation, pop } = splitAttestation(text);
    const request = {
      method: undefined,
      url: undefined,
      accessToken: undefined,
      expectedChallenge: challenge,
      now: now(),
    };
    return { text: attestation, proof: chooseProof(pop, undefined), request };
  }

  async function freshHeaders(): Promise<Record<string, string>> {
    const headers: Record<string, string> = {};
    if (policy.challenge === 'off') return headers;
    const context = { audience, now: now() };
    if (policy.popMethods.includes('attestation_pop_jwt') || revision.combined === 'challenge-in-nonce') {
      headers[CHALLENGE_HEADER] = await challenges.issue({ purpose: 'challenge', ...context });
    }
    if (offersCombined && revision.combined === 'dpop-nonce') {
      headers[DPOP_NONCE_HEADER] = await challenges.issue({ purpose: 'dpop-nonce', ...context });
    }
    return headers;
  }

  return {
    role,
    audience,
    policy: { popMethods: policy.popMethods, concatenated: revision.concatenated || policy.concatenated },

    verify: (request) => judge(() => readHeaders(request ?? { headers: [] }), request?.clientId),
    verifyConcatenated: (text, { clientId, challenge } = {}) =>
      judge(() => readConcatenated(text, challenge), clientId),
    verifyAttestation: (text) => verifyAttestation(text, now()),

    async verifyDpop({ headers, method, url, challenge }) {
      const { dpop, authorization } = readAttestationFields(headers);
      if (dpop === undefined) {
        throw new AttestedError('invalid_dpop_proof', 'the request has no DPoP proof', { rule: 'DPOP-2' });
      }
      const accessToken = role === 'rs' ? accessTokenOf(authorization) : undefined;
      return verifyDpopAlone(dpop, { method, url, accessToken, expectedChallenge: challenge, now: now() }, rules);
    },

    respond(error) {
      const extra = options.resourceMetadata === undefined ? {} : { resource_metadata: options.resourceMetadata };
      const { status, headers, body } = wireAnswer(error instanceof AttestedError ? error : undefined, role, extra);
      return new Response(JSON.stringify(body), { status, headers });
    },

    metadata({ challengeEndpoint } = {}) {
      const algorithms = [...policy.algorithms];
      const endorsements = role === 'as' && trust.some((source) => source.endorsements === true);
      const metadata = serverMetadata({
        role,
        popMethods: policy.popMethods.filter((method) => method !== 'dpop_combined' || offersCombined),
        attestationAlgorithms: algorithms,
        popAlgorithms: algorithms.filter((alg) => !alg.startsWith('HS')),
        challengeEndpoint: policy.challenge === 'off' ? undefined : challengeEndpoint,
        popMethodsMetadata: revision.popMethodsMetadata,
      });
      return endorsements ? { ...metadata, client_attester_endorsement_supported: true } : metadata;
    },

    freshHeaders,

    async challengeHandler(request) {
      const common = { 'Cache-Control': 'no-store' };
      if (policy.challenge === 'off') return new Response(null, { status: 404, headers: common });
      if (request.method !== 'POST') return new Response(null, { status: 405, headers: { ...common, Allow: 'POST' } });
      try {
        const fresh = await freshHeaders();
        return Response.json(challengeBody(fresh[CHALLENGE_HEADER]), { headers: { ...common, ...fresh } });
      } catch {
        // strangers may ask here: a store that is down must not become an unhandled rejection
        const { status, headers, body } = wireAnswer(undefined, role);
        return new Response(JSON.stringify(body), { status, headers });
      }
    },
  };
}

interface Tokens {
  text: string;
  proof: { method: PopMethod; text: string };
  request: ProofRequest;
}

function nextValues({
  challengeForNext,
  dpopNonceForNext,
}: Possession): Pick<AttestedClient, 'challengeForNext' | 'dpopNonceForNext'> {
  return {
    ...(challengeForNext !== undefined && { challengeForNext }),
    ...(dpopNonceForNext !== undefined && { dpopNonceForNext }),
  };
}

/** RFC 6749 §2.3: one client authentication method per request. */
function refuseSecondMethod(authorization: string | undefined): void {
  if (authorization === undefined) return;
  throw new AttestedError('invalid_request', 'the request authenticates its client in two ways at once', {
    rule: 'RFC 6749 §2.3',
  });
}

function accessTokenOf(authorization: string | undefined): string | undefined {
  // all of what follows the scheme: a value that another parser would read as a token must not escape the `ath` check
  return authorization === undefined ? undefined : /^(?:DPoP|Bearer)[\t ]+(.+)$/is.exec(authorization.trim())?.[1];
}

const MAX_HEADERS = 1000;

/** Token headers repeat from request to request (a PoP's always does), so parsed ones are remembered by their text. */
function rememberingHeaders(): (segment: string, kind: TokenKind) => JoseHeader {
  const remembered = new Map<string, JoseHeader>();
  return (segment, kind) => {
    const id = `${kind.typ} ${segment}`;
    const known = remembered.get(id);
    if (known !== undefined) return known;
    const header = parseJoseHeader(segment, kind);
    if (segment.length > 1024) return header;
    if (remembered.size >= MAX_HEADERS) remembered.clear();
    remembered.set(id, header);
    return header;
  };
}

function refused(why: string, rule: string): AttestedError {
  return new AttestedError('invalid_client_attestation', why, { rule });
}
