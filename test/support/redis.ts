/** A real Valkey or Redis server of the test's own, on a unix socket in a directory of its own. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const skipRedis: boolean = (process.env.ATTESTED_SKIP ?? '').split(',').includes('redis');

export interface RedisServer {
  socket: string;
  kill(): Promise<void>;
  stop(): Promise<void>;
}

export async function startRedis(options: readonly string[] = []): Promise<RedisServer> {
  const command = ['valkey-server', 'redis-server'].find(
    (name) => spawnSync('sh', ['-c', 'command -v "$1"', 'sh', name]).status === 0,
  );
  if (command === undefined)
    throw new Error('no valkey-server and no redis-server: install one, or set ATTESTED_SKIP=redis');
  const directory = mkdtempSync(join(tmpdir(), 'attested-redis-'));
  const socket = join(directory, 'redis.sock');
  const server = spawn(
    command,
    [
      '--port',
      '0',
      '--unixsocket',
      socket,
      '--save',
      '',
      '--appendonly',
      'no',
      '--maxmemory-policy',
      'noeviction',
      ...options,
    ],
    { cwd: directory, stdio: 'ignore' },
  );
  await untilReady(socket, server);
  const end = (signal: NodeJS.Signals) =>
    new Promise<void>((resolve) => {
      if (server.exitCode !== null || server.signalCode !== null) resolve();
      else {
        server.once('exit', () => resolve());
        server.kill(signal);
      }
    });
  return {
    socket,
    kill: () => end('SIGKILL'),
    stop: async () => {
      await end('SIGKILL');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function untilReady(socket: string, server: ChildProcess): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (performance.now() < deadline) {
    if (server.exitCode !== null) throw new Error(`the server ended with ${server.exitCode}`);
    const answers = await new Promise<boolean>((resolve) => {
      const client = connect(socket);
      client.once('error', () => resolve(false));
      client.once('data', (data) => {
        client.destroy();
        resolve(data.toString().startsWith('+PONG'));
      });
      client.once('connect', () => client.write('PING\r\n'));
    });
    if (answers) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('the server did not answer within ten seconds');
}
