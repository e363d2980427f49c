/** Resident memory of processes, as Linux tells it. */
import { readdirSync, readFileSync } from 'node:fs';

/** Mebibytes. */
export function residentMemory(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

/** The process that talks to the TPM for this one. */
export function helperOf(pid: number): number {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' '),
  );
  const helper = children.find(
    (child) => child && /tpm\/helper\/main\./.test(readFileSync(`/proc/${child}/cmdline`, 'utf8')),
  );
  if (helper === undefined) throw new Error('there is no helper process');
  return Number(helper);
}
