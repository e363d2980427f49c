/** `attested doctor`: what this machine can do for keys, in plain words. */
import { defaultDirectory } from '../../keys/directories.ts';
import { type Command, UsageError } from '../command.ts';
import { jsonText } from '../io.ts';
import { findingRows } from './findings.ts';

const TIMEOUT = 10;

export const doctor: Command = {
  name: 'doctor',
  summary: 'Say what this machine can do for keys, and what is wrong with it',
  usage: '[--json] [options]',
  options: {
    json: { type: 'boolean', help: 'one JSON document' },
    dir: { type: 'string', value: 'PATH', help: "directory for keys (default: the user's state directory)" },
    tcti: { type: 'string', value: 'TCTI', help: 'the way to the TPM (default: as openKeys finds it)' },
    timeout: {
      type: 'string',
      value: 'SECONDS',
      help: `for the keychain, which may ask for a password (default ${TIMEOUT})`,
    },
  },
  notes: [
    'The directory is only read. Keys made for measuring are deleted again.',
    '',
    'Exit codes: 0 all well, 1 failed, 2 called in a wrong way, else the worst finding:',
    ...findingRows().map(({ exit, code, meaning }) => `  ${exit}  ${code.padEnd(24)}${meaning}`),
  ],
  async run(args, io) {
    if (args.positionals.length > 0) throw new UsageError('doctor takes options only');
    const seconds = Number(args.text('timeout') ?? TIMEOUT);
    if (!(seconds >= 0.1 && seconds <= 3600)) throw new UsageError('--timeout must be 0.1 to 3600 seconds');
    // loaded late, since the other commands need none of it
    const { examine } = await import('./examine.ts');
    const report = await examine({
      directory: args.text('dir') ?? defaultDirectory(),
      tcti: args.text('tcti'),
      keychainTimeout: Math.round(seconds * 1000),
      now: io.now(),
    });
    if (args.flag('json')) io.out(jsonText(report));
    else (await import('./print.ts')).printReport(report, io);
    return report.exitCode;
  },
};
