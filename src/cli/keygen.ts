/** `attested keygen`: makes a key where agents keep theirs, and prints its public half. */
import type { SignatureAlgorithm } from '../core/algorithms.ts';
import { type KeyBackend, keyKinds } from '../keys/backend.ts';
import { defaultDirectory, openKeys } from '../keys/index.ts';
import { type Arguments, type Command, UsageError } from './command.ts';
import { readText } from './files.ts';
import { jsonText, visible } from './io.ts';

export const keygen: Command = {
  name: 'keygen',
  summary: 'Make a key in the best place there is, and print its public half',
  usage: '[--keys auto] [--label NAME] [options]',
  options: {
    keys: { type: 'string', value: 'KIND', help: `where the key lives: ${keyKinds.join(', ')} (default auto)` },
    kind: { type: 'string', value: 'KIND', help: 'the same as --keys' },
    label: {
      type: 'string',
      value: 'NAME',
      help: 'name of the key (default: default); an existing key is shown, not replaced',
    },
    alg: { type: 'string', value: 'ALG', help: 'signature algorithm (default ES256)' },
    dir: { type: 'string', value: 'PATH', help: "directory for key files (default: the user's state directory)" },
    'passphrase-file': { type: 'string', value: 'FILE', help: 'encrypt key files under the first line of this file' },
    json: { type: 'boolean', help: 'one JSON document' },
  },
  notes: ['The private half never leaves its place, and no command prints it.'],
  async run(args, io) {
    if (args.positionals.length > 0) throw new UsageError('keygen takes options only');
    const kind = kindOf(args);
    const keys = await openKeys(kind, await placeOf(args, kind));
    try {
      const label = args.text('label') ?? 'default';
      const existed = (await keys.getKey(label)) !== undefined;
      // openKeys judges the name: it knows what it supports
      const alg = args.text('alg') as SignatureAlgorithm | undefined;
      const { publicJwk, thumbprint, alg: chosen } = await keys.createKey({ label, ...(alg !== undefined && { alg }) });
      const { kind: used, assurance, why } = keys;
      if (args.flag('json')) {
        io.out(jsonText({ kind: used, assurance, why, label, alg: chosen, created: !existed, thumbprint, publicJwk }));
        return 0;
      }
      io.out(jsonText(publicJwk));
      io.err(`${existed ? 'Existing' : 'New'} ${chosen} key ${visible(label)} in ${used}, thumbprint ${thumbprint}\n`);
      for (const reason of why.split('; ')) io.err(`  ${visible(reason)}\n`);
      return 0;
    } finally {
      await keys.close();
    }
  },
};

function kindOf(args: Arguments): 'auto' | KeyBackend {
  const [keys, kindOption] = [args.text('keys'), args.text('kind')];
  if (keys !== undefined && kindOption !== undefined) throw new UsageError('give --keys or --kind, not both');
  const given = keys ?? kindOption ?? 'auto';
  const kind = keyKinds.find((name) => name === given);
  if (kind === undefined) throw new UsageError(`--keys must be one of ${keyKinds.join(', ')}`);
  return kind;
}

async function placeOf(args: Arguments, kind: string): Promise<{ directory?: string; passphrase?: string }> {
  // software without a directory would be a key in memory, which ends with this command
  const directory = args.text('dir') ?? (kind === 'software' ? defaultDirectory() : undefined);
  const file = args.text('passphrase-file');
  const passphrase = file === undefined ? undefined : (await readText(file)).split(/\r?\n/, 1)[0];
  if (passphrase === '') throw new UsageError('the first line of the passphrase file is empty');
  return { ...(directory !== undefined && { directory }), ...(passphrase !== undefined && { passphrase }) };
}
