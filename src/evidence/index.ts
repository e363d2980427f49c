/** The table of evidence kinds: what an attester can check. A new kind is a folder and a row. */
import type { EvidenceCheck } from './protocol.ts';
import { checkSoftware } from './software/check.ts';

const checks: Readonly<Record<string, EvidenceCheck>> = {
  software: checkSoftware,
};

/** Every kind in the table. */
export const EVIDENCE_KINDS: readonly string[] = Object.keys(checks);

/** The check of a kind; undefined for a kind that is not in the table. */
export function evidenceCheck(kind: string): EvidenceCheck | undefined {
  return Object.hasOwn(checks, kind) ? checks[kind] : undefined;
}
