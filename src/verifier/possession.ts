/** Verification of possession: the PoP JWT (ABCA §7.2) or a DPoP proof in combined mode (§7.3). */

import { keyFits } from '../core/algorithms.ts';
import { checkDpopRequest, checkDpopTimes, type ParsedDpopProof, parseDpopProof } from '../core/dpop.ts';
import { sameKey } from '../core/jwk.ts';
import type { JoseHeader, TokenKind } from '../core/jwt.ts';
import { checkPopTimes, parsePop } from '../core/pop.ts';
import type { Profile } from '../core/profile.ts';
import type { Revision } from '../core/revisions.ts';
import { AttestedError } from '../errors.ts';
import {
  equalInConstantTime,
  importPublicKey,
  sha256Base64url,
  thumbprintOf,
  verifySignature,
} from '../platform/crypto.ts';
import type { VerifiedAttestation } from './attestations.ts';
import type { ChallengeContext, Challenges, ChallengeVerdict } from './challenges.ts';
import type { ResolvedPolicy } from './policy.ts';
import type { ReplayStore } from './replay.ts';

export interface PossessionRules {
  audience: string;
  policy: ResolvedPolicy;
  revision: Revision;
  profile: Profile;
  challenges: Challenges;
  replay: ReplayStore;
  parseHeader: (segment: string, kind: TokenKind) => JoseHeader;
}

export interface ProofRequest {
  method: string | undefined;
  url: string | undefined;
  /** Access token in the request, if any. */
  accessToken: string | undefined;
  /** The one challenge that this session expects (CHA-5), where the server keeps sessions. */
  expectedChallenge: string | undefined;
  /** Milliseconds since the epoch. */
  now: number;
}

export interface Possession {
  jti: string;
  /** A new value for the client's next proof, where the one it used is ageing or spent. */
  challengeForNext: string | undefined;
  dpopNonceForNext: string | undefined;
}

/**
 * Verifies a Client Attestation PoP: form, algorithm, time window, audience, signature by the attested key, challenge, and
 * last of all replay. What costs nothing comes before cryptography; what changes state comes after everything (VER-7).
 */
export async function verifyPop(
  text: string,
  attestation: VerifiedAttestation,
  request: ProofRequest,
  rules: PossessionRules,
): Promise<Possession> {
  const { policy, revision, profile, audience, parseHeader } = rules;
  const pop = parsePop(bounded(text, policy), revision, profile, parseHeader);
  checkAlgorithm(pop.header.alg, attestation, policy, 'POP-1');
  const seconds = request.now / 1000;
  const createdAt = checkPopTimes(pop, { now: seconds, ...policy });
  if (pop.audience !== audience) throw refused('Client Attestation PoP is for another server', 'POP-2');
  if (revision.popIss && pop.issuer !== attestation.parsed.clientId) {
    throw refused('Client Attestation PoP names another client', 'POP-7');
  }
  if (!verifySignature(pop.header.alg, attestation.key, pop.signingInput, pop.signature)) {
    throw refused('Client Attestation PoP is not signed with the attested key', 'POP-6');
  }
  const freshness = checkFreshness(pop.challenge, 'challenge', request, rules);
  // awaited only where a store makes it necessary: with everything in memory the whole check is one turn of the event loop
  const verdict = freshness instanceof Promise ? await freshness : freshness;
  if (verdict === 'refused') throw await wantsChallenge(request, rules);
  const claimed = claim(
    `pop ${attestation.thumbprint}`,
    pop.jti,
    createdAt,
    request,
    rules,
    'invalid_client_attestation',
  );
  if (claimed instanceof Promise) await claimed;
  if (verdict !== 'none') {
    const spent = spend(pop.challenge, 'challenge', request, rules);
    if ((typeof spent === 'boolean' ? spent : await spent) !== true) throw await wantsChallenge(request, rules);
  }
  return {
    jti: pop.jti,
    challengeForNext: verdict === 'ageing' ? await issue('challenge', request, rules) : undefined,
    dpopNonceForNext: undefined,
  };
}

