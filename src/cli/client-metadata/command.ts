/** `attested client-metadata`: writes and checks the document that a client_id with a URL leads to. */
import { type Arguments, type Command, UsageError } from '../command.ts';
import { type Io, jsonText, paintFor, visible } from '../io.ts';
import { checkDocument, type DocumentCheck } from './check.ts';
import { writeDocument } from './write.ts';

const FOR_CHECKING = ['online', 'private', 'json'];
const FOR_WRITING = ['redirect-uri', 'name', 'scope', 'method', 'alg', 'attester'];

export const clientMetadataCommand: Command = {
  name: 'client-metadata',
  summary: "Write or check a client's metadata document: method, algorithms, endorsed attesters",
  usage: '--url URL --attester ISSUER [options] | --check URL|FILE [--online [--private]] [--json]',
  options: {
    url: { type: 'string', value: 'URL', help: 'where the document is: the client_id' },
    attester: {
      type: 'string',
      value: 'ISSUER',
      help: 'who may attest this client, or ISSUER,JWKS_URI (default: ISSUER/jwks); several with spaces between',
    },
    'redirect-uri': { type: 'string', value: 'URI', help: 'for sign-in by a person; several with spaces between' },
    name: { type: 'string', value: 'NAME', help: 'client_name' },
    scope: { type: 'string', value: 'SCOPE', help: 'scopes the client asks for' },
    method: {
      type: 'string',
      value: 'METHOD',
      help: 'only this method (default: DPoP combined mode first, both possible)',
    },
    alg: { type: 'string', value: 'ALG', help: "algorithms of the instances' keys (default ES256)" },
    check: { type: 'string', value: 'WHERE', help: 'check the document at this URL or in this file' },
    online: { type: 'boolean', help: "with --check: also fetch the attesters' keys" },
    private: { type: 'boolean', help: 'with --online: from private addresses too' },
    json: { type: 'boolean', help: 'with --check: one JSON document' },
  },
  notes: [
    'The document goes to standard output. Serve it at its URL as application/json, without redirects.',
    'Exit code 1 when a server would have to refuse what was checked.',
  ],
  async run(args, io) {
    if (args.positionals.length > 0) throw new UsageError('client-metadata takes options only');
    const where = args.text('check');
    if (where === undefined) {
      refuseOthers(args, FOR_CHECKING, 'goes with --check');
      io.out(jsonText(writeDocument(args)));
      return 0;
    }
    refuseOthers(args, FOR_WRITING, 'does not go with --check');
    const [online, privateNetworks] = [args.flag('online'), args.flag('private')];
    if (privateNetworks && !online) throw new UsageError('--private goes with --online');
    const check = await checkDocument(where, { url: args.text('url'), online, privateNetworks });
    if (args.flag('json')) io.out(jsonText(check));
    else print(check, args, io);
    return check.ok ? 0 : 1;
  },
};

function refuseOthers(args: Arguments, names: readonly string[], why: string): void {
  const given = names.find((name) => args.flag(name) || args.text(name) !== undefined);
  if (given !== undefined) throw new UsageError(`--${given} ${why}`);
}

function print({ url, ok, method, attesters, findings }: DocumentCheck, args: Arguments, io: Io): void {
  const paint = paintFor(io);
  io.out(`${paint.bold('Client')} ${visible(url)}\n`);
  if (method !== undefined) io.out(`  authenticates by ${visible(method)}\n`);
  for (const { issuer, jwksUri, keys } of attesters) {
    const found = keys === undefined ? '' : `: ${keys} ${keys === 1 ? 'key' : 'keys'}`;
    io.out(`  endorses ${visible(issuer)}, keys at ${visible(jwksUri)}${found}\n`);
  }
  for (const { severity, rule, message } of findings) {
    const mark = severity === 'refused' ? paint.red('✗') : paint.yellow('!');
    io.out(`  ${mark} ${rule}: ${visible(message)}\n`);
  }
  if (!args.flag('online') && attesters.length > 0) {
    io.out(`  ${paint.yellow('?')} not checked: the attesters' keys; use --online\n`);
  }
  io.out(ok ? `${paint.green('Nothing here would be refused.')}\n` : `${paint.red('A server would refuse this.')}\n`);
}
