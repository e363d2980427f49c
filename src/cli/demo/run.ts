/** Plays the demo from the first process to the last one gone. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { chooseTcti } from '../../keys/tpm/tcti.ts';
import { type Act, type Outcome, perform } from './act.ts';
import { attacks } from './attacks.ts';
import { Halt } from './halt.ts';
import { forgetKeychain } from './keychain.ts';
import { openProcesses } from './processes.ts';
import type { Narrator, Report } from './report.ts';
import { type DemoOptions, openScene } from './scene.ts';
import { openSoftwareTpms } from './software-tpm.ts';
import { steps } from './steps.ts';

/** Milliseconds for everything, and for one answer of a process. Some TPMs take half a minute to make one key. */
const PATIENCE = {
  usual: { deadline: 90_000, answer: 20_000 },
  withTpm: { deadline: 240_000, answer: 60_000 },
} as const;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** @returns what happened; by then every process is gone, and so are keys and directory unless they are to be kept */
export async function runDemo(narrator: Narrator, options: DemoOptions): Promise<Report> {
  const start = performance.now();
  const { keep } = options;
  const directory = await mkdtemp(join(tmpdir(), 'attested-demo-'));
  const keychainService = basename(directory); // like the directory, no other demo's
  const patience = PATIENCE[options.softwareTpm || mayHaveTpm(options) ? 'withTpm' : 'usual'];
  const processes = openProcesses(narrator.output, patience.answer);
  const tpms = openSoftwareTpms(directory);
  const interruption = openInterruption(processes.failed, patience.deadline);
  const scene = openScene({ processes, tpms, directory, options, keychainService });
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
    narrator.section('Processes on this machine: what must work');
    for (const act of steps) {
      if (act.applies?.(scene) === false) continue;
      // each step builds on the ones before it
      if ((await play(act, done.steps)) && done.steps.at(-1)?.ok) continue;
      stopped = `"${act.title}" failed: ${done.steps.at(-1)?.got}`;
      break;
    }
    if (stopped === undefined) narrator.section('The same servers under attack: what must be refused');
    for (const act of stopped === undefined ? attacks : []) {
      if (act.applies?.(scene) === false) continue;
      if (await play(act, done.attacks)) continue;
      stopped = `"${act.title}" was interrupted: ${done.attacks.at(-1)?.got}`;
      break;
    }
  } finally {
    await processes.stop();
    await tpms.stop();
    interruption.close();
    const keptInKeychain = scene.known('place')?.kind === 'keychain';
    // the agent does that at its end, but it may have been killed
    if (keptInKeychain && !keep) await forgetKeychain(keychainService).catch(() => undefined);
    if (!keep) await rm(directory, { recursive: true, force: true, maxRetries: 3 });
  }
  const ok = stopped === undefined && [...done.steps, ...done.attacks].every((outcome) => outcome.ok);
  const ms = Math.round(performance.now() - start);
  const place = scene.known('place')?.kind;
  return {
    ok,
    ms,
    ...done,
    ...(place !== undefined && { keys: place, softwareTpm: options.softwareTpm }),
    ...(stopped !== undefined && { error: stopped }),
    ...(keep && { directory, ...(place === 'keychain' && { keychainService }) }),
  };
}

function mayHaveTpm({ keys }: DemoOptions): boolean {
  if (keys !== 'auto' && keys !== 'tpm') return false;
  try {
    chooseTcti(undefined);
    return true;
  } catch {
    return false;
  }
}

interface Interruption {
  rejected: Promise<never>;
  happened(): boolean;
  close(): void;
}

/** Whatever ends the demo early: a process that died, the deadline, a signal. */
function openInterruption(failed: Promise<never>, deadline: number): Interruption {
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
  const late = new Halt(`the demo took longer than ${deadline / 1000} s`, 'The machine is very busy: try again.');
  const timer = setTimeout(() => interrupt(late), deadline);
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
