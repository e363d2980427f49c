/**
 * A TPM 2.0 of the test's own: swtpm on a unix socket, manufactured with endorsement keys (RSA-2048, P-384, P-256) whose
 * certificates come from a certificate authority of this process. TPMs and CAs live in one short-named directory that goes
 * when the process ends, however it ends.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

export const skipTpm: boolean = (process.env.ATTESTED_SKIP ?? '').split(',').includes('tpm');

export interface SwtpmOptions {
  /** Endorsement keys that no other TPM of this process has; costs a second. Default: a copy of one TPM, same keys and NV. */
  fresh?: boolean;
  /** Name of the certificate authority; TPMs of one name share it. Another name is a maker that nobody knows. */
  maker?: string;
}

export interface Swtpm {
  /**
   * For `openEsys` and the key provider. Every command is a connection of its own, so several processes may take turns; at the
   * same time they need `startRelay`.
   */
  tcti: string;
  /** The TPM's own directory: its state, its socket, and room for a test's files. */
  directory: string;
  socket: string;
  /** DER certificates of the CA: the anchor, and the issuer of the EK certificates. */
  roots: { root: Uint8Array; issuer: Uint8Array };
  /** Of the swtpm process; another one after a restart. */
  readonly pid: number;
  /** A power cut: SIGKILL, no TPM2_Shutdown. */
  kill(): Promise<void>;
  /** Power back on, with the same state; a running TPM is cut off first. `clean` sends it TPM2_Shutdown(CLEAR) before. */
  restart(options?: { clean?: boolean }): Promise<void>;
  /** It takes commands and does not answer, until {@link thaw}. */
  freeze(): void;
  thaw(): void;
  /** The end of this TPM and its directory. */
  stop(): Promise<void>;
  /** Runs a tpm2-tools command on this TPM, in its directory; gives the standard output. Rejects on another exit code than 0. */
  tools(command: string, ...args: string[]): Promise<string>;
}

const run = promisify(execFile);

export async function startSwtpm(options: SwtpmOptions = {}): Promise<Swtpm> {
  const { fresh = false, maker = 'maker' } = options;
  const ca = await certificateAuthority(maker);
  const directory = newDirectory();
  if (fresh) await manufacture(ca, directory);
  else cpSync(await template(ca), join(directory, 'state'), { recursive: true });
  let server = await powerOn(directory);
  const socket = socketOf(directory);
  const tools = toolsOf(directory);
  return {
    tcti: tctiOf(directory),
    directory,
    socket,
    roots: { root: der(join(ca, 'swtpm-localca-rootca-cert.pem')), issuer: der(join(ca, 'issuercert.pem')) },
    get pid() {
      return server.pid as number;
    },
    kill: () => powerOff(directory, server),
    async restart({ clean = false } = {}) {
      if (clean) await tools('tpm2_shutdown', '-c');
      await powerOff(directory, server);
      server = await powerOn(directory);
    },
    freeze: () => void server.kill('SIGSTOP'),
    thaw: () => void server.kill('SIGCONT'),
    async stop() {
      await powerOff(directory, server);
      rmSync(directory, { recursive: true, force: true });
    },
    tools,
  };
}

const socketOf = (directory: string) => join(directory, 's');
const tctiOf = (directory: string) => `swtpm:path=${socketOf(directory)}`;
const der = (pem: string) => new Uint8Array(new X509Certificate(readFileSync(pem)).raw);

function toolsOf(directory: string): Swtpm['tools'] {
  const env = { ...process.env, TPM2TOOLS_TCTI: tctiOf(directory) };
  return async (command, ...args) => (await run(command, args, { cwd: directory, env, timeout: 30_000 })).stdout;
}

let base: string | undefined;
let count = 0;

function newDirectory(): string {
  base ??= guardedDirectory();
  count += 1;
  const directory = join(base, String(count));
  mkdirSync(directory);
  return directory;
}

