/** `attested connect`: a stdio MCP server that is a remote one, for hosts that can only start a command. */
import type { FetchLike } from '../../platform/http.ts';
import type { Command } from '../command.ts';
import type { Io } from '../io.ts';
import { endSignal, leave, MAX_MESSAGE, speakToNobody } from './process.ts';
import { CONNECTION_OPTIONS, readSettings } from './settings.ts';

export const connect: Command = {
  name: 'connect',
  summary: 'Be an MCP server on stdio that forwards to a remote one, with attestation',
  usage: '<mcp-url> --client-id ID --attester URL [options]',
  options: {
    'sign-in': { type: 'boolean', help: 'sign in, keep the tokens for the runs to come, and end' },
    ...CONNECTION_OPTIONS,
  },
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
    speakToNobody();
    const gone = new AbortController(); // nobody waits for a sign-in any more
    const { fetch, close } = await openClient(settings, io, AbortSignal.any([signal, gone.signal]));
    const { server: url } = settings;
    try {
      if (args.flag('sign-in')) return await signIn(url, fetch, io);
      const { stdin: input, stdout: output } = process;
      await bridgeStdio({ url, fetch, input, output, signal, maxBytes: MAX_MESSAGE, log: logger(io) });
    } finally {
      gone.abort();
      await close();
      leave();
    }
    return 0;
  },
};

/** Asks the server something harmless: what it takes to be let in happens on the way. */
async function signIn(url: URL, fetch: FetchLike, io: Io): Promise<number> {
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  const response = await fetch(url, { method: 'POST', headers, body: '{"jsonrpc":"2.0","id":1,"method":"ping"}' });
  await response.body?.cancel();
  const refused = response.status === 401 || response.status === 403;
  io.err(refused ? `attested: ${url.origin} refuses this client\n` : `attested: ${url.origin} lets this client in\n`);
  return refused ? 1 : 0;
}
