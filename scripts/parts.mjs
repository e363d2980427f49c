// The real parts of a machine that tests and demo talk to (a TPM, a keychain, Redis): which are there, and how Debian has the others.
import { spawnSync } from 'node:child_process';
import { say } from './prepare.mjs';

// A part is there when each of its needs is: one of `commands` can be run, or one of `libraries` loaded. Otherwise the first
// of `packages` that this Debian knows is installed (their names differ from release to release).
const redis = {
  name: 'redis',
  needs: [{ commands: ['valkey-server', 'redis-server'], packages: ['valkey-server', 'redis-server'] }],
};

/** swtpm, and the TSS to talk to it. */
export const softwareTpm = {
  name: 'swtpm',
  needs: [
    { commands: ['swtpm'], packages: ['swtpm'] },
    { commands: ['swtpm_setup'], packages: ['swtpm-tools'] },
    { libraries: ['libtss2-esys.so.0'], packages: ['libtss2-esys-3.0.2-0t64', 'libtss2-esys-3.0.2-0'] },
    { libraries: ['libtss2-mu.so.0'], packages: ['libtss2-mu-4.0.1-0t64', 'libtss2-mu-4.0.1-0', 'libtss2-mu0'] },
    { libraries: ['libtss2-rc.so.0'], packages: ['libtss2-rc0t64', 'libtss2-rc0'] },
    { libraries: ['libtss2-tctildr.so.0'], packages: ['libtss2-tctildr0t64', 'libtss2-tctildr0'] },
    { libraries: ['libtss2-tcti-swtpm.so.0'], packages: ['libtss2-tcti-swtpm0t64', 'libtss2-tcti-swtpm0'] },
  ],
};

const tpm = {
  name: 'tpm',
  needs: [
    ...softwareTpm.needs,
    { commands: ['tpm2_createprimary'], packages: ['tpm2-tools'] },
    { libraries: ['libtss2-tcti-device.so.0'], packages: ['libtss2-tcti-device0t64', 'libtss2-tcti-device0'] },
  ],
};

const keychain = {
  name: 'keychain',
  needs: [
    { commands: ['dbus-daemon'], packages: ['dbus-daemon', 'dbus'] },
    { commands: ['dbus-send'], packages: ['dbus-bin', 'dbus'] },
    { commands: ['gnome-keyring-daemon'], packages: ['gnome-keyring'] },
  ],
};

export const testParts = [redis, tpm, keychain];

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

/** Installs, where that is allowed without a password. Gives those that are missing afterwards. */
export function installParts(parts) {
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
  return parts.filter((part) => !isPresent(part));
}

/** One package for each need that is not met: the newest name, which other releases have otherwise. */
export function packagesFor({ needs }) {
  return needs.filter((need) => !isMet(need)).map((need) => need.packages[0]);
}
