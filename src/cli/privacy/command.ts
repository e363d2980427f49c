/** `attested privacy`: which servers could tell that they serve the same agent, and what would keep them apart. */
import { join } from 'node:path';
import { correlationsOf } from '../../agent/correlations.ts';
import { readStates, stateFiles } from '../../agent/state.ts';
import { defaultDirectory, openKeys } from '../../keys/index.ts';
import { writePrivateFile } from '../../platform/files.ts';
import { type Arguments, type Command, UsageError } from '../command.ts';
import { readText } from '../files.ts';
import { jsonText, visible } from '../io.ts';
import { drawCorrelations } from './draw.ts';
import { printCorrelations } from './print.ts';

export const privacy: Command = {
  name: 'privacy',
  summary: 'Show which servers could tell that they serve the same agent',
  usage: '[--json] [--svg FILE] [options]',
  options: {
    dir: {
      type: 'string',
      value: 'PATH',
      help: "directory of keys and state (default: the user's state directory)",
    },
    'passphrase-file': {
      type: 'string',
      value: 'FILE',
      help: 'key files are encrypted under the first line of this file',
    },
    svg: { type: 'string', value: 'FILE', help: 'draw it as well, into this file, for a browser' },
    json: { type: 'boolean', help: 'one JSON document' },
  },
  notes: [
    'Goes by what the agents in that directory have shown to servers. Network addresses, times, and users who sign in link',
    'servers as well; no client can see or prevent that. The drawing names servers: keep it as private as a list of them.',
  ],
  async run(args, io) {
    if (args.positionals.length > 0) throw new UsageError('privacy takes options only');
    const directory = args.text('dir') ?? defaultDirectory();
    const { states, unreadable } = await statesIn(directory, args);
    const agents = states.map(correlationsOf);
    const drawing = args.text('svg');
    if (drawing !== undefined) {
      await writePrivateFile(drawing, drawCorrelations(agents)).catch((error: NodeJS.ErrnoException) => {
        throw new UsageError(`${drawing} cannot be written (${error.code ?? 'unknown'})`);
      });
    }
    if (args.flag('json')) io.out(jsonText({ directory, agents, unreadable }));
    else if (agents.length === 0) io.out(`No agent keeps its state in ${visible(directory)}.\n`);
    else printCorrelations(agents, io);
    for (const name of unreadable) {
      io.err(`attested: ${visible(join(directory, name))} is damaged, or its sealing key is lost\n`);
    }
    return unreadable.length > 0 ? 1 : 0;
  },
};

async function statesIn(directory: string, args: Arguments): ReturnType<typeof readStates> {
  // keys are opened only where there is something to open with them: that may ask for a password, or make a directory
  if ((await stateFiles(directory)).length === 0) return { states: [], unreadable: [] };
  const file = args.text('passphrase-file');
  const passphrase = file === undefined ? undefined : (await readText(file)).split(/\r?\n/, 1)[0];
  const keys = await openKeys('auto', { directory, ...(passphrase !== undefined && { passphrase }) });
  try {
    return await readStates(directory, keys.secrets);
  } finally {
    await keys.close();
  }
}
