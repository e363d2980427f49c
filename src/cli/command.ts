/** What a command is, and how its arguments are read. */
import { parseArgs } from 'node:util';
import { AttestedError } from '../errors.ts';
import type { Io } from './io.ts';

export interface Option {
  type: 'string' | 'boolean';
  /** One line of help. */
  help: string;
  /** Name of the value in the help. */
  value?: string;
}

export interface Arguments {
  flag(name: string): boolean;
  text(name: string): string | undefined;
  positionals: string[];
}

export interface Command {
  name: string;
  summary: string;
  /** What stands after the command's name in the usage line. */
  usage: string;
  options: Readonly<Record<string, Option>>;
  /** Lines below the options in the help. */
  notes?: readonly string[];
  /** @returns the exit code: 0, or 1 for refused or failed */
  run(args: Arguments, io: Io): Promise<number>;
}

/** A mistake in how a command was called: exit code 2. */
export class UsageError extends Error {}

/** @throws UsageError for an unknown option, or one with or without a value where it should be the other way */
export function readArguments(command: Command, argv: readonly string[]): Arguments {
  const options = Object.fromEntries(
    Object.entries(command.options).map(([name, { type }]) => [name, { type } as { type: Option['type'] }]),
  );
  const { values, positionals } = parseStrictly(command, { args: [...argv], options });
  return {
    flag: (name) => values[name] === true,
    text: (name) => {
      const value = values[name];
      if (value === '') throw new UsageError(`--${name} needs a value`);
      return typeof value === 'string' ? value : undefined;
    },
    positionals,
  };
}

function parseStrictly(
  command: Command,
  config: { args: string[]; options: Record<string, { type: Option['type'] }> },
): { values: Record<string, unknown>; positionals: string[] } {
  try {
    return parseArgs({ ...config, allowPositionals: true, strict: true });
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
      const given = /'(-[^'\s]*)'/.exec(message)?.[1] ?? '';
      const known = Object.keys(command.options).map((name) => `--${name}`);
      throw new UsageError(`${command.name} has no option ${given}${suggestion(given, known)}`);
    }
    if (code?.startsWith('ERR_PARSE_ARGS')) throw new UsageError(message.split('\n', 1)[0]);
    throw error;
  }
}

/** `; did you mean …?` where a known name is near enough. */
export function suggestion(given: string, known: readonly string[]): string {
  const near = known
    .map((name) => ({ name, distance: editDistance(given, name) }))
    .sort((a, b) => a.distance - b.distance)[0];
  return near !== undefined && near.distance <= Math.max(2, near.name.length / 3) ? `; did you mean ${near.name}?` : '';
}

function editDistance(a: string, b: string): number {
  if (a.length > 64) return Number.POSITIVE_INFINITY;
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

/** A failure as a person reads it: an AttestedError with its code and rule, another with its message. */
export function describeError(error: unknown): string {
  if (error instanceof AttestedError) {
    return `${error.message} (${[error.code, error.rule].filter((part) => part !== undefined).join(', ')})`;
  }
  return error instanceof Error ? error.message : String(error);
}
