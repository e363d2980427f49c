/** `attested demo`: the whole chain on one machine, with the real parts, and the attacks that it withstands. */
import { X509Certificate } from 'node:crypto';
import { keyKinds } from '../../keys/backend.ts';
import { readCertificateFiles } from '../../platform/certificate-files.ts';
import { type Arguments, type Command, UsageError } from '../command.ts';
import type { Io } from '../io.ts';
import type { DemoOptions } from './scene.ts';

/** What the demo runs against, beside this package: optional, since servers and agents need only their own. */
const PARTS = { 'oidc-provider': 9, '@modelcontextprotocol/client': 2, '@modelcontextprotocol/server': 2 } as const;

export const demo: Command = {
  name: 'demo',
  summary: 'Run attester, authorization server, MCP servers and agent, and attack them',
  usage: '[--keys auto] [--tpm swtpm] [--json] [--keep]',
  options: {
    keys: {
      type: 'string',
      value: 'KIND',
      help: `where the agent keeps its keys: ${keyKinds.join(', ')} (default auto)`,
    },
    tpm: { type: 'string', value: 'swtpm', help: "make a software TPM and use it in place of the machine's" },
    'tpm-roots': { type: 'string', value: 'PATH', help: 'certificates of TPM makers: a file, or a directory of them' },
    json: { type: 'boolean', help: 'one JSON document: steps, attacks, times' },
    keep: { type: 'boolean', help: "leave the demo's directory (keys, attester's store) behind" },
  },
  notes: [
    'auto takes a TPM where the machine has one, else the keychain, else encrypted files.',
    'Everything listens on 127.0.0.1 only, on free ports, and ends with the command.',
    'Exit code 0 only when every step worked and every attack was refused as it must be.',
  ],
  async run(args, io) {
    if (args.positionals.length > 0) throw new UsageError('demo takes no arguments');
    const options = await optionsOf(args);
    const missing = Object.entries(PARTS).filter(([name]) => !isInstalled(name));
    if (missing.length > 0)
      return explainMissing(
        missing.map(([name, major]) => `${name}@${major}`),
        io,
      );
    const { runDemo } = await import('./run.ts');
    const { jsonNarrator, textNarrator } = await import('./report.ts');
    const narrator = args.flag('json') ? jsonNarrator(io) : textNarrator(io);
    const report = await runDemo(narrator, options);
    narrator.end(report);
    return report.ok ? 0 : 1;
  },
};

async function optionsOf(args: Arguments): Promise<DemoOptions> {
  const [keys, tpm, roots] = [args.text('keys'), args.text('tpm'), args.text('tpm-roots')];
  const kind = keyKinds.find((name) => name === (keys ?? 'auto'));
  if (kind === undefined) throw new UsageError(`--keys must be one of ${keyKinds.join(', ')}`);
  if (tpm !== undefined && tpm !== 'swtpm')
    throw new UsageError("--tpm can only be swtpm; the machine's own TPM is --keys tpm");
  const softwareTpm = tpm !== undefined;
  if (softwareTpm && kind !== 'auto' && kind !== 'tpm')
    throw new UsageError(`--tpm swtpm and --keys ${kind} contradict each other`);
  const certificates = roots === undefined ? [] : await readCertificateFiles([roots]);
  return {
    keep: args.flag('keep'),
    keys: softwareTpm ? 'tpm' : kind,
    softwareTpm,
    tpmRoots: certificates.map((der) => new X509Certificate(der).toString()),
  };
}

function isInstalled(name: string): boolean {
  try {
    import.meta.resolve(name);
    return true;
  } catch {
    return false;
  }
}

function explainMissing(missing: readonly string[], io: Io): number {
  io.err(`The demo runs against real servers, which are optional packages. Missing: ${missing.join(', ')}.\n`);
  io.err(`Install them and try again:\n\n  npm install ${missing.join(' ')}\n`);
  return 1;
}
