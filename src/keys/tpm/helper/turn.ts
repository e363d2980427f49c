/**
 * Turns of our own processes at a TPM without a resource manager. Such a TPM takes one process at a time: objects of two fill
 * its slots, and swtpm stops answering when two connect at the same moment.
 *
 * The turn is a name in Linux's abstract socket namespace: who listens there has it, and the kernel takes it back from a
 * process that dies. Elsewhere nobody waits, and two processes at one TPM may disturb each other.
 */
import { createHash } from 'node:crypto';
import { createServer, type Server } from 'node:net';

const [SHORTEST_PAUSE, LONGEST_PAUSE] = [2, 12];

export interface Turn {
  /** False when another process did not give it back in time. @param patience milliseconds */
  take(patience: number): Promise<boolean>;
  give(): Promise<void>;
}

export function createTurn(tcti: string): Turn {
  if (process.platform !== 'linux') return { take: async () => true, give: async () => undefined };
  const name = createHash('sha256').update(`attested TPM turn ${tcti}`).digest('base64url');
  let held: Server | undefined;
  return {
    async take(patience) {
      const until = performance.now() + patience;
      for (let pause = SHORTEST_PAUSE; held === undefined; pause = Math.min(pause * 1.5, LONGEST_PAUSE)) {
        held = await listen(`\0attested-${name}`);
        if (held !== undefined) break;
        if (performance.now() > until) return false;
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
      return true;
    },
    async give() {
      const server = held;
      held = undefined;
      if (server !== undefined) await new Promise((resolve) => server.close(resolve));
    },
  };
}

function listen(path: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((stranger) => stranger.destroy());
    server.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error),
    );
    server.listen({ path, exclusive: true }, () => resolve(server.unref()));
  });
}
