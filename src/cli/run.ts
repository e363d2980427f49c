/** Finds the command, reads its arguments, runs it, and makes an exit code of what comes of it. */
import { readFileSync } from 'node:fs';
import { type Command, describeError, readArguments, suggestion, UsageError } from './command.ts';
import { commands } from './commands.ts';
import { type Io, visible } from './io.ts';

/** 0 done, 1 refused or failed, 2 called in a wrong way. */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  try {
    return await dispatch(argv, io);
  } catch (error) {
    const usage = error instanceof UsageError;
    io.err(`attested: ${visible(describeError(error))}\n`);
    const command = commands.find(({ name }) => name === argv[0]);
    if (usage) io.err(`Run 'attested ${command === undefined ? '' : `${command.name} `}--help' for what there is.\n`);
    return usage ? 2 : 1;
  }
}

async function dispatch([first, ...rest]: readonly string[], io: Io): Promise<number> {
  if (first === undefined) {
    io.err(overview());
    return 2;
  }
  if (first === '--help' || first === '-h' || (first === 'help' && rest.length === 0)) {
    io.out(overview());
    return 0;
  }
  if (first === '--version') {
    io.out(`${version()}\n`);
    return 0;
  }
  const command = commandNamed(first === 'help' ? (rest[0] as string) : first);
  // what stands behind `--` is never an option
  const asked = rest.slice(0, rest.includes('--') ? rest.indexOf('--') : undefined);
  if (first === 'help' || asked.includes('--help') || asked.includes('-h')) {
    io.out(helpOf(command));
    return 0;
  }
  return command.run(readArguments(command, rest), io);
}

function commandNamed(name: string): Command {
  const found = commands.find((command) => command.name === name);
  if (found !== undefined) return found;
  const names = commands.map((command) => command.name);
  const what = name.startsWith('-') ? `unknown option ${name}` : `unknown command ${name}`;
  throw new UsageError(`${what}${suggestion(name, [...names, '--help', '--version'])}`);
}

function overview(): string {
  const width = 2 + Math.max(...commands.map(({ name }) => name.length));
  const rows = commands.map(({ name, summary }) => `  ${name.padEnd(width)}${summary}`);
  return `${[
    'Client attestation for autonomous agents.',
    '',
    'Usage: attested <command> [options]',
    '',
    ...rows,
    '',
    "  attested <command> --help   a command's options",
    '  attested --version          the version',
    '',
    'Exit codes: 0 done, 1 refused or failed, 2 called in a wrong way.',
  ].join('\n')}\n`;
}

function helpOf({ name, summary, usage, options, notes = [] }: Command): string {
  const rows = Object.entries({ ...options, help: { type: 'boolean', help: 'this text' } as const }).map(
    ([option, { help, ...rest }]) => {
      const value = 'value' in rest && rest.value !== undefined ? ` ${rest.value}` : '';
      return `  ${`--${option}${value}`.padEnd(26)}${help}`;
    },
  );
  const tail = notes.length > 0 ? ['', ...notes] : [];
  return `${[`${summary}.`, '', `Usage: attested ${name} ${usage}`.trimEnd(), '', ...rows, ...tail].join('\n')}\n`;
}

function version(): string {
  // two folders up from src/cli and from dist/cli alike
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
