/** PCR selections as options and files have them (`{ sha256: [7] }`), and as the binding wants them. */
import { isJsonObject } from '../../core/json.ts';
import type { PcrBank } from '../../native/tpm2-tss/types.ts';
import { hashes } from '../../tpm2/algorithms.ts';
import type { PcrBankName, PcrSelection } from '../../tpm2/device.ts';

/** PC Client TPMs have 24 PCRs. */
const PCRS = 24;
const bankNames = Object.keys(hashes) as PcrBankName[];

/** A selection from outside, PCR numbers ascending; undefined when it is none, or selects nothing. */
export function readPcrSelection(value: unknown): PcrSelection | undefined {
  if (!isJsonObject(value)) return undefined;
  const selection: Partial<Record<PcrBankName, readonly number[]>> = {};
  for (const [name, pcrs] of Object.entries(value)) {
    const bank = bankNames.find((known) => known === name);
    if (bank === undefined || !Array.isArray(pcrs) || pcrs.length === 0 || !pcrs.every(isPcr)) return undefined;
    if (new Set(pcrs).size !== pcrs.length) return undefined;
    selection[bank] = (pcrs as number[]).toSorted((a, b) => a - b);
  }
  return Object.keys(selection).length > 0 ? selection : undefined;
}

/** In the order of the table, which is also the order of the digest. */
export function banksOf(selection: PcrSelection): PcrBank[] {
  return bankNames.flatMap((name) => {
    const pcrs = selection[name];
    return pcrs === undefined ? [] : [{ hash: hashes[name].id, pcrs }];
  });
}

export function bankNameOf(hash: number): PcrBankName | undefined {
  return bankNames.find((name) => hashes[name].id === hash);
}

function isPcr(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < PCRS;
}
