/** What a server wants of attestations and proofs, apart from whom it trusts. Every relaxation is a named option. */
import {
  type Algorithm,
  algorithmRow,
  type MacAlgorithm,
  type SignatureAlgorithm,
  signatureAlgorithms,
} from '../core/algorithms.ts';
import { POP_METHODS, type PopMethodOrNone } from '../core/metadata.ts';
import {
  isAtLeast,
  KEY_STORAGE_LEVELS,
  type KeyEvidence,
  type KeyStatement,
  type KeyStorage,
} from '../core/storage.ts';
import { AttestedError } from '../errors.ts';

export interface Policy {
  /** Proof-of-possession methods on offer. Default both; `none` says that the attestation may be left out (META-3). */
  popMethods?: readonly PopMethodOrNone[];
  /** Oldest acceptable attestation over its `iat`, seconds. Default 24 hours. */
  maxAge?: number;
  /** Longest acceptable `exp - iat` of an attestation, seconds. Default 7 days. */
  maxLifetime?: number;
  /** Oldest acceptable proof over its `iat`, seconds: the replay window. Default 300. */
  maxPopAge?: number;
  /** Seconds by which clocks may differ. Default 30. */
  clockTolerance?: number;
  /** Accepted algorithms, for attestations and proofs alike. Default: every asymmetric one we know. */
  algorithms?: readonly (SignatureAlgorithm | Algorithm)[];
  /**
   * `required` (default): every proof carries a challenge (or DPoP nonce) of this server. `optional`: one that is there must
   * be right. `off`: none is given or looked at.
   */
  challenge?: 'required' | 'optional' | 'off';
  /** Demands on what the attestation says. */
  require?: {
    /** The weakest acceptable storage of the instance key. */
    keyStorage?: KeyStorage;
    keyEvidence?: KeyEvidence;
    /** Refuse attestations whose revocation status cannot be checked. */
    status?: boolean;
    /** Claims that must be there; a value other than `true` must be equal to the claim. */
    claims?: Readonly<Record<string, string | number | boolean>>;
  };
  /** Largest single token in bytes, judged before any decoding. Default 8192. */
  maxTokenBytes?: number;
  /** Accept the concatenated serialization though the revision dropped it (CAT-3: channels without HTTP headers). */
  concatenated?: boolean;
  /** The attestation may stand beside another client authentication (section 7.6). Default: one method only. */
  alongside?: boolean;
}

export interface ResolvedPolicy extends Required<Omit<Policy, 'algorithms' | 'require'>> {
  algorithms: ReadonlySet<string>;
  require: NonNullable<Policy['require']>;
}

/** @throws AttestedError `invalid_argument` for values that make no sense */
export function resolvePolicy(policy: Policy = {}, macs: readonly MacAlgorithm[] = []): ResolvedPolicy {
  const algorithms = policy.algorithms ?? [...signatureAlgorithms, ...macs];
  const resolved: ResolvedPolicy = {
    popMethods: policy.popMethods ?? ['attestation_pop_jwt', 'dpop_combined'],
    maxAge: policy.maxAge ?? 24 * 3600,
    maxLifetime: policy.maxLifetime ?? 7 * 24 * 3600,
    maxPopAge: policy.maxPopAge ?? 300,
    clockTolerance: policy.clockTolerance ?? 30,
    algorithms: new Set(algorithms),
    challenge: policy.challenge ?? 'required',
    require: policy.require ?? {},
    maxTokenBytes: policy.maxTokenBytes ?? 8192,
    concatenated: policy.concatenated ?? false,
    alongside: policy.alongside ?? false,
  };
  for (const name of ['maxAge', 'maxLifetime', 'maxPopAge', 'clockTolerance', 'maxTokenBytes'] as const) {
    // as text, which configurations are made of, a sum would become a concatenation
    if (typeof resolved[name] !== 'number' || !(resolved[name] >= 0))
      throw new AttestedError('invalid_argument', `policy.${name} must be a number, zero or more`);
  }
  assertUnderstood(policy, resolved);
  if (!resolved.popMethods.some((method) => method !== 'none')) {
    throw new AttestedError('invalid_argument', 'policy.popMethods needs a method besides none', { rule: 'META-3' });
  }
  return resolved;
}

const REQUIREMENTS: readonly string[] = ['keyStorage', 'keyEvidence', 'status', 'claims'];
const EVIDENCE: readonly unknown[] = ['tpm-certified', 'self-asserted'] satisfies KeyEvidence[];

/** A demand that is misspelt must not be one that demands nothing: configurations do not all pass a type checker. */
function assertUnderstood(policy: Policy, resolved: ResolvedPolicy): void {
  const { popMethods, algorithms, challenge, require } = resolved;
  const known: readonly (readonly [string, boolean])[] = [
    ...Object.keys(policy).map((name) => [name, Object.hasOwn(resolved, name)] as const),
    ...Object.keys(require).map((name) => [`require.${name}`, REQUIREMENTS.includes(name)] as const),
    ['popMethods', popMethods.every((method) => method === 'none' || POP_METHODS.includes(method))],
    ['algorithms', algorithms.size > 0 && [...algorithms].every((alg) => algorithmRow(alg) !== undefined)],
    ['challenge', ['required', 'optional', 'off'].includes(challenge)],
    ['require.claims', !Array.isArray(require.claims)],
    ['require.keyStorage', require.keyStorage === undefined || KEY_STORAGE_LEVELS.includes(require.keyStorage)],
    ['require.keyEvidence', require.keyEvidence === undefined || EVIDENCE.includes(require.keyEvidence)],
  ];
  const wrong = known.find(([, understood]) => !understood);
  if (wrong !== undefined) {
    throw new AttestedError('invalid_argument', `policy.${wrong[0]} means nothing here`);
  }
}

/** Judges what an attestation says against what the policy requires. @throws AttestedError `invalid_client_attestation` */
export function checkRequirements(
  { require }: ResolvedPolicy,
  statement: KeyStatement,
  claims: Readonly<Record<string, unknown>>,
): void {
  if (require.keyStorage !== undefined && !isAtLeast(statement.storage, require.keyStorage)) {
    throw unmet(`a key in ${require.keyStorage} storage`);
  }
  if (require.keyEvidence === 'tpm-certified' && statement.evidence !== 'tpm-certified') {
    throw unmet('key storage certified by a TPM');
  }
  if (require.keyEvidence === 'self-asserted' && statement.evidence === 'unknown') {
    throw unmet('a statement on the evidence for the key');
  }
  for (const [name, wanted] of Object.entries(require.claims ?? {})) {
    const claim = Object.hasOwn(claims, name) ? claims[name] : undefined;
    if (wanted === true ? claim === undefined || claim === false : claim !== wanted) throw unmet(`the claim ${name}`);
  }
}

function unmet(what: string): AttestedError {
  return new AttestedError('invalid_client_attestation', `this server requires an attestation with ${what}`, {
    rule: 'VER-5',
  });
}
