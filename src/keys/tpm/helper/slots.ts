/** The few slots of a TPM for loaded objects: what was used least recently makes room. */
import { TPM_CAP } from '../../../native/tpm2-tss/capabilities.ts';
import type { Esys, EsysHandle } from '../../../native/tpm2-tss/types.ts';

const TPM_PT_HR_TRANSIENT_MIN = 0x10e;
/** Every TPM 2.0 has at least so many. */
const LEAST = 3;

export interface Slots {
  /** The object of this id, if it is loaded. */
  find(id: string): EsysHandle | undefined;
  /** The object of this id, loaded now if it is not. */
  hold(id: string, load: () => Promise<EsysHandle>): Promise<EsysHandle>;
  /** What was held before is from now on not needed by the job at hand. */
  nextJob(): void;
  /** Unloads one object that the job at hand has not asked for; false where there is none. */
  evictOther(): Promise<boolean>;
  /** Unloads one object, if it is loaded. */
  evict(id: string): Promise<void>;
  /** Unloads all. Never fails: what cannot be flushed is gone. */
  clear(): Promise<void>;
}

interface Loaded {
  handle: EsysHandle;
  job: number;
}

export async function createSlots(esys: Esys): Promise<Slots> {
  const answer = await esys.getCapability(TPM_CAP.TPM_PROPERTIES, TPM_PT_HR_TRANSIENT_MIN, 1);
  const room = Math.max(LEAST, answer.find(({ property }) => property === TPM_PT_HR_TRANSIENT_MIN)?.value ?? LEAST);
  const loaded = new Map<string, Loaded>(); // in order of use, oldest first
  let job = 0;

  async function evict(id: string): Promise<void> {
    const object = loaded.get(id);
    if (object === undefined) return;
    loaded.delete(id);
    await esys.flush(object.handle).catch(() => undefined);
  }

  async function evictOther(): Promise<boolean> {
    for (const [id, object] of loaded) {
      if (object.job === job) continue;
      await evict(id);
      return true;
    }
    return false;
  }

  function find(id: string): EsysHandle | undefined {
    const held = loaded.get(id);
    if (held === undefined) return undefined;
    held.job = job;
    if (loaded.size > 1) {
      loaded.delete(id);
      loaded.set(id, held);
    }
    return held.handle;
  }

  return {
    find,
    async hold(id, load) {
      const held = find(id);
      if (held !== undefined) return held;
      if (loaded.size >= room) await evictOther();
      const handle = await load();
      loaded.set(id, { handle, job });
      return handle;
    },
    nextJob: () => {
      job += 1;
    },
    evictOther,
    evict,
    async clear() {
      for (const id of [...loaded.keys()]) await evict(id);
    },
  };
}
