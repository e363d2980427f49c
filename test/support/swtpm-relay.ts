/**
 * Stands between a software TPM and those who use it. swtpm 0.7 stops answering when two processes connect at the same
 * moment; through a relay each command has the TPM to itself, as a TPM's driver does it (still without a resource manager).
 * It also sees all that goes over the bus.
 */
import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Swtpm } from './swtpm.ts';

export interface Relay {
  /** To be used instead of the TPM's own, by any number of processes. */
  tcti: string;
  /** Everything that went to the TPM, and everything that came from it. */
  sent(): Buffer;
  received(): Buffer;
  close(): Promise<void>;
}

/** Bytes that a command or response of the TPM has: its third to sixth byte say so. */
const tpmLength = (bytes: Buffer): number => (bytes.length < 6 ? Number.POSITIVE_INFINITY : bytes.readUInt32BE(2));
/** TPM_CC: which command it is. */
export const commandCode = (command: Buffer): number => (command.length < 10 ? 0 : command.readUInt32BE(6));
/** A control command and its answer are one packet each. */
const anyLength = (): number => 1;

let count = 0;

/** @param before is waited for with each command in hand and the TPM at rest */
export async function startRelay(
  tpm: Pick<Swtpm, 'socket'>,
  before?: (command: Buffer) => Promise<void>,
): Promise<Relay> {
  count += 1;
  const path = `${tpm.socket}${count}`;
  const sent: Buffer[] = [];
  const received: Buffer[] = [];
  let last: Promise<unknown> = Promise.resolve();
  const exchange = (to: string, command: Buffer, length: typeof tpmLength): Promise<Buffer> => {
    const answer = last.then(async () => {
      await before?.(command);
      return ask(to, command, length);
    });
    last = answer.catch(() => undefined);
    return answer;
  };
  const listen = (from: string, to: string, length: typeof tpmLength): Promise<Server> => {
    const server = createServer((client) => {
      client.on('error', () => client.destroy());
      onPackets(client, length, (command) => {
        sent.push(command);
        exchange(to, command, length).then(
          (answer) => {
            received.push(answer);
            client.write(answer);
          },
          () => client.destroy(), // as the TPM would hang up
        );
      });
    });
    return new Promise((resolve) => server.listen(from, () => resolve(server)));
  };
  const servers = [
    await listen(path, tpm.socket, tpmLength),
    await listen(`${path}.ctrl`, `${tpm.socket}.ctrl`, anyLength),
  ];
  return {
    tcti: `swtpm:path=${path}`,
    sent: () => Buffer.concat(sent),
    received: () => Buffer.concat(received),
    async close() {
      for (const server of servers) server.close();
      for (const left of [path, `${path}.ctrl`]) rmSync(left, { force: true });
    },
  };
}

function onPackets(socket: Socket, length: typeof tpmLength, take: (packet: Buffer) => void): void {
  let kept = Buffer.alloc(0);
  socket.on('data', (data: Buffer) => {
    kept = Buffer.concat([kept, data]);
    if (kept.length < length(kept)) return;
    const packet = kept;
    kept = Buffer.alloc(0);
    take(packet);
  });
}

function ask(to: string, command: Buffer, length: typeof tpmLength): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect(to, () => socket.write(command));
    let answer: Buffer | undefined;
    onPackets(socket, length, (packet) => {
      answer = packet;
      socket.end();
    });
    socket.on('error', reject);
    // The next one connects when this connection is gone.
    socket.on('close', () => (answer ? resolve(answer) : reject(new Error('the TPM hung up'))));
  });
}