/** Verifies a DPoP proof that stands in for the PoP: everything RFC 9449 §4.3 asks, and the attested key (DPOP-1 to DPOP-4). */
export async function verifyCombined(
  text: string,
  attestation: VerifiedAttestation,
  request: ProofRequest,
  rules: PossessionRules,
): Promise<Possession> {
  const { policy, revision, parseHeader } = rules;
  const proof = parseDpopProof(bounded(text, policy), parseHeader);
  checkAlgorithm(proof.header.alg, attestation, policy, 'DPOP-2');
  if (!sameKey(proof.key, attestation.parsed.instanceKey)) {
    throw refused('the DPoP proof is made with another key than the attested one', 'DPOP-3');
  }
  const seconds = request.now / 1000;
  checkDpopTimes(proof, { now: seconds, ...policy });
  checkRequest(proof, request);
  if (!verifySignature(proof.header.alg, attestation.key, proof.signingInput, proof.signature)) {
    throw new AttestedError('invalid_dpop_proof', 'DPoP proof has a wrong signature', { rule: 'DPOP-2' });
  }
  const purpose = revision.combined === 'challenge-in-nonce' ? 'challenge' : 'dpop-nonce';
  const wants = purpose === 'challenge' ? wantsChallenge : wantsNonce;
  const verdict = await checkFreshness(proof.nonce, purpose, request, rules);
  if (verdict === 'refused') throw await wants(request, rules);
  await claim(`dpop ${attestation.thumbprint}`, proof.jti, proof.iat, request, rules, 'invalid_dpop_proof');
  if (verdict !== 'none' && !(await spend(proof.nonce, purpose, request, rules))) throw await wants(request, rules);
  const next = verdict === 'ageing' ? await issue(purpose, request, rules) : undefined;
  return {
    jti: proof.jti,
    challengeForNext: purpose === 'challenge' ? next : undefined,
    dpopNonceForNext: purpose === 'dpop-nonce' ? next : undefined,
  };
}

/**
 * Verifies a DPoP proof that stands beside an attestation and its PoP, or alone: RFC 9449 §4.3, with its own key (DPOP-1).
 *
 * @returns thumbprint of the proof's key, to compare with the access token's `cnf.jkt`
 */
export async function verifyDpopAlone(text: string, request: ProofRequest, rules: PossessionRules): Promise<string> {
  const { policy, parseHeader } = rules;
  const proof = parseDpopProof(bounded(text, policy), parseHeader);
  const wrong = (why: string) => new AttestedError('invalid_dpop_proof', `DPoP proof ${why}`, { rule: 'DPOP-2' });
  if (!policy.algorithms.has(proof.header.alg) || !keyFits(proof.header.alg, proof.key)) {
    throw wrong('has an algorithm that is not accepted or does not fit its key');
  }
  checkDpopTimes(proof, { now: request.now / 1000, ...policy });
  checkRequest(proof, request);
  const key = importPublicKey(proof.key, 'invalid_dpop_proof');
  if (!verifySignature(proof.header.alg, key, proof.signingInput, proof.signature))
    throw wrong('has a wrong signature');
  const verdict = await checkFreshness(proof.nonce, 'dpop-nonce', request, rules);
  if (verdict === 'refused') throw await wantsNonce(request, rules);
  const thumbprint = thumbprintOf(proof.key);
  await claim(`dpop ${thumbprint}`, proof.jti, proof.iat, request, rules, 'invalid_dpop_proof');
  if (verdict !== 'none' && !(await spend(proof.nonce, 'dpop-nonce', request, rules))) {
    throw await wantsNonce(request, rules);
  }
  return thumbprint;
}

type Purpose = ChallengeContext['purpose'];

/** `none`: nothing was asked for and nothing is to be spent. */
type Freshness = Exclude<ChallengeVerdict, 'bad'> | 'refused' | 'none';

