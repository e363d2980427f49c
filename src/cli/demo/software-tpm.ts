/**
 * Software TPMs (swtpm) for the demo: each is a machine's TPM, made by a maker of its own, which is a certificate authority that
 * lives as long as the demo. They show what a TPM does. Where the key lies, they prove nothing.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { access, mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { installHintHere } from '../../native/tpm2-tss/install.ts';
import { Halt } from './halt.ts';

export interface SoftwareTpm {
  tcti: string;
  /** Certificates of its maker, PEM. */
  root: string;
  issuer: string;
}

export interface SoftwareTpms {
  /** @throws Halt when swtpm is not installed or does not start */
  start(maker: string): Promise<SoftwareTpm>;
  /** Ends all of them, those that are being made too. */
  stop(): Promise<void>;
}

/** On Debian and Ubuntu. */
const PACKAGES = 'swtpm swtpm-tools';

/** Milliseconds. */
const MADE_WITHIN = 30_000;
const READY_WITHIN = 10_000;

/** The path of a unix socket has room for 107 bytes. */
const LONGEST_PATH = 107;

// When this process is gone, however it ended, the shell's input ends, and the TPM with it.
const WITH_US = '"$@" & cat > /dev/null; kill -KILL $!; wait';

/** @param parent a directory that is there, and goes after `stop` */
export function openSoftwareTpms(parent: string): SoftwareTpms {
  const running: ChildProcess[] = [];
  const starting: Promise<SoftwareTpm>[] = [];
  let stopped = false;

  async function start(directory: string, maker: string): Promise<SoftwareTpm> {
    const socket = join(directory, 's');
    if (Buffer.byteLength(`${socket}.ctrl`) > LONGEST_PATH) {
      throw new Halt('the path of the temporary directory is too long for a socket', 'Set TMPDIR=/tmp and try again.');
    }
    const made = await newMaker(directory, maker);
    const state = join(directory, 'state');
    await mkdir(state);
    await runTool(
      'swtpm_setup',
      [...['--tpm2', '--ecc', '--create-ek-cert', '--overwrite'], ...['--tpmstate', state, '--config', made.config]],
      directory,
    );
    if (stopped) throw new Error('the demo has ended');
    const server = [
      ...['swtpm', 'socket', '--tpm2', '--tpmstate', `dir=${state}`],
      ...['--server', `type=unixio,path=${socket}`, '--ctrl', `type=unixio,path=${socket}.ctrl`],
      ...['--flags', 'not-need-init,startup-clear'],
    ];
    // a group of its own: Ctrl-C is for the demo, which then ends the TPM
    const shell = spawn('sh', ['-c', WITH_US, 'sh', ...server], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    shell.on('error', () => undefined); // no shell: untilItListens says so
    running.push(shell);
    await untilItListens(socket);
    const [root, issuer] = await Promise.all([readFile(made.root, 'utf8'), readFile(made.issuer, 'utf8')]);
    return { tcti: `swtpm:path=${socket}`, root, issuer };
  }

  return {
    async start(maker) {
      if (stopped) throw new Error('the demo has ended');
      const directory = join(parent, `tpm-${starting.length + 1}`);
      await mkdir(directory);
      const started = start(directory, maker);
      starting.push(started);
      return started;
    },
    async stop() {
      stopped = true;
      await Promise.allSettled(starting);
      await Promise.all(running.map(end));
    },
  };
}

interface Maker {
  /** Configuration of swtpm_setup. */
  config: string;
  root: string;
  issuer: string;
}

/** swtpm_localca makes the authority's keys when the first certificate is asked for. */
async function newMaker(directory: string, name: string): Promise<Maker> {
  const [options, authority, config] = ['ca.options', 'ca.conf', 'setup.conf'].map((file) => join(directory, file)) as [
    string,
    string,
    string,
  ];
  const issuer = join(directory, 'issuer.pem');
  const write = (path: string, ...lines: string[]) => writeFile(path, `${lines.join('\n')}\n`);
  await write(options, `--platform-manufacturer ${name}`, '--platform-version 1.0', '--platform-model swtpm');
  await write(
    authority,
    `statedir = ${directory}`,
    `signingkey = ${join(directory, 'signkey.pem')}`,
    `issuercert = ${issuer}`,
    `certserial = ${join(directory, 'serial')}`,
  );
  await write(
    config,
    `create_certs_tool = ${await findCommand('swtpm_localca')}`,
    `create_certs_tool_config = ${authority}`,
    `create_certs_tool_options = ${options}`,
    'active_pcr_banks = sha256',
  );
  return { config, issuer, root: join(directory, 'swtpm-localca-rootca-cert.pem') };
}

async function findCommand(name: string): Promise<string> {
  const places = [...(process.env.PATH ?? '').split(delimiter), '/usr/share/swtpm'];
  for (const place of places.filter((each) => each !== '')) {
    const path = join(place, name);
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  throw await missing(name);
}

/** @param temporary where it may leave files, if it is interrupted */
async function runTool(command: string, args: readonly string[], temporary: string): Promise<void> {
  try {
    await promisify(execFile)(command, args, { timeout: MADE_WITHIN, env: { ...process.env, TMPDIR: temporary } });
  } catch (error) {
    const { code, stdout = '', stderr = '' } = error as Error & { code?: unknown; stdout?: string; stderr?: string };
    if (code === 'ENOENT') throw await missing(command);
    const said = `${stdout}\n${stderr}`.trim().split('\n').at(-1) ?? '';
    throw new Halt(`${command} could not make a TPM: ${said}`, 'Does `swtpm_setup` work on this machine otherwise?');
  }
}

async function missing(command: string): Promise<Halt> {
  const library = await installHintHere('swtpm');
  return new Halt(
    `${command} is not installed`,
    `The software TPM is swtpm: apt install ${PACKAGES}. It is talked to through tpm2-tss: ${library}`,
  );
}

async function untilItListens(socket: string): Promise<void> {
  const deadline = performance.now() + READY_WITHIN;
  while (performance.now() < deadline) {
    const listens = await new Promise<boolean>((resolve) => {
      const client = connect(socket);
      client.once('error', () => resolve(false));
      client.once('connect', () => {
        client.destroy();
        resolve(true);
      });
    });
    if (listens) return;
    await sleep(10);
  }
  throw new Halt('swtpm did not start', `Is it installed? On Debian and Ubuntu: apt install ${PACKAGES}`);
}

async function end(shell: ChildProcess): Promise<void> {
  if (shell.exitCode !== null || shell.signalCode !== null || shell.pid === undefined) return;
  await new Promise<void>((resolve) => {
    shell.once('exit', () => resolve());
    shell.stdin?.end();
  });
}
