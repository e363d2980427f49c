/** Verification of the Client Attestation (ABCA §7.1), and the memory of those that were verified before. */
import type { KeyObject } from 'node:crypto';
import { checkAttestationTimes, type ParsedAttestation, parseAttestation } from '../core/attestation.ts';
import type { JoseHeader, TokenKind } from '../core/jwt.ts';
import type { Profile } from '../core/profile.ts';
import type { Revision } from '../core/revisions.ts';
import { readStatusReference, type StatusReference } from '../core/status-list.ts';
import { type KeyStatement, readKeyStatement } from '../core/storage.ts';
import { AttestedError } from '../errors.ts';
import { importPublicKey, thumbprintOf, verifySignature } from '../platform/crypto.ts';
import { checkRequirements, type ResolvedPolicy } from './policy.ts';
import type { StatusChecker } from './status.ts';
import { isEntitled, notEntitled, type TrustedKey, type TrustSource } from './trust/source.ts';

/** An attestation whose content and signature held when it was first seen. Its times and status are judged every time. */
export interface VerifiedAttestation {
  parsed: ParsedAttestation;
  /** The Client Instance Key, ready to verify proofs. */
  key: KeyObject;
  thumbprint: string;
  trusted: TrustedKey;
  statement: KeyStatement;
  statusReference: StatusReference | undefined;
}

export interface AttestationRules {
  trust: readonly TrustSource[];
  policy: ResolvedPolicy;
  revision: Revision;
  profile: Profile;
  status: StatusChecker;
  parseHeader: (segment: string, kind: TokenKind) => JoseHeader;
  /** Attestations remembered at most; each costs about 12 kB. */
  maxRemembered: number;
}

export interface AttestationVerdict {
  attestation: VerifiedAttestation;
  status: 'valid' | 'unchecked' | 'none';
}

/**
 * Makes the function that verifies attestations, in the draft's order: required members, algorithm, signature of a trusted
 * attester, public key, freshness; then this server's own requirements and revocation.
 *
 * Instances reuse an attestation (IMPL-1), so the result is remembered by the token's exact text. A hit saves the parsing,
 * the signature and the key import; nothing that can change with time is taken from memory.
 */
export function attestationVerifier(
  rules: AttestationRules,
): (text: string, now: number) => Promise<AttestationVerdict> {
  const { trust, policy, revision, profile, status, parseHeader, maxRemembered } = rules;
  const remembered = new Map<string, VerifiedAttestation>();

  async function verifyNew(text: string, now: number): Promise<VerifiedAttestation> {
    const parsed = parseAttestation(text, revision, profile, parseHeader);
    if (!policy.algorithms.has(parsed.header.alg)) {
      throw new AttestedError(
        'invalid_client_attestation',
        'this server does not accept the algorithm of the Client Attestation',
        {
          rule: 'VER-2',
        },
      );
    }
    checkTimes(parsed, now); // before any signature work and any fetch
    const trusted = await findSigner(parsed, now);
    const statement = readKeyStatement(parsed.payload);
    const statusReference = readStatusReference(parsed.payload);
    checkRequirements(policy, statement, parsed.payload);
    const key = importPublicKey(parsed.instanceKey);
    // both are handed out with every later verification too: what one caller writes into them must not reach the next
    freeze(parsed.payload);
    freeze(parsed.instanceKey);
    return { parsed, key, thumbprint: thumbprintOf(parsed.instanceKey), trusted, statement, statusReference };
  }

  async function findSigner(parsed: ParsedAttestation, now: number): Promise<TrustedKey> {
    let failure: AttestedError | undefined;
    const { iss } = parsed.payload;
    const about = { clientId: parsed.clientId, issuer: typeof iss === 'string' ? iss : undefined };
    for (const source of trust) {
      let candidates: TrustedKey[];
      try {
        candidates = await source.find(parsed.header, now, about);
      } catch (error) {
        // a source that cannot be reached, or finds fault with the header, must not keep out what another one vouches for
        if (!(error instanceof AttestedError)) throw error;
        failure = worse(failure, error);
        continue;
      }
      for (const candidate of candidates) {
        if (!verifySignature(parsed.header.alg, candidate.key, parsed.signingInput, parsed.signature)) continue;
        if (isEntitled(candidate, parsed.clientId)) return candidate;
        // another source may know the same key as speaking for this client
        failure = worse(failure, notEntitled());
      }
    }
    if (failure !== undefined) throw failure;
    throw new AttestedError(
      'invalid_client_attestation',
      'Client Attestation is not signed by an attester this server trusts',
      {
        rule: 'VER-3',
      },
    );
  }

  function checkTimes(parsed: ParsedAttestation, now: number): void {
    const { clockTolerance, maxAge, maxLifetime } = policy;
    checkAttestationTimes(parsed, {
      now: now / 1000,
      clockTolerance,
      // where the revision lets iat be absent, age cannot be judged and exp has to do
      maxAge: parsed.iat === undefined ? undefined : maxAge,
      maxLifetime: parsed.iat === undefined ? undefined : maxLifetime,
    });
  }

  function checkStatus({ statusReference, trusted }: VerifiedAttestation, now: number) {
    const verdict = statusReference === undefined ? 'none' : status.check(statusReference, trusted, now);
    if (policy.require.status && (verdict === 'none' || verdict === 'unchecked')) {
      throw new AttestedError(
        'invalid_client_attestation',
        'this server requires attestations whose revocation it can check',
        {
          rule: 'VER-5',
        },
      );
    }
    return verdict;
  }

  return async function verifyAttestation(text, now) {
    if (text.length > policy.maxTokenBytes) {
      throw new AttestedError('invalid_client_attestation', 'Client Attestation is larger than this server accepts', {
        rule: 'IMPL-3',
      });
    }
    let attestation = remembered.get(text);
    if (attestation === undefined || now >= attestation.trusted.validUntil) {
      remembered.delete(text);
      attestation = await verifyNew(text, now);
      if (remembered.size >= maxRemembered) remembered.delete(remembered.keys().next().value as string);
      remembered.set(text, attestation);
    } else {
      checkTimes(attestation.parsed, now);
    }
    const verdict = checkStatus(attestation, now);
    return { attestation, status: verdict instanceof Promise ? await verdict : verdict };
  };
}

/** Of two reasons the outage counts: the source that could not be asked may be the one that knows. */
function worse(before: AttestedError | undefined, error: AttestedError): AttestedError {
  return before?.code === 'temporarily_unavailable' ? before : error;
}

function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null) return;
  for (const member of Object.values(value)) freeze(member);
  Object.freeze(value);
}
