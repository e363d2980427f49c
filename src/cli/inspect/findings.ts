/** What a verifier with its defaults would refuse, found with the verifier's own rules. */

import { keyFits } from '../../core/algorithms.ts';
import { checkAttestationTimes, type ParsedAttestation, parseAttestation } from '../../core/attestation.ts';
import { checkDpopTimes, parseDpopProof } from '../../core/dpop.ts';
import { type PublicJwk, sameKey } from '../../core/jwk.ts';
import type { ParsedJwt } from '../../core/jwt.ts';
import { checkPopTimes, parsePop } from '../../core/pop.ts';
import type { Revision } from '../../core/revisions.ts';
import { parseStatusListToken, readStatusReference } from '../../core/status-list.ts';
import { AttestedError } from '../../errors.ts';
import { importPublicKey, thumbprintOf, verifySignature } from '../../platform/crypto.ts';
import { resolvePolicy } from '../../verifier/policy.ts';
import type { TrustSource } from '../../verifier/trust/source.ts';

export interface Finding {
  code: string;
  rule: string | undefined;
  message: string;
}

/** What is known beside the token itself. */
export interface Surroundings {
  revision: Revision;
  /** Seconds since the epoch. */
  now: number;
  trust: TrustSource | undefined;
  audience: string | undefined;
  challenge: string | undefined;
  /** The attestation beside a proof, once it could be read. */
  attestation: ParsedAttestation | undefined;
  /** A PoP stands beside the DPoP proof, so that the proof is none of the combined mode. */
  besidePop: boolean;
}

export interface Judgement {
  findings: Finding[];
  /** What held. */
  checked: string[];
  /** What could not be judged, and what it would take. */
  unchecked: string[];
  attestation?: ParsedAttestation;
}

const policy = resolvePolicy();

/** Collects refusals instead of stopping at the first. */
class Notes implements Judgement {
  findings: Finding[] = [];
  checked: string[] = [];
  unchecked: string[] = [];

  /** @returns what the check gives; undefined when it refused */
  try<T>(check: () => T, held?: string): T | undefined {
    try {
      const value = check();
      if (held !== undefined) this.checked.push(held);
      return value;
    } catch (error) {
      if (!(error instanceof AttestedError)) throw error;
      this.findings.push({ code: error.code, rule: error.rule, message: error.message });
      return undefined;
    }
  }

  refuse(rule: string, message: string, code = 'invalid_client_attestation'): void {
    this.findings.push({ code, rule, message });
  }
}

function judgeSize(notes: Notes, text: string): void {
  if (text.length > policy.maxTokenBytes) notes.refuse('IMPL-3', `larger than ${policy.maxTokenBytes} bytes`);
}

export async function judgeAttestation(text: string, around: Surroundings): Promise<Judgement> {
  const notes = new Notes();
  judgeSize(notes, text);
  const parsed = notes.try(() => parseAttestation(text, around.revision), 'form, type and required claims');
  if (parsed === undefined) return notes;
  if (!policy.algorithms.has(parsed.header.alg)) {
    notes.refuse('VER-2', `${parsed.header.alg} is not accepted without a configured MAC key`);
  }
  const aged = parsed.iat !== undefined;
  const { clockTolerance } = policy;
  const limits = aged ? { maxAge: policy.maxAge, maxLifetime: policy.maxLifetime } : {};
  notes.try(() => checkAttestationTimes(parsed, { now: around.now, clockTolerance, ...limits }), 'times');
  notes.try(() => importPublicKey(parsed.instanceKey), 'the instance key is a sound public key');
  const reference = notes.try(() => readStatusReference(parsed.payload));
  if (reference !== undefined)
    notes.unchecked.push('revocation: nothing is fetched here; use `attested verify --jwks-url`');
  await judgeSigner(notes, parsed, around);
  return Object.assign(notes, { attestation: parsed });
}

async function judgeSigner(notes: Notes, token: ParsedJwt, { trust, now }: Surroundings): Promise<void> {
  if (trust === undefined) {
    notes.unchecked.push('signature of the attester: give its keys with --jwks');
    return;
  }
  const candidates = await trust.find(token.header, now * 1000);
  const signed = candidates.some(({ key }) =>
    verifySignature(token.header.alg, key, token.signingInput, token.signature),
  );
  if (signed) notes.checked.push('signature of the attester');
  else notes.refuse('VER-3', 'not signed by any of the given keys');
}

