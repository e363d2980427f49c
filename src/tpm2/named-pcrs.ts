/** PCR selections as options, files and messages have them: `{ sha256: [7] }`. */
import { isJsonObject } from '../core/json.ts';
import { hashes } from './algorithms.ts';
import type { PcrBankName, PcrSelection } from './device.ts';

/** PCRs that every PC has (TCG PC Client Platform TPM Profile §4.6). */
const PCRS = 24;

/** In the order of the table of hashes, which is also that of our digests. */
export const pcrBankNames = Object.keys(hashes) as readonly PcrBankName[];

/** A selection from outside, PCR numbers ascending; undefined when it is none, selects nothing, or something twice. */
export function readNamedPcrs(value: unknown): PcrSelection | undefined {
  if (!isJsonObject(value)) return undefined;
  const selection: PcrSelection = {};
  for (const [name, pcrs] of Object.entries(value)) {
    const bank = pcrBankNames.find((known) => known === name);
    if (bank === undefined || !Array.isArray(pcrs) || pcrs.length === 0 || !pcrs.every(isPcr)) return undefined;
    if (new Set(pcrs).size !== pcrs.length) return undefined;
    selection[bank] = (pcrs as number[]).toSorted((a, b) => a - b);
  }
  return Object.keys(selection).length > 0 ? selection : undefined;
}

function isPcr(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < PCRS;
}
