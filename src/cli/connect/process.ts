/** How the long-running commands begin to end, and end for sure. */

/** Largest message that is passed on, bytes. */
export const MAX_MESSAGE: number = 128 * 1024 * 1024;

/** Milliseconds after which a process whose work is done does not wait for what is left over. */
const PATIENCE = 2000;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Aborts at the first of the signals that ask a process to end; a second one ends it at once. The listeners stay: where the only
 * other one is proper-lockfile's, that one would end the process.
 */
export function endSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(1);
      controller.abort();
    });
  }
  return controller.signal;
}

/** A host that does not listen to what is said to people does not end the process by that. */
export function speakToNobody(): void {
  process.stderr.on('error', () => undefined);
}

/** A connection that does not close must not keep a process without a host alive. */
export function leave(): void {
  setTimeout(() => process.exit(), PATIENCE).unref();
}