function checkFreshness(
  value: string | undefined,
  purpose: Purpose,
  { expectedChallenge, now }: ProofRequest,
  { policy, audience, challenges }: PossessionRules,
): Freshness | Promise<Freshness> {
  if (expectedChallenge !== undefined) {
    const matches = value !== undefined && equalInConstantTime(Buffer.from(value), Buffer.from(expectedChallenge));
    return matches ? 'none' : 'refused';
  }
  if (policy.challenge === 'off') return 'none';
  if (value === undefined) return policy.challenge === 'required' ? 'refused' : 'none';
  const verdict = challenges.check(value, { purpose, audience, now });
  // by what it is, not by what it is not: a thenable that is no native Promise must not count as an answer
  return typeof verdict === 'string' ? freshnessOf(verdict) : Promise.resolve(verdict).then(freshnessOf);
}

function freshnessOf(verdict: ChallengeVerdict): Freshness {
  return verdict === 'good' || verdict === 'ageing' ? verdict : 'refused';
}

/** Takes the proof's `jti`. @throws AttestedError `code` when it was taken before */
function claim(
  instance: string,
  jti: string,
  createdAt: number,
  { now }: ProofRequest,
  { replay, policy }: PossessionRules,
  code: 'invalid_client_attestation' | 'invalid_dpop_proof',
): void | Promise<void> {
  const expiresAt = createdAt + policy.maxPopAge + policy.clockTolerance;
  const first = replay.claim({ instance, jti, createdAt, expiresAt, now: Math.floor(now / 1000) });
  if (typeof first === 'boolean') return mustBeFirst(first, code);
  return Promise.resolve(first).then((won) => mustBeFirst(won, code));
}

function mustBeFirst(first: boolean, code: 'invalid_client_attestation' | 'invalid_dpop_proof'): void {
  if (first !== true) throw new AttestedError(code, 'this proof of possession was used before', { rule: 'VER-8' });
}

/** Uses the challenge up, where challenges are of a kind that can be. */
function spend(
  value: string | undefined,
  purpose: Purpose,
  { now }: ProofRequest,
  { challenges, audience }: PossessionRules,
): boolean | Promise<boolean> {
  if (challenges.spend === undefined || value === undefined) return true;
  return challenges.spend(value, { purpose, audience, now });
}

async function issue(
  purpose: Purpose,
  { now }: ProofRequest,
  { challenges, audience }: PossessionRules,
): Promise<string> {
  return await challenges.issue({ purpose, audience, now });
}

async function wantsChallenge(request: ProofRequest, rules: PossessionRules): Promise<AttestedError> {
  return new AttestedError('use_attestation_challenge', 'the proof must carry a current challenge of this server', {
    rule: 'POP-5',
    challenge: request.expectedChallenge ?? (await issue('challenge', request, rules)),
  });
}

async function wantsNonce(request: ProofRequest, rules: PossessionRules): Promise<AttestedError> {
  return new AttestedError('use_dpop_nonce', 'the DPoP proof must carry a current nonce of this server', {
    rule: 'DPOP-4',
    dpopNonce: request.expectedChallenge ?? (await issue('dpop-nonce', request, rules)),
  });
}

function checkRequest(proof: ParsedDpopProof, { method, url, accessToken }: ProofRequest): void {
  if (method === undefined || url === undefined) {
    throw new AttestedError(
      'invalid_argument',
      'a DPoP proof can only be judged with the method and URL of its request',
      {
        rule: 'DPOP-2',
      },
    );
  }
  checkDpopRequest(proof, { method, url, ath: accessToken === undefined ? undefined : sha256Base64url(accessToken) });
}

function checkAlgorithm(alg: string, { parsed }: VerifiedAttestation, policy: ResolvedPolicy, rule: string): void {
  if (!policy.algorithms.has(alg)) throw refused('this server does not accept the algorithm of the proof', 'VER-2');
  if (!keyFits(alg, parsed.instanceKey))
    throw refused('the algorithm of the proof does not fit the attested key', rule);
}

function bounded(text: string, { maxTokenBytes }: ResolvedPolicy): string {
  if (text.length > maxTokenBytes) throw refused('the proof is larger than this server accepts', 'IMPL-3');
  return text;
}

function refused(why: string, rule: string): AttestedError {
  return new AttestedError('invalid_client_attestation', why, { rule });
}
