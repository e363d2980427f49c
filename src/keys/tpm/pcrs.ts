/** PCR selections as the binding wants them. */
import type { PcrBank } from '../../native/tpm2-tss/types.ts';
import { hashes } from '../../tpm2/algorithms.ts';
import type { PcrBankName, PcrSelection } from '../../tpm2/device.ts';
import { pcrBankNames } from '../../tpm2/named-pcrs.ts';

/** In the order of the table, which is also the order of the digest. */
export function banksOf(selection: PcrSelection): PcrBank[] {
  return pcrBankNames.flatMap((name) => {
    const pcrs = selection[name];
    return pcrs === undefined ? [] : [{ hash: hashes[name].id, pcrs }];
  });
}

export function bankNameOf(hash: number): PcrBankName | undefined {
  return pcrBankNames.find((name) => hashes[name].id === hash);
}
