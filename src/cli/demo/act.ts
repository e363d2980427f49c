/** One thing that the demo does and judges: a step that must work, or an attack that must fail. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Halt } from './halt.ts';
import type { Scene } from './scene.ts';

export interface Result {
  ok: boolean;
  /** In a few words, for the table. */
  got: string;
  /** What a reader wants to see of it. */
  details?: readonly string[];
}

export interface Act {
  id: string;
  title: string;
  /** In a few words, for the table. */
  expected: string;
  /** What to do when it fails. */
  advice: string;
  /** Where it can be shown; absent: everywhere. */
  applies?(scene: Scene): boolean;
  run(scene: Scene): Promise<Result>;
}

export interface Outcome {
  id: string;
  title: string;
  expected: string;
  got: string;
  ok: boolean;
  /** Milliseconds. */
  ms: number;
  details: readonly string[];
  /** Only where it failed. */
  advice?: string;
}

/** Performs an act. Whatever is thrown is its outcome. @param interrupted rejects when the demo cannot go on */
export async function perform(act: Act, scene: Scene, interrupted: Promise<never>): Promise<Outcome> {
  const { id, title, expected } = act;
  const start = performance.now();
  let { advice } = act;
  let result: Result;
  try {
    result = await Promise.race([act.run(scene), interrupted]);
  } catch (error) {
    const reason = await haltBehind(error, interrupted);
    const { message, code } = reason as Error & { code?: unknown };
    if (reason instanceof Halt) advice = reason.advice;
    result = { ok: false, got: typeof code === 'string' ? `${code}: ${message}` : message };
  }
  const { ok, got, details = [] } = result;
  const ms = Math.round((performance.now() - start) * 10) / 10;
  return { id, title, expected, got, ok, ms, details, ...(!ok && { advice }) };
}

/** Milliseconds in which a process that died makes itself known. */
const KNOWN_WITHIN = 200;

/** A refused connection may be the first sign of a process that died: then that is the reason. */
async function haltBehind(error: unknown, interrupted: Promise<never>): Promise<unknown> {
  if (error instanceof Halt) return error;
  return Promise.race([sleep(KNOWN_WITHIN, error), interrupted]).catch((halt: unknown) => halt);
}
