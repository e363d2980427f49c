/** What `connect` and `proxy` can be told, from the command line, the environment, or a file. */
import { parseJsonObject } from '../../core/json.ts';
import { POP_METHODS, type PopMethod } from '../../core/metadata.ts';
import { type KeyBackend, keyKinds } from '../../keys/backend.ts';
import { assertSafeUrl } from '../../platform/http.ts';
import { type Arguments, UsageError } from '../command.ts';
import { asUsage, readText } from '../files.ts';

export const CONNECTION_OPTIONS = {
  'client-id': { type: 'string', value: 'ID', help: 'client_id that the attester knows this client by' },
  attester: { type: 'string', value: 'URL', help: "the client attester's issuer URL" },
  'enrolment-file': {
    type: 'string',
    value: 'FILE',
    help: 'one-time token for the first contact with the attester, in the first line of this file',
  },
  'self-attester-key': {
    type: 'string',
    value: 'LABEL',
    help: 'no attester: sign attestations here, with this key (see keygen)',
  },
  keys: { type: 'string', value: 'KIND', help: 'where keys live: auto, tpm, keychain, software (default auto)' },
  dir: {
    type: 'string',
    value: 'PATH',
    help: "directory of keys, state and tokens (default: the user's state directory)",
  },
  'passphrase-file': {
    type: 'string',
    value: 'FILE',
    help: 'key files are encrypted under the first line of this file',
  },
  method: {
    type: 'string',
    value: 'METHOD',
    help: 'attestation_pop_jwt or dpop_combined, as the client is registered (default: the best that the server offers)',
  },
  grant: {
    type: 'string',
    value: 'GRANT',
    help: 'auto, client_credentials (nobody signs in) or authorization_code (default auto)',
  },
  scope: { type: 'string', value: 'SCOPES', help: 'scopes to ask for (default: what the server names)' },
  issuer: { type: 'string', value: 'URL', help: 'accept no other authorization server than this' },
  'redirect-port': {
    type: 'string',
    value: 'PORT',
    help: 'port of the redirect address, where the server compares it',
  },
  'login-timeout': { type: 'string', value: 'SECONDS', help: 'time for somebody to sign in (default 300)' },
  'no-browser': { type: 'boolean', help: 'print the address to sign in at, open no browser' },
  config: { type: 'string', value: 'FILE', help: 'JSON object with any of these options by name, and "server"' },
} as const;

type Name = keyof typeof CONNECTION_OPTIONS;

/** Options that also come from the environment: what a host's configuration sets, or must not show in a list of processes. */
const VARIABLES: Readonly<Partial<Record<Name, string>>> = {
  'client-id': 'ATTESTED_CLIENT_ID',
  attester: 'ATTESTED_ATTESTER',
  config: 'ATTESTED_CONFIG',
};
const TOKEN_VARIABLE = 'ATTESTED_ENROLMENT_TOKEN';

export interface Settings {
  server: URL;
  clientId: string;
  attester: { url: string } | { selfKey: string };
  enrolmentToken: string | undefined;
  keys: 'auto' | KeyBackend;
  directory: string | undefined;
  passphrase: string | undefined;
  method: PopMethod | undefined;
  grant: 'auto' | 'client_credentials' | 'authorization_code';
  scope: string | undefined;
  issuer: string | undefined;
  redirectPort: number | undefined;
  /** Milliseconds. */
  loginTimeout: number;
  browser: boolean;
}

/** The command line goes before the environment, and that before the file. @throws UsageError */
export async function readSettings(args: Arguments, env: Record<string, string | undefined>): Promise<Settings> {
  const file = await readConfig(args.text('config') ?? (env.ATTESTED_CONFIG || undefined));
  const text = (name: Name): string | undefined => {
    const variable = VARIABLES[name];
    return args.text(name) ?? (variable === undefined ? undefined : env[variable] || undefined) ?? textIn(file, name);
  };
  const [given, ...others] = args.positionals;
  const server = given ?? textIn(file, 'server');
  if (server === undefined || others.length > 0) throw new UsageError('give the URL of one MCP server');
  const clientId = text('client-id');
  if (clientId === undefined) throw new UsageError('give --client-id, or ATTESTED_CLIENT_ID');
  const [attester, selfKey] = [text('attester'), text('self-attester-key')];
  if ((attester === undefined) === (selfKey === undefined)) {
    throw new UsageError('give either --attester (or ATTESTED_ATTESTER) or --self-attester-key');
  }
  if (attester !== undefined) urlOf(attester, '--attester');
  const tokenFile = text('enrolment-file');
  const passphraseFile = text('passphrase-file');
  return {
    server: urlOf(server, 'the MCP server'),
    clientId,
    attester: selfKey === undefined ? { url: attester as string } : { selfKey },
    enrolmentToken: env[TOKEN_VARIABLE] || (tokenFile === undefined ? undefined : await firstLine(tokenFile)),
    keys: oneOf('keys', text('keys') ?? 'auto', keyKinds),
    directory: text('dir'),
    passphrase: passphraseFile === undefined ? undefined : await firstLine(passphraseFile),
    method: text('method') === undefined ? undefined : oneOf('method', text('method') as string, POP_METHODS),
    grant: oneOf('grant', text('grant') ?? 'auto', ['auto', 'client_credentials', 'authorization_code'] as const),
    scope: text('scope'),
    issuer: text('issuer'),
    redirectPort: numberIn('redirect-port', text('redirect-port'), 1, 65_535),
    loginTimeout: 1000 * (numberIn('login-timeout', text('login-timeout'), 1, 3600) ?? 300),
    browser: !args.flag('no-browser') && file['no-browser'] !== true,
  };
}

async function readConfig(path: string | undefined): Promise<Record<string, unknown>> {
  if (path === undefined) return {};
  const json = parseJsonObject(await readText(path));
  if (json === undefined) throw new UsageError(`${path} is not one JSON object`);
  const known = ['server', ...Object.keys(CONNECTION_OPTIONS)];
  const unknown = Object.keys(json).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new UsageError(`${path} has an unknown member; it may have ${known.join(', ')}`);
  return json;
}

function textIn(file: Record<string, unknown>, name: string): string | undefined {
  const value = file[name];
  if (value === undefined || typeof value === 'boolean') return undefined;
  if (typeof value === 'string' && value !== '') return value;
  if (typeof value === 'number') return String(value);
  throw new UsageError(`"${name}" in the configuration file must be a text`);
}

async function firstLine(path: string): Promise<string> {
  const line = (await readText(path)).split(/\r?\n/, 1)[0]?.trim() ?? '';
  if (line === '') throw new UsageError(`the first line of ${path} is empty`);
  return line;
}

function urlOf(text: string, what: string): URL {
  return asUsage(what, () => assertSafeUrl(text));
}

function oneOf<T extends string>(name: string, given: string, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === given);
  if (found === undefined) throw new UsageError(`--${name} must be one of ${allowed.join(', ')}`);
  return found;
}

export function numberIn(name: string, given: string | undefined, least: number, most: number): number | undefined {
  if (given === undefined) return undefined;
  const number = /^\d{1,6}$/.test(given) ? Number(given) : -1;
  if (number < least || number > most) throw new UsageError(`--${name} must be a whole number, ${least} to ${most}`);
  return number;
}
