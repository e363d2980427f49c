/** The table of commands. */
import type { Command } from './command.ts';
import { demo } from './demo/command.ts';
import { inspectCommand } from './inspect/command.ts';
import { keygen } from './keygen.ts';
import { verify } from './verify.ts';

export const commands: readonly Command[] = [demo, inspectCommand, keygen, verify];
