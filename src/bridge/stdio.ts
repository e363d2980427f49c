/** The bridge itself: an MCP host on standard input and output, a remote MCP server behind it. */
import type { Readable, Writable } from 'node:stream';
import { asLine, readLines } from './lines.ts';
import { type Envelope, errorMessage, INVALID_REQUEST, PARSE_ERROR, readEnvelope } from './message.ts';
import { openRemote, type RemoteOptions } from './remote.ts';

export interface StdioBridgeOptions extends Omit<RemoteOptions, 'deliver'> {
  input: Readable;
  output: Writable;
  /** Ends the bridge at once. */
  signal: AbortSignal;
}

/** Milliseconds that answers under way have after the host has closed its end. */
const GRACE = 1000;

/** Messages after which the others wait until they have been taken in. */
const FIRST: ReadonlySet<string> = new Set(['initialize', 'notifications/initialized']);

/**
 * Runs until the host goes away (end of input, or nobody to read the output) or the signal comes; then ends the session.
 * Every request of the host is answered, be it with an error; nothing but protocol is written.
 */
export async function bridgeStdio(options: StdioBridgeOptions): Promise<void> {
  const { input, output, signal, maxBytes, log } = options;
  let stop = (): void => undefined;
  const over = new Promise<void>((resolve) => {
    stop = resolve;
  });
  let gone = false;
  let drained: Promise<void> | undefined;

  async function deliver(line: Uint8Array): Promise<void> {
    if (gone || output.destroyed) return;
    if (output.write(line)) return;
    drained ??= once(output, 'drain').finally(() => {
      drained = undefined;
    });
    await Promise.race([drained, over]);
  }

  const remote = openRemote({ ...options, deliver });
  const underWay = new Set<Promise<void>>();
  let before: Promise<void> = Promise.resolve();

  function dispatch(envelope: Envelope): void {
    const sent = before.then(() => remote.send(envelope));
    if (envelope.messages.some((message) => message.kind !== 'response' && FIRST.has(message.method))) before = sent;
    underWay.add(sent);
    void sent.finally(() => underWay.delete(sent));
  }

  const lines = readLines(maxBytes, (line) => {
    const envelope = line === undefined ? INVALID_REQUEST : readEnvelope(line);
    if (typeof envelope !== 'number') return dispatch(envelope);
    const what =
      envelope === PARSE_ERROR ? 'Parse error' : line === undefined ? 'Message too large' : 'Invalid Request';
    log(`the host sent a line that is no message: ${what}`);
    void deliver(asLine(errorMessage(null, { code: envelope, message: `attested: ${what}` })));
  });

  input.on('data', (chunk: Uint8Array) => lines.push(chunk));
  input.once('end', () => {
    lines.end();
    void Promise.race([Promise.all(underWay), once(signal, 'abort'), wait(GRACE)]).then(stop);
  });
  input.on('error', stop);
  output.on('error', () => {
    gone = true;
    stop();
  });
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop, { once: true });

  await over;
  gone = true;
  input.destroy();
  await remote.close();
}

function once(source: Writable | AbortSignal, name: string): Promise<void> {
  return new Promise((resolve) => {
    if (source instanceof AbortSignal) source.addEventListener(name, () => resolve(), { once: true });
    else source.once(name, () => resolve());
  });
}

function wait(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref());
}
