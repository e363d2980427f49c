/** `attested proxy`: a local address for a remote MCP server, for hosts that speak HTTP but cannot attest. */
import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { createPrivateFile } from '../../platform/files.ts';
import { type Command, UsageError } from '../command.ts';
import { endSignal, leave, MAX_MESSAGE, speakToNobody } from '../connect/process.ts';
import { CONNECTION_OPTIONS, numberIn, readSettings } from '../connect/settings.ts';
import { readText } from '../files.ts';

export const proxy: Command = {
  name: 'proxy',
  summary: 'Give a remote MCP server an address on this machine, with attestation',
  usage: '<mcp-url> --listen [HOST:]PORT --client-id ID --attester URL [options]',
  options: {
    listen: {
      type: 'string',
      value: '[HOST:]PORT',
      help: 'where to listen, on this machine only; port 0 takes a free one',
    },
    'secret-file': {
      type: 'string',
      value: 'FILE',
      help: "the address's secret, made there if there is none (default: a new one each time)",
    },
    'allow-origin': {
      type: 'string',
      value: 'ORIGINS',
      help: 'web pages that may use it, by origin, separated by commas',
    },
    ...CONNECTION_OPTIONS,
  },
  notes: [
    'Who knows the printed address acts with this client’s identity: treat it as a password.',
    'Ends with SIGINT or SIGTERM.',
  ],
  async run(args, io) {
    const settings = await readSettings(args, process.env);
    const { host, port } = placeOf(args.text('listen'));
    const secretFile = args.text('secret-file');
    const secret = secretFile === undefined ? newSecret() : await secretIn(secretFile);
    const origins = originsIn(args.text('allow-origin') ?? '');
    // loaded late, since the other commands need none of it
    const { openProxy } = await import('../../bridge/index.ts');
    const { logger, openClient } = await import('../connect/client.ts');
    const signal = endSignal();
    speakToNobody();
    const { fetch, close } = await openClient(settings, io, signal);
    try {
      const { server: url } = settings;
      const running = await openProxy({
        url,
        fetch,
        secret,
        host,
        port,
        origins,
        maxBytes: MAX_MESSAGE,
        log: logger(io),
      });
      io.out(`${secretFile === undefined ? running.url : `${running.origin}/<secret>`}\n`);
      await new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      await running.close();
    } finally {
      await close();
      leave();
    }
    return 0;
  },
};

function placeOf(listen: string | undefined): { host: string; port: number } {
  if (listen === undefined) throw new UsageError('proxy needs --listen');
  const [, bracketed, plain, port] = /^(?:(?:\[([0-9a-f:]+)\]|([^:[\]]+)):)?(\d+)$/i.exec(listen) ?? [];
  if (port === undefined) throw new UsageError('--listen must be [HOST:]PORT, such as 8787 or [::1]:8787');
  const number = numberIn('listen', port, 0, 65_535);
  return { host: bracketed ?? plain ?? '127.0.0.1', port: number as number };
}

/** One that browsers never send would keep its page out, and nobody would know why. `null` is the origin of any sandboxed page. */
function originsIn(text: string): string[] {
  const origins = text.split(',').filter((origin) => origin !== '');
  if (!origins.every(isOrigin)) {
    throw new UsageError('--allow-origin takes origins as they are sent, such as https://app.example, without a slash');
  }
  return origins;
}

/** Also those of programs that are browsers within: `tauri://localhost`, `chrome-extension://…`. */
function isOrigin(text: string): boolean {
  if (/^https?:/i.test(text)) return URL.canParse(text) && new URL(text).origin === text;
  return /^[a-z][a-z0-9+.-]*:\/\/[^/?#@*\s]+$/.test(text);
}

function newSecret(): string {
  return randomBytes(32).toString('base64url');
}

/** @throws UsageError for a file that others own or may read */
async function secretIn(path: string): Promise<string> {
  if ((await stat(path).catch(() => undefined)) === undefined) {
    await createPrivateFile(path, `${newSecret()}\n`).catch((error: NodeJS.ErrnoException) => {
      throw new UsageError(`${path} cannot be made (${error.code ?? 'unknown'})`);
    });
  }
  const { mode, uid } = await stat(path);
  // in a folder that others write to, somebody could have been there first with a secret that they know
  if (process.getuid !== undefined && uid !== process.getuid()) throw new UsageError(`${path} belongs to another user`);
  if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
    throw new UsageError(`${path} can be read by others: chmod 600 it, and change the secret`);
  }
  return (await readText(path)).trim();
}
