/** `attested inspect`: what a token says, and what a server would make of it. Sends nothing anywhere. */
import { NEWEST_REVISION, revisionOf } from '../../core/revisions.ts';
import { type Arguments, type Command, UsageError } from '../command.ts';
import { revisionNumber, trustIn } from '../files.ts';
import { type Io, jsonText } from '../io.ts';
import { inspect } from './inspect.ts';
import { printInspection } from './print.ts';

export const inspectCommand: Command = {
  name: 'inspect',
  summary: 'Decode and explain tokens or header lines, and say what a server would refuse',
  usage: '<token | header lines | attestation~pop | -> [options]',
  options: {
    revision: {
      type: 'string',
      value: 'N',
      help: `draft revision to judge by, 4 to ${NEWEST_REVISION} (default ${NEWEST_REVISION})`,
    },
    jwks: { type: 'string', value: 'FILE', help: "the attester's public keys, to check its signature" },
    audience: { type: 'string', value: 'ID', help: 'issuer or resource identifier that a PoP must be for' },
    challenge: { type: 'string', value: 'VALUE', help: 'challenge or DPoP nonce that a proof must carry' },
    at: { type: 'string', value: 'TIME', help: 'judge as of this time: seconds since 1970, or 2026-01-31T12:00:00Z' },
    json: { type: 'boolean', help: 'one JSON document' },
  },
  notes: [
    'Several header lines may be given at once; - reads standard input. Nothing is sent anywhere.',
    'Exit code 1 when a verifier with its defaults would refuse what was given.',
  ],
  async run(args, io) {
    const input = await inputOf(args, io);
    const file = args.text('jwks');
    const inspection = await inspect(input, {
      revision: revisionOf(revisionNumber(args)),
      now: timeOf(args, io),
      trust: file === undefined ? undefined : await trustIn(file),
      audience: args.text('audience'),
      challenge: args.text('challenge'),
    });
    if (args.flag('json')) io.out(jsonText(inspection));
    else printInspection(inspection, io);
    return inspection.ok ? 0 : 1;
  },
};

async function inputOf({ positionals }: Arguments, io: Io): Promise<string> {
  if (positionals.length === 0) throw new UsageError('inspect needs something to look at, or - for standard input');
  const input = positionals.length === 1 && positionals[0] === '-' ? await io.stdin() : positionals.join('\n');
  if (input.trim() === '') throw new UsageError('there is nothing to look at');
  return input;
}

function timeOf(args: Arguments, io: Io): number {
  const at = args.text('at');
  if (at === undefined) return Math.floor(io.now() / 1000);
  const seconds = /^\d{1,12}$/.test(at) ? Number(at) : Date.parse(at) / 1000;
  if (!Number.isFinite(seconds))
    throw new UsageError('--at must be seconds since 1970 or a time such as 2026-01-31T12:00:00Z');
  return Math.floor(seconds);
}
