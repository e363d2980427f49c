import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Io } from '../../src/cli/io.ts';
import { run } from '../../src/cli/run.ts';

export const MAIN: string = join(import.meta.dirname, '../../src/cli/main.ts');

export interface Ran {
  code: number;
  out: string;
  err: string;
}

/** Runs a command in this process, with streams of its own. @param at seconds since the epoch */
export async function attested(argv: string[], { stdin = '', at }: { stdin?: string; at?: number } = {}): Promise<Ran> {
  const ran: Ran = { code: -1, out: '', err: '' };
  const io: Io = {
    out: (text) => {
      ran.out += text;
    },
    err: (text) => {
      ran.err += text;
    },
    stdin: async () => stdin,
    colours: false,
    now: () => (at === undefined ? Date.now() : at * 1000),
  };
  ran.code = await run(argv, io);
  return ran;
}

/** Runs the command as a process, as a user does. */
export function spawned(argv: string[], env: Record<string, string> = {}): Promise<Ran> {
  const child = spawn(process.execPath, [MAIN, ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  const ran: Ran = { code: -1, out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    ran.out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    ran.err += text;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ ...ran, code: code ?? -1 }));
  });
}

/** What a terminal would obey: everything but the line feed. */
export const TERMINAL_CONTROL: RegExp = /[\p{Cc}\p{Cf}\u2028\u2029]/u;

export function withoutLineFeeds(text: string): string {
  return text.replaceAll('\n', '');
}
