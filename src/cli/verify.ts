/** `attested verify`: the server's judgement of one request, from the command line. */
import { NEWEST_REVISION } from '../core/revisions.ts';
import { AttestedError } from '../errors.ts';
import { type AttestedClient, createVerifier, remoteJwks, type TrustSource } from '../verifier/index.ts';
import { type Arguments, type Command, UsageError } from './command.ts';
import { asUsage, readText, revisionNumber, trustIn } from './files.ts';
import { headOf, readFields } from './inspect/recognise.ts';
import { type Io, jsonText, paintFor, visible } from './io.ts';

export const verify: Command = {
  name: 'verify',
  summary: 'Verify the attestation and proof of a request as a server would',
  usage: '--audience ID (--jwks FILE | --jwks-url URL) (--header-file FILE | --attestation JWT --pop JWT) [options]',
  options: {
    audience: { type: 'string', value: 'ID', help: "the server's issuer or resource identifier" },
    jwks: { type: 'string', value: 'FILE', help: "the attester's public keys" },
    'jwks-url': { type: 'string', value: 'URL', help: "the same, fetched; its host's status lists are fetched too" },
    'header-file': { type: 'string', value: 'FILE', help: 'header lines of the request; - reads standard input' },
    attestation: { type: 'string', value: 'JWT', help: 'Client Attestation' },
    pop: { type: 'string', value: 'JWT', help: 'Client Attestation PoP' },
    dpop: { type: 'string', value: 'JWT', help: 'DPoP proof; it also needs --method and --url' },
    method: { type: 'string', value: 'METHOD', help: "the request's method" },
    url: { type: 'string', value: 'URL', help: "the request's URL" },
    'client-id': { type: 'string', value: 'ID', help: "the request's client_id parameter" },
    challenge: {
      type: 'string',
      value: 'VALUE',
      help: 'the challenge or nonce that the proof must carry (default: none is asked for)',
    },
    role: { type: 'string', value: 'ROLE', help: 'as (default) or rs: authorization or resource server' },
    revision: {
      type: 'string',
      value: 'N',
      help: `draft revision, 4 to ${NEWEST_REVISION} (default ${NEWEST_REVISION})`,
    },
    json: { type: 'boolean', help: 'one JSON document' },
  },
  notes: ['Exit code 1 when it is refused. Replay is not judged: this command remembers nothing.'],
  async run(args, io) {
    if (args.positionals.length > 0) throw new UsageError('verify takes options only');
    const audience = args.text('audience');
    if (audience === undefined) throw new UsageError('verify needs --audience');
    const verifier = createVerifier({
      role: roleOf(args),
      audience,
      trust: await trustOf(args),
      revision: revisionNumber(args),
      policy: { challenge: 'off' },
      now: io.now,
    });
    const request = {
      headers: await headersOf(args, io),
      method: args.text('method'),
      url: args.text('url'),
      clientId: args.text('client-id'),
      challenge: args.text('challenge'),
    };
    try {
      accepted(await verifier.verify(request), args, io);
      return 0;
    } catch (error) {
      if (!(error instanceof AttestedError)) throw error;
      if (error.code === 'invalid_argument') throw new UsageError(error.message);
      refused(error, args, io);
      return 1;
    }
  },
};

function roleOf(args: Arguments): 'as' | 'rs' {
  const role = args.text('role') ?? 'as';
  if (role !== 'as' && role !== 'rs') throw new UsageError('--role must be as or rs');
  return role;
}

async function trustOf(args: Arguments): Promise<TrustSource> {
  const [file, url] = [args.text('jwks'), args.text('jwks-url')];
  if ((file === undefined) === (url === undefined)) throw new UsageError('verify needs either --jwks or --jwks-url');
  return url === undefined ? trustIn(file as string) : asUsage('--jwks-url', () => remoteJwks(url));
}

const FIELDS = { attestation: 'OAuth-Client-Attestation', pop: 'OAuth-Client-Attestation-PoP', dpop: 'DPoP' } as const;

async function headersOf(args: Arguments, io: Io): Promise<[string, string][]> {
  const file = args.text('header-file');
  const text = file === undefined ? '' : file === '-' ? await io.stdin() : await readText(file);
  const { fields, folded } = readFields(headOf(text));
  // a server would not join them, and here it has to be as at the server
  if (folded) throw new UsageError('every line of the header file must be one header field');
  const headers = fields.map(({ name, value }): [string, string] => [name, value]);
  for (const [option, name] of Object.entries(FIELDS)) {
    const value = args.text(option);
    if (value !== undefined) headers.push([name, value]);
  }
  if (headers.length === 0) throw new UsageError('verify needs --header-file, or --attestation and --pop or --dpop');
  return headers;
}

function accepted(client: AttestedClient, args: Arguments, io: Io): void {
  if (args.flag('json')) {
    io.out(jsonText({ accepted: true, client }));
    return;
  }
  const { clientId, thumbprint, attester, method, keyStorage, keyEvidence, status, expiresAt } = client;
  const rows = {
    client_id: clientId,
    'instance key': thumbprint,
    attester: attester,
    proof: method,
    'key storage': `${keyStorage} (${keyEvidence})`,
    revocation: status,
    'good until': new Date(expiresAt * 1000).toISOString(),
  };
  io.out(`${paintFor(io).green('accepted')}\n`);
  for (const [name, value] of Object.entries(rows)) io.out(`  ${name.padEnd(14)}${visible(value)}\n`);
}

function refused({ code, rule, message }: AttestedError, args: Arguments, io: Io): void {
  if (args.flag('json')) {
    io.out(jsonText({ accepted: false, error: { code, rule, message } }));
    return;
  }
  io.out(`${paintFor(io).red('refused')}\n  ${visible(message)} (${[code, rule].filter(Boolean).join(', ')})\n`);
}
