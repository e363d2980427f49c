// What every command needs first: the locked dependencies, and the pinned Node that then runs everything else.
// Plain JavaScript, because it starts on whatever Node (>= 20) the user has. Progress goes to stderr, one line each,
// so that stdout carries only what the command itself prints.
//
//   node scripts/prepare.mjs [--build] [--peers]
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, 'node_modules');
const bin = join(modules, '.bin');
export const node = join(bin, 'node');

const readJson = (path) => JSON.parse(readFileSync(join(root, path), 'utf8'));
const otherPaths = (process.env.PATH ?? '').split(delimiter).filter((path) => resolve(path) !== bin);
// What a test or the demo starts as `node` is the pinned one too.
export const env = { ...process.env, PATH: [bin, ...otherPaths].join(delimiter) };
// npm replaces node_modules, so it must not run on the Node that lies in there.
const npmEnv = { ...process.env, PATH: otherPaths.join(delimiter) };

export const say = (line) => process.stderr.write(`attested: ${line}\n`);

export function fail(line) {
  say(line);
  process.exit(1);
}

/** Runs a command whose output is progress (to stderr); true when it succeeded. */
export function succeeds(command, args, options = {}) {
  return spawnSync(command, args, { cwd: root, env, stdio: ['ignore', 2, 2], ...options }).status === 0;
}

/** Runs a script with the pinned Node as if it were this process: same streams, signals passed on. Gives its exit code. */
export function runNode(args, options = {}) {
  const child = spawn(node, args, { cwd: root, env, stdio: 'inherit', ...options });
  const passOn = (signal) => child.kill(signal);
  const signals = ['SIGINT', 'SIGTERM'];
  for (const signal of signals) process.on(signal, passOn);
  return new Promise((done) => {
    child.on('error', () => done(127));
    child.on('exit', (code, signal) => {
      for (const each of signals) process.off(each, passOn);
      done(code ?? (signal === 'SIGINT' ? 130 : 1));
    });
  });
}

const npm = (...args) => succeeds('npm', [...args, '--loglevel=error'], { env: npmEnv });

/** True when a folder's node_modules holds what its lock names; optional packages for other machines may be absent. */
function dependenciesMatchLock(folder = '.') {
  const installed = join(root, folder, 'node_modules', '.package-lock.json');
  if (!existsSync(installed)) return false;
  const { packages: present } = JSON.parse(readFileSync(installed, 'utf8'));
  return Object.entries(readJson(join(folder, 'package-lock.json')).packages).every(
    ([path, locked]) =>
      path === '' || (present[path] ? present[path].version === locked.version : locked.optional || locked.peer),
  );
}

function pinnedNodeRuns(version) {
  return spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout?.trim() === `v${version}`;
}

/** The npm package `node` fetches its binary in an install script, which a machine's npm settings may have held back. */
function installPinnedNode(version) {
  if (pinnedNodeRuns(version)) return;
  say(`fetching Node ${version} (npm rebuild node)`);
  npm('rebuild', 'node', '--ignore-scripts=false');
  if (pinnedNodeRuns(version)) return;

  const name = `${process.platform === 'darwin' && process.arch === 'arm64' ? 'node-bin' : 'node'}-${process.platform}-${process.arch}`;
  const cache = join(modules, '.cache', 'node');
  say(`fetching Node ${version} (npm package ${name})`);
  mkdirSync(cache, { recursive: true });
  npm('install', '--no-save', '--no-package-lock', '--prefix', cache, `${name}@${version}`);
  rmSync(node, { force: true });
  symlinkSync(join(cache, 'node_modules', name, 'bin', 'node'), node);
  if (!pinnedNodeRuns(version)) fail(`Node ${version} could not be installed for ${process.platform} ${process.arch}`);
}

export function prepare() {
  if (!dependenciesMatchLock()) {
    say('installing dependencies (npm ci)');
    if (!npm('ci')) fail('npm ci failed');
  }
  installPinnedNode(readJson('package.json').devDependencies.node);
}

/**
 * Installs a folder that has a package and lock of its own, for what is too heavy for our development dependencies. It finds
 * `attested` by its name, as in a project of somebody else.
 */
export function prepareFolder(folder, what) {
  if (!dependenciesMatchLock(folder)) {
    say(`installing ${what} (npm ci in ${folder})`);
    if (!succeeds('npm', ['ci', '--loglevel=error'], { env: npmEnv, cwd: join(root, folder) })) fail('npm ci failed');
  }
  const link = join(root, folder, 'node_modules', 'attested');
  if (!existsSync(link)) symlinkSync(root, link, 'junction');
}

export const preparePeers = () => prepareFolder('peers', 'the frameworks to be tried with');

/** A hash instead of times: a fresh clone and a switched branch have times that say nothing. */
function sourcesHash() {
  const sources = readdirSync(join(root, 'src'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
  const hash = createHash('sha256');
  const settings = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json'].map((name) => join(root, name));
  for (const path of [...sources, ...settings]) {
    hash.update(`${path}\0`).update(readFileSync(path)).update('\0');
  }
  return hash.digest('hex');
}

/** Compiles src/ to dist/ when it changed. The new tree replaces the old one at once, so a running process sees no half of it. */
export function build() {
  const stamp = join(modules, '.cache', 'attested-build');
  const dist = join(root, 'dist');
  const hash = sourcesHash();
  if (existsSync(dist) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return;
  say('building (tsc)');
  const next = join(root, `.dist-${process.pid}`);
  const compiled = succeeds(node, [join(bin, 'tsc'), '-p', 'tsconfig.build.json', '--outDir', next]);
  if (!compiled) {
    rmSync(next, { recursive: true, force: true });
    fail('the build failed');
  }
  const command = join(next, 'cli', 'main.js');
  if (existsSync(command)) chmodSync(command, 0o755);
  rmSync(dist, { recursive: true, force: true });
  renameSync(next, dist);
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, hash);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  prepare();
  if (process.argv.includes('--peers')) preparePeers();
  if (process.argv.includes('--build')) build();
}
