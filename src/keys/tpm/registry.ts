/** One helper process, and so one queue, for each TPM: all providers of this process share it. */
import { createTpmProcess, type TpmProcess } from './process.ts';
import type { TpmAddress } from './protocol.ts';

export type TpmRequest = TpmProcess['request'];

export interface SharedTpm {
  request: TpmRequest;
  /** The last one that releases a TPM ends its helper. */
  release(): Promise<void>;
}

const shared = new Map<string, { process: TpmProcess; users: number }>();

export function shareTpm(address: TpmAddress): SharedTpm {
  const entry = shared.get(address.tcti) ?? { process: createTpmProcess(address), users: 0 };
  shared.set(address.tcti, entry);
  entry.users += 1;
  let released = false;
  return {
    request: entry.process.request,
    async release() {
      if (released) return;
      released = true;
      entry.users -= 1;
      if (entry.users > 0) return;
      shared.delete(address.tcti);
      await entry.process.close();
    },
  };
}
