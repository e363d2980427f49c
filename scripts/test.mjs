// npm test: prepare, install the real servers the tests talk to, build, run vitest. Arguments go to vitest.
// The last line is `N passed, N failed[, N skipped]`.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, env, fail, prepare, preparePeers, runNode, say } from './prepare.mjs';

// A part is there when each of its needs is: one of `commands` can be run, or one of `libraries` loaded. Otherwise the first
// of `packages` that this Debian knows is installed (their names differ from release to release).
const parts = [
  {
    name: 'redis',
    needs: [{ commands: ['valkey-server', 'redis-server'], packages: ['valkey-server', 'redis-server'] }],
  },
  {
    name: 'tpm',
    needs: [
      { commands: ['swtpm'], packages: ['swtpm'] },
      { commands: ['swtpm_setup'], packages: ['swtpm-tools'] },
      { commands: ['tpm2_createprimary'], packages: ['tpm2-tools'] },
      { libraries: ['libtss2-esys.so.0'], packages: ['libtss2-esys-3.0.2-0t64', 'libtss2-esys-3.0.2-0'] },
      { libraries: ['libtss2-mu.so.0'], packages: ['libtss2-mu-4.0.1-0t64', 'libtss2-mu-4.0.1-0', 'libtss2-mu0'] },
      { libraries: ['libtss2-rc.so.0'], packages: ['libtss2-rc0t64', 'libtss2-rc0'] },
      { libraries: ['libtss2-tctildr.so.0'], packages: ['libtss2-tctildr0t64', 'libtss2-tctildr0'] },
      { libraries: ['libtss2-tcti-swtpm.so.0'], packages: ['libtss2-tcti-swtpm0t64', 'libtss2-tcti-swtpm0'] },
      { libraries: ['libtss2-tcti-device.so.0'], packages: ['libtss2-tcti-device0t64', 'libtss2-tcti-device0'] },
    ],
  },
  {
    name: 'keychain',
    needs: [
      { commands: ['dbus-daemon'], packages: ['dbus-daemon', 'dbus'] },
      { commands: ['dbus-send'], packages: ['dbus-bin', 'dbus'] },
      { commands: ['gnome-keyring-daemon'], packages: ['gnome-keyring'] },
    ],
  },
];

const has = (command) => spawnSync('sh', ['-c', 'command -v "$1"', 'sh', command]).status === 0;
const loadable = () => spawnSync('sh', ['-c', 'PATH=$PATH:/sbin:/usr/sbin ldconfig -p']).stdout.toString();
const isMet = ({ commands = [], libraries = [] }) =>
  commands.some(has) || libraries.some((name) => loadable().includes(`\t${name} `));
const isPresent = (part) => part.needs.every(isMet);

/** How to run a command as root, or undefined where that would ask for a password. */
function asRoot() {
  if (!has('apt-get')) return undefined;
  if (process.getuid() === 0) return [];
  return spawnSync('sudo', ['-n', 'true']).status === 0 ? ['sudo', '-n'] : undefined;
}

// Debian starts a server's service on installation, unless policy-rc.d says no. The tests start their own, so it says no.
const install = `
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  printf '#!/bin/sh\\nexit 101\\n' > $policy
  chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
packages=
for alternatives in "$@"; do
  for package in $alternatives; do
    if apt-cache show "$package" > /dev/null 2>&1; then
      packages="$packages $package"
      break
    fi
  done
done
apt-get install -y -qq --no-install-recommends $packages`;

function installParts() {
  const wanted = parts.filter((part) => !isPresent(part));
  const root = wanted.length > 0 ? asRoot() : undefined;
  if (root) {
    const needs = wanted.flatMap((part) => part.needs.filter((need) => !isMet(need)));
    const packages = needs.map((need) => need.packages.join(' '));
    say(
      `installing ${wanted.map((part) => part.name).join(', ')} (apt: ${packages.join(', ')}; no service is started)`,
    );
    const [command, ...args] = [...root, 'sh', '-c', install, 'sh', ...packages];
    spawnSync(command, args, { stdio: ['ignore', 'ignore', 2] });
  }
  const missing = parts.filter((part) => !isPresent(part)).map((part) => part.name);
  if (missing.length === 0) return;
  if (env.CI === 'true') fail(`missing, and with CI=true nothing may be skipped: ${missing.join(', ')}`);
  say(`skipping the tests that need ${missing.join(', ')}: not installed, and no right to install it`);
  env.ATTESTED_SKIP = missing.join(',');
}

/** Counts from vitest's report. A file that could not be loaded, or an error outside any test, is a failure too. */
function summary(report, exitCode) {
  const results = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : { testResults: [] };
  const tests = results.testResults.flatMap((file) => file.assertionResults);
  const count = (...states) => tests.filter((test) => states.includes(test.status)).length;
  const brokenFiles = results.testResults.filter(
    (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
  ).length;
  const failed = count('failed') + brokenFiles || (exitCode === 0 ? 0 : 1);
  const skipped = count('skipped', 'pending', 'todo', 'disabled');
  return `${count('passed')} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`;
}

let line = '0 passed, 1 failed'; // what stands when nothing could be run
process.on('exit', () => console.log(`\n${line}`));
prepare();
preparePeers();
installParts();
build();
const folder = mkdtempSync(join(tmpdir(), 'attested-test-'));
const report = join(folder, 'report.json');
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
const exitCode = await runNode(['node_modules/.bin/vitest', 'run', ...reporters, ...process.argv.slice(2)]);
line = summary(report, exitCode);
rmSync(folder, { recursive: true });
process.exitCode = exitCode;
