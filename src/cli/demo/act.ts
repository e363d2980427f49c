/** One thing that the demo does and judges: a step that must work, or an attack that must fail. */
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
  let { advice } = act;
  const start = performance.now();
  let result: Result;
  try {
    result = await Promise.race([act.run(scene), interrupted]);
  } catch (error) {
    const { message, code } = error as Error & { code?: unknown };
    if (error instanceof Halt) advice = error.advice;
    result = { ok: false, got: typeof code === 'string' ? `${code}: ${message}` : message };
  }
  const { ok, got, details = [] } = result;
  const ms = Math.round((performance.now() - start) * 10) / 10;
  return { id, title, expected, got, ok, ms, details, ...(!ok && { advice }) };
}
