/** Plays the demo from the first process to the last one gone. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Act, type Outcome, perform } from './act.ts';
import { attacks } from './attacks.ts';
import { Halt } from './halt.ts';
import { openProcesses } from './processes.ts';
import type { Narrator, Report } from './report.ts';
import { openScene } from './scene.ts';
import { steps } from './steps.ts';

/** Milliseconds for everything. */
const DEADLINE = 60_000;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** @returns what happened; by then every process is gone, and so is the directory unless it is to be kept */
export async function runDemo(narrator: Narrator, { keep }: { keep: boolean }): Promise<Report> {
  const start = performance.now();
  const directory = await mkdtemp(join(tmpdir(), 'attested-demo-'));
  const processes = openProcesses(narrator.output);
  const interruption = openInterruption(processes.failed);
  const scene = openScene(processes, directory, keep);
  const done = { steps: [] as Outcome[], attacks: [] as Outcome[] };

  /** @returns whether the demo can go on */
  async function play(act: Act, outcomes: Outcome[]): Promise<boolean> {
    const outcome = await perform(act, scene, interruption.rejected);
    outcomes.push(outcome);
    narrator.act(outcome);
    return !interruption.happened();
  }

  let stopped: string | undefined;
  try {
    narrator.section('Five processes on this machine: what must work');
    for (const act of steps) {
      // each step builds on the ones before it
      if ((await play(act, done.steps)) && done.steps.at(-1)?.ok) continue;
      stopped = `"${act.title}" failed: ${done.steps.at(-1)?.got}`;
      break;
    }
    if (stopped === undefined) narrator.section('The same servers under attack: what must be refused');
    for (const act of stopped === undefined ? attacks : []) {
      if (await play(act, done.attacks)) continue;
      stopped = `"${act.title}" was interrupted: ${done.attacks.at(-1)?.got}`;
      break;
    }
  } finally {
    await processes.stop();
    interruption.close();
    if (!keep) await rm(directory, { recursive: true, force: true, maxRetries: 3 });
  }
  const ok = stopped === undefined && [...done.steps, ...done.attacks].every((outcome) => outcome.ok);
  const ms = Math.round(performance.now() - start);
  return { ok, ms, ...done, ...(stopped !== undefined && { error: stopped }), ...(keep && { directory }) };
}

interface Interruption {
  rejected: Promise<never>;
  happened(): boolean;
  close(): void;
}

/** Whatever ends the demo early: a process that died, the deadline, a signal. */
function openInterruption(failed: Promise<never>): Interruption {
  let happened = false;
  let interrupt: (why: unknown) => void = () => undefined;
  const rejected = new Promise<never>((_resolve, reject) => {
    interrupt = (why) => {
      happened = true;
      reject(why);
    };
  });
  rejected.catch(() => undefined); // it is raced by each act; between two of them nobody listens
  failed.catch(interrupt);
  const late = new Halt(`the demo took longer than ${DEADLINE / 1000} s`, 'The machine is very busy: try again.');
  const timer = setTimeout(() => interrupt(late), DEADLINE);
  const onSignal = (signal: NodeJS.Signals) =>
    interrupt(new Halt(`stopped by ${signal}`, 'Start it again to see the rest.'));
  for (const signal of SIGNALS) process.on(signal, onSignal);
  return {
    rejected,
    happened: () => happened,
    close() {
      clearTimeout(timer);
      for (const signal of SIGNALS) process.off(signal, onSignal);
    },
  };
}
