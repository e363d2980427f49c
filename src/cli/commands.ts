/** The table of commands. */
import { clientMetadataCommand } from './client-metadata/command.ts';
import type { Command } from './command.ts';
import { connect } from './connect/command.ts';
import { demo } from './demo/command.ts';
import { doctor } from './doctor/command.ts';
import { inspectCommand } from './inspect/command.ts';
import { keygen } from './keygen.ts';
import { privacy } from './privacy/command.ts';
import { proxy } from './proxy/command.ts';
import { verify } from './verify.ts';

export const commands: readonly Command[] = [
  clientMetadataCommand,
  connect,
  demo,
  doctor,
  inspectCommand,
  keygen,
  privacy,
  proxy,
  verify,
];
