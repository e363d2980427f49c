/** How late an event loop is: this process's, and that of one which does nothing at the same time. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

export interface LoopDelay {
  /** Milliseconds between ticks that are asked for each millisecond: 99 of 100 were not further apart. */
  own: number;
  /** The same of the idle process: what the machine, with all else that runs on it, does to anybody. */
  idle: number;
}

/** Measures while a job runs. */
export async function loopDelayDuring(job: () => Promise<unknown>): Promise<LoopDelay> {
  const child = fork(fileURLToPath(import.meta.url), ['idle'], { execArgv: [] });
  await once(child, 'message');
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  await ask(child, 'begin');
  histogram.enable();
  await job();
  histogram.disable();
  const idle = await ask(child, 'end');
  child.disconnect();
  return { own: p99(histogram), idle: Number(idle) };
}

const p99 = (histogram: { percentile(percentile: number): number }) => histogram.percentile(99) / 1e6;

async function ask(child: ChildProcess, what: string): Promise<unknown> {
  const answer = once(child, 'message');
  child.send(what);
  return (await answer)[0];
}

if (process.argv[2] === 'idle' && process.send) {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  process.on('message', (what) => {
    if (what === 'begin') histogram.enable();
    else histogram.disable();
    process.send?.(p99(histogram));
  });
  process.send('ready');
}
