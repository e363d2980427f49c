/** What a command may touch of its process, so that tests can hand in their own. */
import { stripVTControlCharacters } from 'node:util';

export interface Io {
  /** Answers. */
  out(text: string): void;
  /** Progress, warnings and errors. */
  err(text: string): void;
  /** The whole of standard input. */
  stdin(): Promise<string>;
  /** May `out` carry colours? */
  colours: boolean;
  /** Width of the terminal that `out` goes to; absent where it goes elsewhere. */
  columns?: number | undefined;
  /** Milliseconds since the epoch. */
  now(): number;
}

/** Most that is read from standard input, bytes. */
const MAX_STDIN = 1024 * 1024;

export function processIo(): Io {
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    stdin: readStdin,
    colours: process.stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb',
    columns: process.stdout.columns,
    now: Date.now,
  };
}

async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_STDIN) throw new Error(`standard input is larger than ${MAX_STDIN} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;
export type Paint = Record<keyof typeof CODES, (text: string) => string>;

export function paintFor({ colours }: Pick<Io, 'colours'>): Paint {
  const entries = Object.entries(CODES).map(([name, code]) => [
    name,
    (text: string) => (colours ? `\u001b[${code}m${text}\u001b[0m` : text),
  ]);
  return Object.fromEntries(entries) as Paint;
}

/** Characters that could move the cursor, hide text, or turn its direction around. */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;

/** Makes text from outside safe to show on a terminal. */
export function visible(text: string): string {
  return text.replace(HOSTILE, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/** JSON that is safe to show on a terminal, and still the same JSON. */
export function jsonText(value: unknown): string {
  const text = JSON.stringify(value, undefined, 2);
  return `${text.replace(HOSTILE, (found) => (found === '\n' ? found : escapeUnits(found)))}\n`;
}

function escapeUnits(text: string): string {
  return Array.from({ length: text.length }, (_, i) => `\\u${text.charCodeAt(i).toString(16).padStart(4, '0')}`).join(
    '',
  );
}

/** Columns on a terminal, for text without wide characters. */
export function widthOf(text: string): number {
  return [...stripVTControlCharacters(text)].length;
}

/** Breaks text between words, so that no line passes the width; words that are longer stay whole. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && widthOf(last) + 1 + widthOf(word) <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

export function padTo(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - widthOf(text)));
}