/** A directory that a process of its own removes, with the TPMs in it, once this one is gone: its pipe ends then. */
function guardedDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'tpm-')); // short: a socket's path has room for 107 bytes
  const afterwards =
    'cat > /dev/null; for pid in "$1"/*/pid; do [ -s "$pid" ] && kill -KILL "$(cat "$pid")"; done; rm -rf -- "$1"';
  const guard = spawn('sh', ['-c', afterwards, 'sh', directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  guard.unref();
  (guard.stdin as unknown as { unref(): void }).unref();
  return directory;
}

async function powerOn(directory: string): Promise<ChildProcess> {
  const socket = socketOf(directory);
  const server = spawn(
    'swtpm',
    [
      'socket',
      '--tpm2',
      ...['--tpmstate', `dir=${join(directory, 'state')}`],
      ...['--server', `type=unixio,path=${socket}`],
      ...['--ctrl', `type=unixio,path=${socket}.ctrl`],
      ...['--pid', `file=${join(directory, 'pid')}`],
      ...['--flags', 'not-need-init,startup-clear'],
    ],
    { cwd: directory, stdio: 'ignore' },
  );
  server.on('error', () => undefined); // no such command: untilReady says so
  server.unref();
  await untilReady(socket, server);
  return server;
}

async function powerOff(directory: string, server: ChildProcess): Promise<void> {
  if (server.exitCode === null && server.signalCode === null) {
    server.ref();
    await new Promise<void>((resolve) => {
      server.once('exit', () => resolve());
      server.kill('SIGKILL'); // ends a stopped process too
    });
  }
  for (const left of ['pid', 's', 's.ctrl']) rmSync(join(directory, left), { force: true });
}

async function untilReady(socket: string, server: ChildProcess): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (performance.now() < deadline) {
    if (server.pid === undefined) throw new Error('no swtpm: install it, or set ATTESTED_SKIP=tpm');
    if (server.exitCode !== null || server.signalCode !== null) throw new Error(`swtpm ended with ${server.exitCode}`);
    const listens = await new Promise<boolean>((resolve) => {
      const client = connect(socket);
      client.once('error', () => resolve(false));
      client.once('connect', () => {
        client.destroy();
        resolve(true);
      });
    });
    if (listens) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error('swtpm did not listen within ten seconds');
}

const authorities = new Map<string, Promise<string>>();
const templates = new Map<string, Promise<string>>();

/** The directory of a CA; swtpm_localca makes its keys when the first certificate is asked for. */
function certificateAuthority(maker: string): Promise<string> {
  const known = authorities.get(maker) ?? Promise.resolve(newAuthority(maker));
  authorities.set(maker, known);
  return known;
}

function newAuthority(maker: string): string {
  const ca = newDirectory();
  writeFileSync(
    join(ca, 'localca.conf'),
    [
      `statedir = ${ca}`,
      `signingkey = ${join(ca, 'signkey.pem')}`,
      `issuercert = ${join(ca, 'issuercert.pem')}`,
      `certserial = ${join(ca, 'certserial')}`,
    ].join('\n'),
  );
  writeFileSync(
    join(ca, 'localca.options'),
    [`--platform-manufacturer ${maker}`, '--platform-version 1.0', '--platform-model swtpm'].join('\n'),
  );
  writeFileSync(
    join(ca, 'setup.conf'),
    [
      'create_certs_tool = /usr/bin/swtpm_localca',
      `create_certs_tool_config = ${join(ca, 'localca.conf')}`,
      `create_certs_tool_options = ${join(ca, 'localca.options')}`,
      'active_pcr_banks = sha1,sha256,sha384',
    ].join('\n'),
  );
  return ca;
}

/** The state of a TPM that others are copies of. */
function template(ca: string): Promise<string> {
  const known = templates.get(ca) ?? manufacture(ca, newDirectory());
  templates.set(ca, known);
  return known;
}

/** As a maker does it: endorsement keys, their certificates in NV. Gives the state directory, of a TPM that is off. */
async function manufacture(ca: string, directory: string): Promise<string> {
  const state = join(directory, 'state');
  mkdirSync(state);
  await run(
    'swtpm_setup',
    [
      ...['--tpm2', '--ecc', '--overwrite', '--lock-nvram'],
      ...['--create-ek-cert', '--create-platform-cert'],
      ...['--tpmstate', state, '--config', join(ca, 'setup.conf')],
    ],
    { timeout: 60_000 },
  );
  await certifyP256(ca, directory);
  return state;
}

/** swtpm_setup certifies RSA-2048 and P-384 only, and many TPMs have a P-256 endorsement key: the CA certifies this one too. */
async function certifyP256(ca: string, directory: string): Promise<void> {
  const server = await powerOn(directory);
  const tools = toolsOf(directory);
  await tools('tpm2_createek', '-G', 'ecc', '-c', 'ek.ctx', '-f', 'pem', '-u', 'ek.pem');
  const { x, y } = createPublicKey(readFileSync(join(directory, 'ek.pem'))).export({ format: 'jwk' });
  const hex = (coordinate: string | undefined) => Buffer.from(coordinate ?? '', 'base64url').toString('hex');
  await run('swtpm_localca', [
    ...['--type', 'ek', '--tpm2', '--ek', `x=${hex(x)},y=${hex(y)},id=secp256r1`, '--dir', directory],
    ...['--configfile', join(ca, 'localca.conf'), '--optsfile', join(ca, 'localca.options')],
    ...['--tpm-spec-family', '2.0', '--tpm-spec-level', '0', '--tpm-spec-revision', '164'],
    ...['--tpm-manufacturer', 'id:00001014', '--tpm-model', 'swtpm', '--tpm-version', 'id:20191023'],
  ]);
  const size = String(readFileSync(join(directory, 'ek.cert')).length);
  await tools('tpm2_nvdefine', '0x01c0000a', '-C', 'o', '-s', size, '-a', 'ownerwrite|ownerread|authread|no_da');
  await tools('tpm2_nvwrite', '0x01c0000a', '-C', 'o', '-i', 'ek.cert');
  await tools('tpm2_shutdown', '-c');
  await powerOff(directory, server);
  for (const left of ['ek.ctx', 'ek.pem', 'ek.cert']) rmSync(join(directory, left));
}
