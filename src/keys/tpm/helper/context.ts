/**
 * One TPM as the helper holds it: a context that is opened on demand, the objects loaded into its few slots, and the patience
 * with a TPM that is busy, full, restarted or shared with others. Jobs run one at a time; each can be run again from its
 * beginning, which is how every hiccup is answered.
 */
import { TPM_CAP } from '../../../native/tpm2-tss/capabilities.ts';
import { TpmError } from '../../../native/tpm2-tss/error.ts';
import type { Esys, EsysHandle, OpenEsys } from '../../../native/tpm2-tss/types.ts';
import { type Remedy, remedyFor, TPM_RC, tpmCode } from '../codes.ts';
import { HELD_BY_ANOTHER, type TpmAddress } from '../protocol.ts';
import { createParents, type Parents } from './parents.ts';
import { createSlots, type Slots } from './slots.ts';
import { createTurn } from './turn.ts';

/**
 * Without a resource manager others wait for their turn until we are idle, or had ours for so long: a while, or, with a slow
 * TPM, a multiple of what the change costs. Milliseconds, as all below.
 */
const IDLE = 250;
const [SHORT_TURN, LONG_TURN, WORTH] = [2000, 8000, 10];
/** Long enough for another process of ours to take its turn. */
const STEP_BACK = 30;
/** Without a resource manager, what stays loaded for so long while we find no room belongs to nobody who will come back for it. */
const ABANDONED = 3000;
const [FIRST_PAUSE, LONGEST_PAUSE] = [2, 50];
/** Hiccups of these kinds are mended at once or not at all. */
const MOST_TRIES: Readonly<Record<Remedy, number>> = { reopen: 1, reload: 1, 'make-room': Infinity, wait: Infinity };
/** Where the handles of loaded objects and of loaded sessions begin. */
const [OBJECTS, SESSIONS] = [0x80000000, 0x02000000];

export interface Context {
  esys: Esys;
  slots: Slots;
  parents: Parents;
  /** Sessions that jobs keep for the next ones, by name. */
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
  let orphans = address.orphans ?? false;
  const turn = managed ? undefined : createTurn(tcti);
  let context: Context | undefined;
  let began = 0;
  let turnEnds: number | undefined;
  let tail: Promise<unknown> = Promise.resolve();
  let waiting = 0;
  let idle: NodeJS.Timeout | undefined;

  async function open(patience: number): Promise<Context> {
    if (turn !== undefined && !(await turn.take(patience))) {
      throw new TpmError(HELD_BY_ANOTHER, 'another process holds the TPM');
    }
    began = performance.now();
    turnEnds = undefined;
    const esys = await openEsys(tcti);
    try {
      const slots = await createSlots(esys);
      return { esys, slots, parents: createParents(esys, slots, address), kept: new Map() };
    } catch (error) {
      await esys.close().catch(ignore);
      throw error;
    }
  }

  /** Leaves nothing of ours in the TPM. What fails here was gone already. */
  async function release(): Promise<void> {
    const held = context;
    if (held !== undefined) {
      await dropSessions(held);
      await held.slots.clear();
    }
    await abandon();
  }

  /** After a dead connection: nothing can be flushed any more. */
  async function abandon(): Promise<void> {
    const held = context;
    context = undefined;
    await held?.esys.close().catch(ignore);
    await turn?.give();
  }

  async function attempt<T>(patience: number, job: (context: Context) => Promise<T>): Promise<T> {
    const until = performance.now() + patience;
    const tries: Record<Remedy, number> = { reopen: 0, 'make-room': 0, reload: 0, wait: 0 };
    let pause = FIRST_PAUSE;
    for (;;) {
      try {
        context ??= await open(until - performance.now());
        context.slots.nextJob();
        const result = await job(context);
        turnEnds ??= endOfTurn(began);
        return result;
      } catch (error) {
        const remedy = error instanceof TpmError ? remedyFor(error.code) : undefined;
        if (remedy === undefined || ++tries[remedy] > MOST_TRIES[remedy] || performance.now() > until) {
          if (context === undefined) await turn?.give(); // it could not be opened
          throw error;
        }
        if (remedy === 'make-room' && (await context?.slots.evictOther())) continue;
        if (remedy === 'reopen') await abandon();
        else if (remedy !== 'wait') await release(); // of two that each hold what the other lacks, one then gets on
        const waited = patience - (until - performance.now());
        if (remedy === 'make-room' && !managed && (orphans || waited > Math.min(ABANDONED, patience / 2))) {
          await flushAbandoned(until - performance.now(), orphans ? [OBJECTS, SESSIONS] : [lacking(error)]);
        }
        if (remedy === 'make-room' || remedy === 'wait') {
          await sleep(pause * (0.5 + jitter()));
          pause = Math.min(pause * 2, LONGEST_PAUSE);
        }
      }
    }
  }

  /** To be called while nothing of ours is loaded. */
  async function flushAbandoned(patience: number, kinds: readonly number[]): Promise<void> {
    context ??= await open(patience);
    const { esys } = context;
    orphans = false;
    for (const kind of kinds) {
      for (const { value } of await esys.getCapability(TPM_CAP.HANDLES, kind, 64)) {
        await esys.fromTpmHandle(value).then((object) => esys.flush(object), ignore);
      }
    }
  }

  async function inTurn<T>(patience: number, job: (context: Context) => Promise<T>): Promise<T> {
    if (turn !== undefined && context !== undefined && performance.now() > (turnEnds ?? Infinity)) {
      await release();
      await sleep(STEP_BACK);
    }
    return attempt(patience, job);
  }

  async function enqueue<T>(job: () => Promise<T>): Promise<T> {
    const result = tail.then(job);
    tail = result.catch(ignore);
    waiting += 1;
    try {
      return await result;
    } finally {
      waiting -= 1;
      if (turn !== undefined && waiting === 0) releaseWhenIdle();
    }
  }

  function releaseWhenIdle(): void {
    idle ??= setTimeout(() => {
      idle = undefined;
      if (waiting === 0 && context !== undefined) void enqueue(release);
    }, IDLE);
    idle.refresh();
  }

  return {
    run: (patience, job) => enqueue(() => inTurn(patience, job)),
    release: () => enqueue(release),
  };
}

/** Sessions whose state is not known, or not wanted any longer. */
export async function dropSessions({ esys, kept }: Context): Promise<void> {
  const sessions = [...kept.values()];
  kept.clear();
  for (const session of sessions) await esys.flush(session).catch(ignore);
}

/** What there is no room for. */
function lacking(error: unknown): number {
  const code = error instanceof TpmError ? tpmCode(error.code) : undefined;
  return code === TPM_RC.SESSION_MEMORY || code === TPM_RC.SESSION_HANDLES ? SESSIONS : OBJECTS;
}

/** @param began when the turn did; its first job has just ended, for which all had to be loaded */
function endOfTurn(began: number): number {
  const now = performance.now();
  return now + Math.min(LONG_TURN, Math.max(SHORT_TURN, WORTH * (now - began)));
}

const ignore = () => undefined;
const sleep = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** 0 to 1, so that two who wait do not go on colliding. Nothing secret hangs on it. */
function jitter(): number {
  return ((performance.now() * 7919) % 1000) / 1000;
}
