/** What to type where tpm2-tss is missing, and which version is there. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

/** Debian's names carry the libraries' binary interfaces; since the change of time_t to 64 bits also that. */
const older = (tcti: string) =>
  `apt install libtss2-esys-3.0.2-0 libtss2-mu0 libtss2-tctildr0 libtss2-rc0 libtss2-tcti-${tcti}0`;
const newer = (tcti: string) =>
  `apt install libtss2-esys-3.0.2-0t64 libtss2-mu-4.0.1-0t64 libtss2-tctildr0t64 libtss2-rc0t64 libtss2-tcti-${tcti}0t64`;
const OLDER_RELEASES = /^(buster|bullseye|bookworm|focal|jammy)$/;

type Release = Record<string, string>;

/** By ID of os-release, then by ID_LIKE. */
const commands: Record<string, (tcti: string, release: Release) => string> = {
  debian: (tcti, release) => {
    const codename = release.UBUNTU_CODENAME ?? release.DEBIAN_CODENAME ?? release.VERSION_CODENAME ?? '';
    return OLDER_RELEASES.test(codename) ? older(tcti) : newer(tcti);
  },
  fedora: () => 'dnf install tpm2-tss',
  rhel: () => 'dnf install tpm2-tss',
  suse: (tcti) => `zypper install libtss2-esys0 libtss2-mu0 libtss2-tctildr0 libtss2-rc0 libtss2-tcti-${tcti}0`,
  alpine: (tcti) => `apk add tpm2-tss-esys tpm2-tss-mu tpm2-tss-tctildr tpm2-tss-rc tpm2-tss-tcti-${tcti}`,
  arch: () => 'pacman -S tpm2-tss',
};

/** The module for the resource manager in user space is no part of tpm2-tss, but of that manager. */
const brokers: Record<string, string> = {
  debian: 'apt install libtss2-tcti-tabrmd0',
  fedora: 'dnf install tpm2-abrmd',
  rhel: 'dnf install tpm2-abrmd',
  suse: 'zypper install libtss2-tcti-tabrmd0',
  arch: 'pacman -S tpm2-abrmd',
};

/**
 * The command that installs tpm2-tss and one TCTI module.
 *
 * @param osRelease the text of /etc/os-release
 * @param tcti `device`, `swtpm`, `tabrmd` …
 */
export function installHint(osRelease: string, tcti = 'device'): string {
  const release: Release = Object.fromEntries(
    osRelease.split('\n').flatMap((line) => {
      const [, name, value] = /^([A-Z_]+)=["']?(.*?)["']?\s*$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value]];
    }),
  );
  const names = [release.ID ?? '', ...(release.ID_LIKE ?? '').split(' ')];
  const known = names
    .map((name) => (name === 'ubuntu' ? 'debian' : name))
    .find((name) => Object.hasOwn(commands, name));
  if (known === undefined) return 'install tpm2-tss with your package manager';
  const broker = tcti === 'tabrmd' ? brokers[known] : undefined;
  return broker ?? (commands[known] as (typeof commands)[string])(tcti, release);
}

/** {@link installHint} for this machine. */
export async function installHintHere(tcti?: string): Promise<string> {
  if (process.platform === 'win32') return 'install tpm2-tss and put its DLLs on the PATH';
  if (process.platform === 'darwin') return 'brew install tpm2-tss';
  return installHint(await readFile('/etc/os-release', 'utf8').catch(() => ''), tcti);
}

/** The libraries do not tell their version; the package manager that installed them does. */
const questions: readonly (readonly [command: string, ...args: string[]])[] = [
  ['dpkg-query', '-W', 'libtss2-esys*'],
  ['rpm', '-q', '--qf', 'tpm2-tss %{VERSION}\\n', 'tpm2-tss'],
  ['apk', 'list', '-I', 'tpm2-tss-esys'],
  ['pacman', '-Q', 'tpm2-tss'],
];

/** The version of the installed tpm2-tss; undefined where no package manager knows it. */
export async function libraryVersion(): Promise<string | undefined> {
  for (const [command, ...args] of questions) {
    const answer = await promisify(execFile)(command, args, { timeout: 5000 }).catch(() => undefined);
    const version = /^(?:libtss2-esys\S*\t|tpm2-tss-esys-|tpm2-tss )(\d[\w.]*)/m.exec(answer?.stdout ?? '')?.[1];
    if (version !== undefined) return version;
  }
  return undefined;
}
