/** `attested demo`: the whole chain on one machine, with the real parts, and the attacks that it withstands. */
import type { Command } from '../command.ts';
import { UsageError } from '../command.ts';
import type { Io } from '../io.ts';

/** What the demo runs against, beside this package: optional, since servers and agents need only their own. */
const PARTS = { 'oidc-provider': 9, '@modelcontextprotocol/client': 2, '@modelcontextprotocol/server': 2 } as const;

export const demo: Command = {
  name: 'demo',
  summary: 'Run attester, authorization server, MCP servers and agent, and attack them',
  usage: '[--json] [--keep]',
  options: {
    json: { type: 'boolean', help: 'one JSON document: steps, attacks, times' },
    keep: { type: 'boolean', help: "leave the demo's directory (keys, attester's store) behind" },
  },
  notes: [
    'Everything listens on 127.0.0.1 only, on free ports, and ends with the command.',
    'Exit code 0 only when every step worked and every attack was refused as it must be.',
  ],
  async run(args, io) {
    if (args.positionals.length > 0) throw new UsageError('demo takes no arguments');
    const missing = Object.entries(PARTS).filter(([name]) => !isInstalled(name));
    if (missing.length > 0)
      return explainMissing(
        missing.map(([name, major]) => `${name}@${major}`),
        io,
      );
    const { runDemo } = await import('./run.ts');
    const { jsonNarrator, textNarrator } = await import('./report.ts');
    const narrator = args.flag('json') ? jsonNarrator(io) : textNarrator(io);
    const report = await runDemo(narrator, { keep: args.flag('keep') });
    narrator.end(report);
    return report.ok ? 0 : 1;
  },
};

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
