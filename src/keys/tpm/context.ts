/**
 * One TPM as the helper holds it: a context that is opened on demand, the objects loaded into its few slots, and the patience
 * with a TPM that is busy, full, restarted or shared with others. Jobs run one at a time; each can be run again from its
 * beginning, which is how every hiccup is answered.
 */
import { TpmError } from '../../native/tpm2-tss/error.ts';
import type { Esys, EsysHandle, OpenEsys } from '../../native/tpm2-tss/types.ts';
import { type Remedy, remedyFor } from './codes.ts';
import { createParents, type Parents } from './parents.ts';
import type { TpmAddress } from './protocol.ts';
import { createSlots, type Slots } from './slots.ts';

/** Without a resource manager, others wait for the slots that we hold: for how long at most, and for how long we then step back. */
const TURN = 2000;
const STEP_BACK = 25;
/** Without a resource manager, objects that stay for so long while we find no room belong to nobody who lives. Milliseconds. */
const ABANDONED = 3000;
const IDLE = 250;
const [FIRST_PAUSE, LONGEST_PAUSE] = [2, 50];
const TPM_CAP_HANDLES = 1;
const FIRST_TRANSIENT = 0x80000000;

export interface Context {
  esys: Esys;
  slots: Slots;
  parents: Parents;
  /** What a job wants to keep as long as the context lives, such as sessions. */
  kept: Map<string, EsysHandle>;
}

export interface TpmContext {
  /** @param patience milliseconds for which to go on where the TPM is busy or full */
  run<T>(patience: number, job: (context: Context) => Promise<T>): Promise<T>;
  /** Gives back every slot, and the connection; the next job opens it anew. */
  release(): Promise<void>;
}

export function createContext(openEsys: OpenEsys, address: TpmAddress): TpmContext {
  const { tcti, managed } = address;
  let context: Context | undefined;
  let opened = 0;
  let tail: Promise<unknown> = Promise.resolve();
  let idle: NodeJS.Timeout | undefined;
  let running = 0;

  async function open(): Promise<Context> {
    const esys = await openEsys(tcti);
    try {
      const slots = await createSlots(esys);
      opened = performance.now();
      return { esys, slots, parents: createParents(esys, slots, address), kept: new Map() };
    } catch (error) {
      await esys.close().catch(ignore);
      throw error;
    }
  }

  /** Leaves nothing of ours in the TPM. What fails here was gone already. */
  async function release(): Promise<void> {
    const held = context;
    context = undefined;
    if (held === undefined) return;
    await dropSessions(held);
    await held.slots.clear();
    await held.esys.close().catch(ignore);
  }

  /** After a dead connection: nothing can be flushed any more. */
  async function abandon(): Promise<void> {
    const held = context;
    context = undefined;
    await held?.esys.close().catch(ignore);
  }

  async function attempt<T>(patience: number, job: (context: Context) => Promise<T>): Promise<T> {
    const start = performance.now();
    const counts: Record<Remedy, number> = { reopen: 0, 'make-room': 0, reload: 0, wait: 0 };
    for (let pause = FIRST_PAUSE; ; ) {
      try {
        context ??= await open();
        context.slots.nextJob();
        return await job(context);
      } catch (error) {
        const remedy = error instanceof TpmError ? remedyFor(error.code) : undefined;
        if (remedy === undefined) throw error;
        counts[remedy] += 1;
        const waited = performance.now() - start;
        if (waited > patience || (counts[remedy] > 1 && (remedy === 'reopen' || remedy === 'reload'))) throw error;
        if (remedy === 'reopen') await abandon();
        else if (remedy === 'reload') await release();
        else {
          const room = remedy === 'make-room' && context !== undefined && (await context.slots.evictOther());
          if (room) continue;
          if (remedy === 'make-room') {
            await release(); // so that of two who each hold what the other lacks, one gets on
            if (!managed && waited > ABANDONED) await flushAbandoned();
          }
          await sleep(pause * (0.5 + jitter()));
          pause = Math.min(pause * 2, LONGEST_PAUSE);
        }
      }
    }
  }

  async function flushAbandoned(): Promise<void> {
    context ??= await open();
    const { esys } = context;
    for (const { value } of await esys.getCapability(TPM_CAP_HANDLES, FIRST_TRANSIENT, 64)) {
      await esys.fromTpmHandle(value).then((object) => esys.flush(object), ignore);
    }
  }

  async function turn<T>(patience: number, job: (context: Context) => Promise<T>): Promise<T> {
    if (!managed && context !== undefined && performance.now() - opened > TURN) {
      await release();
      await sleep(STEP_BACK);
    }
    return attempt(patience, job);
  }

  const inTurn = <T>(job: () => Promise<T>): Promise<T> => {
    running += 1;
    const result = tail.then(job).finally(() => {
      running -= 1;
      if (!managed && running === 0 && context !== undefined) idleLater();
    });
    tail = result.catch(ignore);
    return result;
  };

  function idleLater(): void {
    idle ??= setTimeout(() => {
      idle = undefined;
      if (running === 0) void inTurn(release);
    }, IDLE);
    idle.refresh();
  }

  return {
    run: (patience, job) => inTurn(() => turn(patience, job)),
    release: () => inTurn(release),
  };
}

export async function dropSessions(context: Context): Promise<void> {
  const sessions = [...context.kept.values()];
  context.kept.clear();
  for (const session of sessions) await context.esys.flush(session).catch(ignore);
}

const ignore = () => undefined;
const sleep = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** 0 to 1, so that two who wait do not go on colliding. Nothing secret hangs on it. */
function jitter(): number {
  return ((performance.now() * 7919) % 1000) / 1000;
}
