/** The table of evidence kinds: what an attester can check. A new kind is a folder and a row. */
import type { EvidenceCheck } from './protocol.ts';
import { checkSoftware } from './software/check.ts';
import { checkTpm } from './tpm/check.ts';
import type { TpmTrust } from './tpm/trust.ts';

const checks: Readonly<Record<string, EvidenceCheck>> = {
  software: checkSoftware,
  tpm: checkTpm,
};

/** The check of a kind; undefined for a kind that is not in the table. */
export function evidenceCheck(kind: string): EvidenceCheck | undefined {
  return Object.hasOwn(checks, kind) ? checks[kind] : undefined;
}

/** The kinds that an attester with this trust can check, from weakest to strongest. */
export function evidenceKinds(tpm: TpmTrust | undefined): readonly string[] {
  return Object.keys(checks).filter((kind) => kind !== 'tpm' || tpm !== undefined);
}
