/** `attested connect`: a stdio MCP server that is a remote one, for hosts that can only start a command. */
import type { Command } from '../command.ts';
import { endSignal, leave, MAX_MESSAGE } from './process.ts';
import { CONNECTION_OPTIONS, readSettings } from './settings.ts';

export const connect: Command = {
  name: 'connect',
  summary: 'Be an MCP server on stdio that forwards to a remote one, with attestation',
  usage: '<mcp-url> --client-id ID --attester URL [options]',
  options: CONNECTION_OPTIONS,
  notes: [
    'For an MCP host that starts its servers as commands: {"command": "attested", "args": ["connect", "<mcp-url>", …]}.',
    'ATTESTED_CLIENT_ID, ATTESTED_ATTESTER, ATTESTED_ENROLMENT_TOKEN and ATTESTED_CONFIG stand in for options.',
    'Standard output carries the protocol; everything for people goes to standard error.',
  ],
  async run(args, io) {
    const settings = await readSettings(args, process.env);
    // loaded late, since the other commands need none of it
    const { bridgeStdio } = await import('../../bridge/index.ts');
    const { logger, openClient } = await import('./client.ts');
    const signal = endSignal();
    const { fetch, close } = await openClient(settings, io, signal);
    try {
      const { stdin: input, stdout: output } = process;
      await bridgeStdio({ url: settings.server, fetch, input, output, signal, maxBytes: MAX_MESSAGE, log: logger(io) });
    } finally {
      await close();
      leave();
    }
    return 0;
  },
};
