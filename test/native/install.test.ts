import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { installHint, libraryVersion } from '../../src/native/tpm2-tss/index.ts';
import { skipTpm } from '../support/swtpm.ts';

const older = 'apt install libtss2-esys-3.0.2-0 libtss2-mu0 libtss2-tctildr0 libtss2-rc0 libtss2-tcti-device0';
const newer =
  'apt install libtss2-esys-3.0.2-0t64 libtss2-mu-4.0.1-0t64 libtss2-tctildr0t64 libtss2-rc0t64 libtss2-tcti-device0t64';
const anything = 'install tpm2-tss with your package manager';

describe('what to install', () => {
  test.each([
    ['Debian 11', 'ID=debian\nVERSION_ID="11"\nVERSION_CODENAME=bullseye\n', older],
    ['Debian 12, Raspberry Pi OS', 'PRETTY_NAME="Debian GNU/Linux 12"\nVERSION_CODENAME=bookworm\nID=debian\n', older],
    ['Debian 13', 'VERSION_ID="13"\nVERSION_CODENAME=trixie\nID=debian\n', newer],
    ['Debian unstable, which has no number', 'ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n', newer],
    ['Ubuntu 22.04', 'ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=jammy\nUBUNTU_CODENAME=jammy\n', older],
    ['Ubuntu 24.04', 'ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n', newer],
    ['Mint 21', 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=vanessa\nUBUNTU_CODENAME=jammy\n', older],
    ['LMDE 6', 'ID=linuxmint\nID_LIKE=debian\nVERSION_CODENAME=faye\nDEBIAN_CODENAME=bookworm\n', older],
    ['Fedora', 'ID=fedora\nVERSION_ID=43\n', 'dnf install tpm2-tss'],
    ['Rocky Linux', 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', 'dnf install tpm2-tss'],
    ['Alpine', 'ID=alpine\n', 'apk add tpm2-tss-esys tpm2-tss-mu tpm2-tss-tctildr tpm2-tss-rc tpm2-tss-tcti-device'],
    ['Arch', 'ID=arch\n', 'pacman -S tpm2-tss'],
    [
      'openSUSE',
      'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n',
      'zypper install libtss2-esys0 libtss2-mu0 libtss2-tctildr0 libtss2-rc0 libtss2-tcti-device0',
    ],
    ['a system of its own', 'ID=plan9\n', anything],
    ['no os-release', '', anything],
    ['a name that every object has', 'ID=constructor\nID_LIKE="__proto__ toString"\n', anything],
  ])('%s', (_, osRelease, command) => {
    expect(installHint(osRelease)).toBe(command);
  });

  test('with the TCTI module that was asked for', () => {
    expect(installHint('ID=debian\nVERSION_CODENAME=bookworm\n', 'swtpm')).toMatch(/ libtss2-tcti-swtpm0$/);
    expect(installHint('ID=debian\nVERSION_CODENAME=trixie\n', 'swtpm')).toMatch(/ libtss2-tcti-swtpm0t64$/);
    expect(installHint('ID=debian\nVERSION_CODENAME=trixie\n', 'tabrmd')).toBe('apt install libtss2-tcti-tabrmd0');
  });

  const hasApt = existsSync('/etc/os-release') && spawnSync('apt-cache', ['--version']).status === 0;
  test.skipIf(skipTpm || !hasApt)('this Debian knows every package that is named', () => {
    const packages = installHint(readFileSync('/etc/os-release', 'utf8')).split(' ').slice(2);
    expect(packages).toHaveLength(5);
    for (const name of packages) expect(spawnSync('apt-cache', ['show', name]).status, name).toBe(0);
  });
});

test.skipIf(skipTpm)('the version of the installed tpm2-tss', async () => {
  expect(await libraryVersion()).toMatch(/^\d+\.\d+/);
});
