/** What the reader sees: each act as it happens, the table at the end, or one JSON document. */
import { type Io, jsonText, padTo, paintFor, visible, widthOf } from '../io.ts';
import type { Outcome } from './act.ts';

export interface Report {
  ok: boolean;
  /** Milliseconds, from the first process started to the last one gone. */
  ms: number;
  steps: Outcome[];
  attacks: Outcome[];
  /** Why the demo ended before its last act; absent when it did not. */
  error?: string;
  /** Where keys and store were left, with --keep. */
  directory?: string;
}

export interface Narrator {
  section(title: string): void;
  act(outcome: Outcome): void;
  /** What a process of the demo wrote by itself. */
  output(name: string, line: string): void;
  end(report: Report): void;
}

export function jsonNarrator(io: Io): Narrator {
  return {
    section: () => undefined,
    act: () => undefined,
    output: (name, line) => io.err(`[${name}] ${visible(line)}\n`),
    end: (report) => io.out(jsonText(report)),
  };
}

export function textNarrator(io: Io): Narrator {
  const paint = paintFor(io);
  return {
    section: (title) => io.out(`\n${paint.bold(title)}\n`),
    act({ ok, title, ms, got, expected, details, advice }) {
      const tick = ok ? paint.green('✓') : paint.red('✗');
      io.out(`  ${tick} ${title} ${paint.dim(milliseconds(ms))}\n`);
      for (const detail of details) io.out(`      ${paint.dim(visible(detail))}\n`);
      if (!ok) io.out(`      ${paint.red(`expected ${expected}, got ${visible(got)}`)}\n`);
      if (advice !== undefined) io.out(`      ${advice}\n`);
    },
    output: (name, line) => io.err(`[${name}] ${visible(line)}\n`),
    end({ ok, ms, steps, attacks, error, directory }) {
      io.out(`\n${table([...steps, ...attacks]).join('\n')}\n\n`);
      if (error !== undefined) io.out(`${paint.red('The demo did not get to its end:')} ${visible(error)}\n`);
      if (directory !== undefined) io.out(`Keys and the attester's store are left in ${directory}\n`);
      const good = [...steps, ...attacks].filter((outcome) => outcome.ok).length;
      const counted = `${steps.length} steps, ${attacks.length} attacks, ${good} as expected`;
      io.out(`${ok ? paint.green('All as it should be') : paint.red('Failed')}: ${counted}, ${milliseconds(ms)}.\n`);
    },
  };
}

function table(outcomes: readonly Outcome[]): string[] {
  const rows = outcomes.map(({ ok, id, expected, got, ms }) => [
    id,
    expected,
    `${ok ? '✓' : '✗'} ${visible(got)}`,
    milliseconds(ms),
  ]);
  const all = [['step or attack', 'expected', 'got', 'time'], ...rows];
  const widths = [0, 1, 2].map((column) => Math.max(...all.map((row) => widthOf(row[column] as string))));
  const line = (row: readonly string[]) =>
    row.map((cell, column) => (column < 3 ? padTo(cell, widths[column] as number) : cell)).join('  ');
  return [line(all[0] as string[]), widths.map((width) => '─'.repeat(width)).join('  '), ...rows.map(line)];
}

function milliseconds(ms: number): string {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}
