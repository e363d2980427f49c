/** What the reader sees: each act as it happens, the table at the end, or one JSON document. */
import { type Io, jsonText, padTo, paintFor, visible, widthOf, wrap } from '../io.ts';
import type { Outcome } from './act.ts';

export interface Report {
  ok: boolean;
  /** Milliseconds, from the first process started to the last one gone. */
  ms: number;
  steps: Outcome[];
  attacks: Outcome[];
  /** Where the agent's keys were; absent when it did not get that far. */
  keys?: 'tpm' | 'keychain' | 'software';
  /** Was the TPM a program? */
  softwareTpm?: boolean;
  /** Why the demo ended before its last act; absent when it did not. */
  error?: string;
  /** Where keys and store were left, with --keep. */
  directory?: string;
  /** Under which name keys were left in the keychain, with --keep. */
  keychainService?: string;
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
  /** Text at an indentation, which its further lines keep. */
  const print = (text: string, indent: number, colour = (line: string) => line, first = ' '.repeat(indent)): void => {
    const lines = wrap(text, (io.columns ?? Number.POSITIVE_INFINITY) - indent);
    for (const [i, line] of lines.entries()) io.out(`${i === 0 ? first : ' '.repeat(indent)}${colour(line)}\n`);
  };
  return {
    section: (title) => io.out(`\n${paint.bold(title)}\n`),
    act({ ok, title, ms, got, expected, details, advice }) {
      const tick = ok ? paint.green('✓') : paint.red('✗');
      print(`${title} (${milliseconds(ms).replace(' ', '\u00a0')})`, 4, undefined, `  ${tick} `);
      for (const detail of details) print(visible(detail), 6, paint.dim);
      if (!ok) print(`expected ${expected}, got ${visible(got)}`, 6, paint.red);
      if (advice !== undefined) print(advice, 6);
    },
    output: (name, line) => io.err(`[${name}] ${visible(line)}\n`),
    end({ ok, ms, steps, attacks, keys, softwareTpm, error, directory, keychainService }) {
      io.out(`\n${table([...steps, ...attacks]).join('\n')}\n\n`);
      if (error !== undefined) io.out(`${paint.red('The demo did not get to its end:')} ${visible(error)}\n`);
      if (directory !== undefined) io.out(`Keys and the attester's store are left in ${directory}\n`);
      if (keychainService !== undefined) io.out(`Keys are left in the keychain, under ${keychainService}\n`);
      const good = [...steps, ...attacks].filter((outcome) => outcome.ok).length;
      const counted = `${steps.length} steps, ${attacks.length} attacks, ${good} as expected`;
      io.out(`${ok ? paint.green('All as it should be') : paint.red('Failed')}: ${counted}, ${milliseconds(ms)}.\n`);
      if (!ok) return;
      if (softwareTpm)
        print('The TPM was a program: it showed what a real one does, and proved nothing about hardware.', 0);
      else if (keys !== undefined && keys !== 'tpm') print(`No TPM was used. To see it with one: ${withTpm()}`, 0);
    },
  };
}

/** Narrow enough for 80 columns: what was expected is said only where something else came. */
function table(outcomes: readonly Outcome[]): string[] {
  const rows = outcomes.map(({ ok, id, got, ms }) => [`${ok ? '✓' : '✗'} ${id}`, visible(got), milliseconds(ms)]);
  const all = [['  step or attack', 'outcome', 'time'], ...rows];
  const notes = outcomes.map(({ ok, expected }) => (ok ? [] : [['', `expected: ${expected}`, '']]));
  const widths = [0, 1, 2].map((i) => Math.max(...[...all, ...notes.flat()].map((row) => widthOf(row[i] as string))));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => padTo(cell, widths[i] as number))
      .join('  ')
      .trimEnd();
  const body = rows.flatMap((row, i) => [line(row), ...(notes[i] as string[][]).map(line)]);
  return [line(all[0] as string[]), widths.map((width) => '─'.repeat(width)).join('  '), ...body];
}

function milliseconds(ms: number): string {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

/** As the demo was started: by npm in the repository, or as a command. */
function withTpm(): string {
  return process.env.npm_lifecycle_event === 'start' ? 'npm start -- --tpm swtpm' : 'attested demo --tpm swtpm';
}
