/** Where an instance key lives and on what evidence, as attestations say it and policies ask for it. Pure. */
import type { JsonObject } from './json.ts';

/** From weakest to strongest. */
export const KEY_STORAGE_LEVELS = ['software', 'keychain', 'hardware'] as const;
export type KeyStorage = (typeof KEY_STORAGE_LEVELS)[number];
export type KeyEvidence = 'self-asserted' | 'tpm-certified';

export interface KeyStatement {
  storage: KeyStorage | 'unknown';
  evidence: KeyEvidence | 'unknown';
}

/**
 * Claims for a statement: `key_storage` (OpenID4VCI's claim name, an array) and `key_evidence`. Only evidence that was
 * checked may say more than `self-asserted`, and hardware is never written on the agent's word.
 */
export function keyStatementClaims(storage: KeyStorage, evidence: KeyEvidence): JsonObject {
  return { key_storage: [storage], key_evidence: evidence };
}

/** Reads the statement of an attestation; whatever is not understood is `unknown`. */
export function readKeyStatement(claims: JsonObject): KeyStatement {
  const listed = Array.isArray(claims.key_storage) ? claims.key_storage : [claims.key_storage];
  // the weakest level named is the one to rely on
  const storage = KEY_STORAGE_LEVELS.find((level) => listed.includes(level)) ?? 'unknown';
  const evidence = claims.key_evidence;
  return { storage, evidence: evidence === 'tpm-certified' || evidence === 'self-asserted' ? evidence : 'unknown' };
}

/** Is a key's storage at least as strong as the one demanded? `unknown` never is. */
export function isAtLeast(storage: KeyStorage | 'unknown', demanded: KeyStorage): boolean {
  return storage !== 'unknown' && KEY_STORAGE_LEVELS.indexOf(storage) >= KEY_STORAGE_LEVELS.indexOf(demanded);
}
