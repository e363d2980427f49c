// npm test: prepare, install the real servers the tests talk to, build, run vitest. Arguments go to vitest.
// The last line is `N passed, N failed[, N skipped]`.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, env, fail, prepare, runNode, say } from './prepare.mjs';

// A part is there when one of its commands is; otherwise the first package this Debian knows is installed.
const parts = [
  { name: 'redis', commands: ['valkey-server', 'redis-server'], packages: ['valkey-server', 'redis-server'] },
];

const has = (command) => spawnSync('sh', ['-c', 'command -v "$1"', 'sh', command]).status === 0;
const isPresent = (part) => part.commands.some(has);

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
for package in "$@"; do
  if apt-cache show "$package" > /dev/null 2>&1; then
    apt-get install -y -qq --no-install-recommends "$package"
    exit
  fi
done
exit 1`;

function installParts() {
  const root = asRoot();
  for (const part of parts.filter((part) => !isPresent(part))) {
    if (!root) continue;
    say(`installing ${part.name} (apt: ${part.packages.join(' or ')}; its service is not started)`);
    const [command, ...args] = [...root, 'sh', '-c', install, 'sh', ...part.packages];
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
installParts();
build();
const folder = mkdtempSync(join(tmpdir(), 'attested-test-'));
const report = join(folder, 'report.json');
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
const exitCode = await runNode(['node_modules/.bin/vitest', 'run', ...reporters, ...process.argv.slice(2)]);
line = summary(report, exitCode);
rmSync(folder, { recursive: true });
process.exitCode = exitCode;
