/**
 * A keychain of the test's own: gnome-keyring on a private session bus, with a home of its own. Both die with their test, or
 * with this process.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const skipKeychain: boolean = (process.env.ATTESTED_SKIP ?? '').split(',').includes('keychain');

export interface Keyring {
  /** What a process needs in its environment to see this keychain and no other, nor the user's own files. */
  env: Record<string, string>;
  /** A home directory of its own. */
  home: string;
  /** Ends the daemon and starts it again without its password: the keychain is locked, and nobody is there to ask. */
  lock(): Promise<void>;
  unlock(): Promise<void>;
  /** The daemon ends; the bus stays. */
  kill(): Promise<void>;
  /** The daemon, or the bus before it, takes calls and does not answer. */
  freeze(what: 'daemon' | 'bus'): void;
  thaw(): void;
  stop(): Promise<void>;
}

/** @param daemon `unlocked` with its password, `new` without one (so that it has no collection), or `none` on the bus */
export async function startKeyring(daemon: 'unlocked' | 'new' | 'none' = 'unlocked'): Promise<Keyring> {
  const home = mkdtempSync(join(tmpdir(), 'attested-keyring-'));
  const [socket, runtime] = [join(home, 'bus'), join(home, 'run')];
  mkdirSync(runtime, { mode: 0o700 });
  const config = join(home, 'bus.conf');
  writeFileSync(config, busConfig(socket));
  const env = {
    HOME: home,
    XDG_RUNTIME_DIR: runtime,
    XDG_DATA_HOME: join(home, 'data'),
    XDG_CONFIG_HOME: join(home, 'config'),
    XDG_CACHE_HOME: join(home, 'cache'),
    XDG_STATE_HOME: join(home, 'state'),
    DBUS_SESSION_BUS_ADDRESS: `unix:path=${socket}`,
  };
  const childEnv = { ...process.env, ...env };
  const bus = spawn('dbus-daemon', [`--config-file=${config}`, '--nofork', '--nopidfile'], {
    env: childEnv,
    stdio: 'ignore',
  });
  await until('the session bus', () => existsSync(socket), bus);
  let running: ChildProcess | undefined;

  async function start(unlock: boolean): Promise<void> {
    const args = ['--foreground', '--components=secrets', ...(unlock ? ['--unlock'] : [])];
    const child = spawn('gnome-keyring-daemon', args, { env: childEnv, stdio: ['pipe', 'ignore', 'ignore'] });
    running = child;
    child.stdin?.end('the password of the test');
    await until('the keyring', () => ownsName(childEnv), child);
  }
  const stopDaemon = async () => {
    await end(running);
    running = undefined;
  };
  if (daemon !== 'none') await start(daemon === 'unlocked');

  const killAll = () => {
    for (const child of [running, bus]) child?.kill('SIGKILL');
  };
  process.on('exit', killAll);
  return {
    env,
    home,
    async lock() {
      await stopDaemon();
      await start(false);
    },
    async unlock() {
      await stopDaemon();
      await start(true);
    },
    kill: stopDaemon,
    freeze: (what) => void (what === 'bus' ? bus : running)?.kill('SIGSTOP'),
    thaw() {
      for (const child of [running, bus]) child?.kill('SIGCONT');
    },
    async stop() {
      await Promise.all([end(running), end(bus)]);
      process.off('exit', killAll);
      rmSync(home, { recursive: true, force: true });
    },
  };
}

/** Without directories of services, so that nothing is started that the test did not start. */
function busConfig(socket: string): string {
  return `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=${socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`;
}

function ownsName(env: NodeJS.ProcessEnv): Promise<boolean> {
  const call = 'org.freedesktop.DBus.NameHasOwner string:org.freedesktop.secrets';
  const args = `--session --print-reply=literal --dest=org.freedesktop.DBus /org/freedesktop/DBus ${call}`.split(' ');
  return new Promise((resolve) => {
    let text = '';
    const child = spawn('dbus-send', args, { env, stdio: ['ignore', 'pipe', 'ignore'] });
    child.stdout.on('data', (chunk) => {
      text += chunk;
    });
    child.on('close', () => resolve(text.includes('boolean true')));
    child.on('error', () => resolve(false));
  });
}

async function until(what: string, isReady: () => boolean | Promise<boolean>, child: ChildProcess): Promise<void> {
  let fault: Error | undefined;
  child.on('error', (error) => {
    fault = error;
  });
  const deadline = performance.now() + 10_000;
  while (!(await isReady())) {
    if (fault !== undefined || child.exitCode !== null) throw new Error(`${what} ended`, { cause: fault });
    if (performance.now() > deadline) throw new Error(`${what} did not start within ten seconds`);
    await sleep(10);
  }
}

function end(child: ChildProcess | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return resolve();
    child.once('exit', () => resolve());
    child.kill('SIGKILL');
  });
}
