/** One process at a time changes a key directory, or what is kept beside the keys. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileWork, unavailable } from './faults.ts';

/** A lock whose holder has not renewed it for this long was left by a dead process. Milliseconds, as all below. */
const STALE = 5000;
const PATIENCE = 15_000;
const FIRST_PAUSE = 5;
const LONGEST_PAUSE = 100;

export interface LockOptions {
  /** What is kept beside the keys has a lock of its own, so that it can use them while it holds it. Default `lock`. */
  name?: string;
  /** Milliseconds to wait for another process. Default 15000. */
  patience?: number;
}

/**
 * Runs a job while no other process that asks for the same directory does.
 *
 * A machine that sleeps can outlive its own lock, and two processes that find the same stale lock may both take it. So the
 * lock spares work but is not what keeps keys safe: files are created such that the second creator fails, whatever happens.
 *
 * @throws AttestedError `key_store_unavailable` when the directory cannot be written, or stays locked for too long
 */
export async function withDirectoryLock<T>(
  directory: string,
  job: () => Promise<T>,
  { name = 'lock', patience = PATIENCE }: LockOptions = {},
): Promise<T> {
  const path = join(directory, name);
  const release = await fileWork(`lock the key directory ${directory}`, () => acquire(path, patience));
  try {
    return await job();
  } finally {
    await release().catch(() => undefined); // it was already taken from us, which harms nobody
  }
}

async function acquire(path: string, patience: number): Promise<() => Promise<void>> {
  // loaded late: it hooks the process's signals, which a user of in-memory keys should be spared
  const { lock } = await import('proper-lockfile');
  const deadline = performance.now() + patience;
  for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
    try {
      // the first argument is what it knows the lock by: two locks of one directory must not be mixed up
      return await lock(path, {
        lockfilePath: path,
        realpath: false,
        stale: STALE,
        onCompromised: () => undefined, // see above; the default would end the process
      });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error;
      if (performance.now() > deadline) {
        throw unavailable(`another process has held the lock ${path} for too long`, error);
      }
      await sleep(pause);
    }
  }
}