export function judgePop(text: string, around: Surroundings): Judgement {
  const notes = new Notes();
  judgeSize(notes, text);
  const { revision, now, audience, challenge, attestation } = around;
  const parsed = notes.try(() => parsePop(text, revision), 'form, type and required claims');
  if (parsed === undefined) return notes;
  notes.try(() => checkPopTimes(parsed, { now, ...policy }), 'times');
  if (audience === undefined) notes.unchecked.push('whether it is for your server: give --audience');
  else if (parsed.audience !== audience) notes.refuse('POP-2', 'for another server than --audience');
  else notes.checked.push('audience');
  if (parsed.challenge === undefined) {
    notes.refuse('POP-5', 'no challenge, which a server demands by default', 'use_attestation_challenge');
  } else if (challenge === undefined) notes.unchecked.push('the challenge: give --challenge');
  else if (parsed.challenge !== challenge) {
    notes.refuse('POP-5', 'another challenge than --challenge', 'use_attestation_challenge');
  } else notes.checked.push('challenge');
  if (revision.popIss && attestation !== undefined && parsed.issuer !== attestation.clientId) {
    notes.refuse('POP-7', 'iss is not the client_id of the attestation');
  }
  notes.unchecked.push('replay: only the server knows which jti it has seen');
  if (attestation === undefined) notes.unchecked.push('its signature: that takes the attestation beside it');
  else judgePossession(notes, parsed, attestation.instanceKey, 'POP-6');
  return notes;
}

function judgePossession(notes: Notes, token: ParsedJwt, key: PublicJwk, rule: string): void {
  const { alg } = token.header;
  const imported = notes.try(() => importPublicKey(key));
  if (imported === undefined) return;
  if (!keyFits(alg, key)) notes.refuse(rule, 'its algorithm does not fit the key');
  else if (verifySignature(alg, imported, token.signingInput, token.signature))
    notes.checked.push('signature by the key');
  else notes.refuse(rule, 'not signed with the attested key');
}

export function judgeDpop(text: string, around: Surroundings): Judgement {
  const notes = new Notes();
  judgeSize(notes, text);
  const { revision, now, attestation, besidePop, challenge } = around;
  const parsed = notes.try(() => parseDpopProof(text), 'form, type and required claims');
  if (parsed === undefined) return notes;
  notes.try(() => checkDpopTimes(parsed, { now, ...policy }), 'times');
  judgePossession(notes, parsed, parsed.key, 'DPOP-2');
  const combined = attestation !== undefined && !besidePop;
  if (combined && revision.combined === 'absent') notes.refuse('DPOP-7', 'this revision has no DPoP combined mode');
  if (combined && !sameKey(parsed.key, attestation.instanceKey)) {
    notes.refuse('DPOP-3', 'made with another key than the attested one');
  } else if (combined) notes.checked.push('the key is the attested one');
  const byChallenge = combined && revision.combined === 'challenge-in-nonce';
  const code = byChallenge ? 'use_attestation_challenge' : 'use_dpop_nonce';
  if (parsed.nonce === undefined) notes.refuse('DPOP-4', 'no nonce, which a server demands by default', code);
  else if (challenge === undefined) notes.unchecked.push('the nonce: give --challenge');
  else if (parsed.nonce !== challenge) notes.refuse('DPOP-4', 'another nonce than --challenge', code);
  else notes.checked.push('nonce');
  notes.unchecked.push(
    'method, URL and access token: that takes the request',
    'replay: only the server knows which jti it has seen',
  );
  return notes;
}

export async function judgeStatusList(text: string, around: Surroundings): Promise<Judgement> {
  const notes = new Notes();
  const parsed = notes.try(() => parseStatusListToken(text), 'form, type and required claims');
  if (parsed === undefined) return notes;
  const rule = 'Token Status List §8.3';
  if (parsed.exp !== undefined && parsed.exp <= around.now) notes.refuse(rule, 'expired');
  if (parsed.iat > around.now + 60) notes.refuse(rule, 'issued in the future');
  await judgeSigner(notes, parsed, around);
  return notes;
}

/** An access token beside an attestation: does it name the same client and key? Its own validity is not judged here. */
export function judgeAccessToken(payload: Record<string, unknown>, { attestation }: Surroundings): Judgement {
  const notes = new Notes();
  notes.unchecked.push('the access token itself: its authorization server vouches for it');
  if (attestation === undefined) return notes;
  if (payload.client_id !== undefined && payload.client_id !== attestation.clientId) {
    notes.refuse('VER-6', 'issued to another client than the attested one', 'invalid_token');
  }
  const jkt = (payload.cnf as { jkt?: unknown } | undefined)?.jkt ?? payload.client_instance_jkt;
  if (jkt === undefined) notes.refuse('BIND-1', 'not bound to a client instance', 'invalid_token');
  else if (jkt !== thumbprintOf(attestation.instanceKey)) {
    notes.refuse('BIND-1', 'bound to another key than the attested one', 'invalid_token');
  } else notes.checked.push('bound to the attested key');
  return notes;
}
