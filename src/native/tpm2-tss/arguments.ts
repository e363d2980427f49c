/** koffi takes nearly anything for a pointer, and wraps numbers; so each argument is held against its prototype. */
import { NO_RESPONSE, TpmError } from './error.ts';
import { type EsysCommand, esysCommands, type Kind } from './prototypes.ts';
import type { Scratch } from './scratch.ts';

export type Argument = number | Uint8Array | null;

const integer = (value: Argument, least: number, most: number) =>
  typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most;

const fits: Record<Kind, (value: Argument, scratch: Scratch) => boolean> = {
  pointer: () => false, // only contexts and results are, and they do not pass through here
  memory: (value, scratch) => scratch.lends('slot', value),
  memoryOrNull: (value, scratch) => value === null || scratch.lends('slot', value),
  cell: (value, scratch) => scratch.lends('cell', value),
  cellOrNull: (value, scratch) => value === null || scratch.lends('cell', value),
  size: () => false,
  text: () => false,
  handle: (value) => integer(value, 0, 0xffffffff),
  u32: (value) => integer(value, 0, 0xffffffff),
  i32: (value) => integer(value, -0x80000000, 0x7fffffff),
  u16: (value) => integer(value, 0, 0xffff),
  u8: (value) => integer(value, 0, 0xff),
};

export function check(scratch: Scratch, name: EsysCommand, args: readonly Argument[]): void {
  const parameters: readonly Kind[] = esysCommands[name];
  const wrong = parameters.findIndex((kind, at) => !fits[kind](args[at] as Argument, scratch));
  if (wrong >= 0) throw new TpmError(NO_RESPONSE, `${name}: argument ${wrong + 1} is not a ${parameters[wrong]}`);
  if (args.length !== parameters.length) throw new TpmError(NO_RESPONSE, `${name}: too many arguments`);
}
