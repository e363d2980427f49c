/** What the fault tests of the TPM look at: helper processes, and how long something took. Linux only, as the software TPM is. */
import { readdirSync, readFileSync } from 'node:fs';

/** Helper processes of a process, by its own word. */
export function helpersOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`)
    .flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' '))
    .filter((child) => child !== '' && isTpmHelper(child))
    .map(Number);
}

function isTpmHelper(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('/keys/tpm/helper/main.');
  } catch {
    return false;
  }
}

export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** What became of a job, and after how many milliseconds. */
export async function timed<T>(job: Promise<T>): Promise<{ value?: T; error: unknown; milliseconds: number }> {
  const begin = performance.now();
  const outcome = await job.then(
    (value) => ({ value, error: undefined }),
    (error: unknown) => ({ error }),
  );
  return { ...outcome, milliseconds: performance.now() - begin };
}
