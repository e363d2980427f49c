/** The C program esys-sign.c, compiled by the machine's compiler, as a candidate to be measured. */
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export interface EsysProgram {
  /** Makes so many signatures; gives the microseconds that the program says they took. */
  sign(count: number): Promise<number>;
  end(): void;
}

/** @returns why there is none, where the compiler or the headers of tpm2-tss are missing */
export function startEsysProgram(tcti: string, directory: string): EsysProgram | string {
  const program = join(directory, 'esys-sign');
  const source = join(import.meta.dirname, 'esys-sign.c');
  const { status, error } = spawnSync('cc', ['-O2', '-o', program, source, '-ltss2-esys', '-ltss2-tctildr']);
  if (error) return 'no C compiler (cc)';
  if (status !== 0) return 'esys-sign.c does not compile: are the headers of tpm2-tss there (libtss2-dev)?';
  const child = spawn(program, [tcti], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async sign(count) {
      child.stdin.write(`${count}\n`);
      const { done, value } = await lines.next();
      if (done) throw new Error('the C program ended');
      return Number(value) / 1000;
    },
    end: () => void child.stdin.end(),
  };
}
