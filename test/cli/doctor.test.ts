/** `attested doctor` on machines with a TPM, with a keychain, with neither, and with each of the faults it knows. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { findingRows } from '../../src/cli/doctor/findings.ts';
import { relaxations } from '../../src/cli/doctor/relaxations.ts';
import { openKeys } from '../../src/keys/index.ts';
import { issueCertificate } from '../support/certificates.ts';
import { type Keyring, skipKeychain, startKeyring } from '../support/keyring.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { attested, type Ran, spawned, TERMINAL_CONTROL, withoutLineFeeds } from './harness.ts';

let root: string;
let directory: string;
let keyring: Keyring | undefined;
let swtpm: Swtpm | undefined;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'attested-doctor-test-'));
  directory = join(root, 'state');
  vi.stubEnv('DBUS_SESSION_BUS_ADDRESS', 'unix:path=/nonexistent/bus');
  vi.stubEnv('XDG_CONFIG_HOME', join(root, 'config'));
  vi.stubEnv('TPM2TOOLS_TCTI', '');
  vi.stubEnv('TCTI', '');
});
afterEach(async () => {
  vi.unstubAllEnvs();
  swtpm?.thaw();
  await keyring?.stop();
  await swtpm?.stop();
  [keyring, swtpm] = [undefined, undefined];
  await rm(root, { recursive: true, force: true });
});

async function withKeyring(daemon?: 'unlocked' | 'new'): Promise<Keyring> {
  keyring = await startKeyring(daemon);
  for (const [name, value] of Object.entries(keyring.env)) vi.stubEnv(name, value);
  vi.stubEnv('XDG_CONFIG_HOME', join(root, 'config'));
  return keyring;
}

async function withTpm(): Promise<Swtpm> {
  swtpm = await startSwtpm();
  vi.stubEnv('TPM2TOOLS_TCTI', swtpm.tcti);
  return swtpm;
}

interface Examined extends Ran {
  report: {
    exitCode: number;
    findings: { code: string; exit: number; message: string; remedy?: string }[];
    tpm: Record<string, unknown>;
    keychain: Record<string, unknown>;
    files: Record<string, unknown>;
    directory: Record<string, unknown>;
    choice: { kind?: string; why: string };
    clock: Record<string, unknown>;
    node: Record<string, unknown>;
  };
  codes: string[];
}

async function doctor(argv: string[] = [], options: { at?: number } = {}): Promise<Examined> {
  const scratch = await mkdtemp(join(root, 'scratch-')); // where the doctor works
  const usual = process.env.TMPDIR ?? tmpdir();
  process.env.TMPDIR = scratch;
  const call = ['doctor', '--json', '--dir', directory, '--timeout', '2', ...argv];
  const ran = await attested(call, options).finally(() => {
    process.env.TMPDIR = usual;
  });
  expect(ran.err).toBe('');
  const report = JSON.parse(ran.out) as Examined['report'];
  expect(ran.code).toBe(report.exitCode);
  expect(report.exitCode).toBe(report.findings[0]?.exit ?? 0);
  expect(await readdir(scratch)).toEqual([]);
  return { ...ran, report, codes: report.findings.map(({ code }) => code) };
}

/** The same decision as the library's. */
async function auto(): Promise<string> {
  const keys = await openKeys('auto', { directory: join(root, 'another') });
  await keys.close();
  return keys.kind;
}

describe('with neither TPM nor keychain', () => {
  // a developer's own TPM is none of the test's business
  const hasOwn = existsSync('/dev/tpmrm0');

  test.skipIf(hasOwn)('says so, and that keys go to files', async () => {
    const { report, codes } = await doctor();
    expect(report.tpm).toMatchObject({ state: 'absent', message: expect.stringContaining('/dev/tpmrm0') });
    expect(report.keychain).toMatchObject({ state: 'unavailable', message: expect.stringContaining('D-Bus') });
    expect(report.files).toMatchObject({ signature: expect.any(Number) });
    expect(report.choice).toMatchObject({ kind: 'software', why: expect.stringContaining('not keychain') });
    expect(report.choice.kind).toBe(await auto());
    expect(codes).toEqual(['files_only']);
    expect(report.exitCode).toBe(30);
    expect(existsSync(directory)).toBe(false);
  });

  test.skipIf(skipTpm).each([
    ['device:/nonexistent/tpmrm0', /no TPM: there is no \/nonexistent\/tpmrm0/],
    ['swtpm:path=/nonexistent/socket', /nothing answers where the TCTI points/],
    ['nonsense:somewhere', /there is no such TCTI/],
  ])('a TPM that is named, %s, and is not there: no matter of permission', async (tcti, words) => {
    for (const from of ['option', 'environment']) {
      vi.stubEnv('TCTI', from === 'environment' ? tcti : undefined);
      const { report, codes } = await doctor(from === 'option' ? ['--tcti', tcti] : []);
      expect(codes).toEqual(['tpm_no_answer', 'files_only']);
      expect(report.findings[0]!.message).toMatch(words);
      expect(report.findings[1]!.message).toContain('can be used');
    }
  });

  test('Node and clock as they should be', async () => {
    const { report } = await doctor();
    expect(report.node).toEqual({ version: process.versions.node, needed: expect.stringMatching(/^>=/) });
    expect(report.clock).toMatchObject({ now: expect.stringMatching(/Z$/), newest: { path: expect.any(String) } });
  });

  test('a clock behind files that are there is found', async () => {
    const { report, codes } = await doctor([], { at: Math.floor(Date.now() / 1000) - 3 * 3600 * 24 * 365 });
    expect(codes).toContain('clock_wrong');
    expect(report.exitCode).toBe(11);
    await mkdir(directory);
    await utimes(directory, new Date(), new Date(Date.now() + 3_600_000));
    expect((await doctor()).codes).toContain('clock_wrong');
  });

  test('keys in files: counted, not changed; damaged ones are found', async () => {
    const keys = await openKeys('software', { directory });
    const { thumbprint } = await keys.createKey({ label: 'its label' });
    await keys.secrets.set('a secret', Buffer.from('a refresh token'));
    await keys.close();
    const before = await contentOf(directory);
    const { report, codes, out } = await doctor();
    expect(report.directory).toEqual({ path: directory, backend: 'software', keys: 1, message: 'its keys open' });
    expect(codes).toEqual(['files_only']);
    expect(await contentOf(directory)).toEqual(before);
    for (const secret of ['a refresh token', thumbprint, 'its label']) expect(out).not.toContain(secret);

    const store = join(directory, 'software-keys');
    const [file] = (await readdir(store)).filter((name) => name.endsWith('.key.json'));
    await writeFile(join(store, file!), '{}');
    const damaged = await doctor();
    expect(damaged.codes).toEqual(['store_damaged']);
    expect(damaged.report.choice.kind).toBeUndefined();
  });

  test('keys under a passphrase are locked, and that is as it should be', async () => {
    const keys = await openKeys('software', { directory, passphrase: 'correct horse', scryptLog2N: 14 });
    await keys.createKey({ label: 'a key' });
    await keys.close();
    const { report, codes, out } = await doctor();
    expect(report.directory).toMatchObject({ backend: 'software', message: expect.stringContaining('passphrase') });
    expect(report.choice.kind).toBe('software');
    expect(codes).toEqual(['files_only']);
    expect(out).not.toContain('correct horse');
  });

  test('a directory that cannot be used', async () => {
    await writeFile(directory, 'a file in the way');
    const { report, codes } = await doctor();
    expect(codes).toEqual(['directory_unusable']);
    expect(report.choice.kind).toBeUndefined();
  });

  test('a directory that others may write', async () => {
    const keys = await openKeys('software', { directory });
    await keys.createKey({ label: 'a key' });
    await keys.close();
    await chmod(directory, 0o777);
    const { report, codes } = await doctor();
    expect(codes).toEqual(['directory_unusable']);
    expect(report.findings[0]!.message).toContain('chmod go-w');
  });
});

describe.skipIf(skipTpm)('with a TPM', () => {
  test('all is well', async () => {
    const { tools } = await withTpm();
    const persistent = await tools('tpm2_getcap', 'handles-persistent');
    const { report, codes, code } = await doctor();
    expect(codes).toEqual([]);
    expect(code).toBe(0);
    expect(report.tpm).toMatchObject({
      state: 'works',
      tcti: swtpm!.tcti,
      managed: false,
      library: { loads: true },
      signature: expect.any(Number),
      description: {
        family: '2.0',
        manufacturer: { name: expect.stringMatching(/swtpm|IBM/) },
        algorithms: expect.arrayContaining(['ES256', 'PS256']),
        lockout: { locked: false },
      },
    });
    expect(report.choice.kind).toBe('tpm');
    expect(await auto()).toBe('tpm');
    // nothing stays in it
    expect(await tools('tpm2_getcap', 'handles-transient')).toBe('');
    expect(await tools('tpm2_getcap', 'handles-persistent')).toBe(persistent);
  });

  test('in words: maker, certificates, latency, no control characters', async () => {
    await withTpm();
    const { out, code } = await attested(['doctor', '--dir', directory, '--timeout', '2']);
    expect(code).toBe(0);
    for (const words of [
      /TPM {8}works, through swtpm:path=/,
      /TPM 2\.0 revision 1\.\d\d, /,
      /keys for ES256, .*slots free/,
      /lock-out: 0 of \d+ failures/,
      /endorsement certificate P-256: .*, without end/,
      /tpm2-tss /,
      /ms for an ES256 signature/,
      /openKeys\('auto'\) takes tpm/,
      /All well\./,
    ]) {
      expect(out).toMatch(words);
    }
    expect(withoutLineFeeds(out)).not.toMatch(TERMINAL_CONTROL);
    for (const { option } of relaxations) expect(out).toContain(option);
  });

  test('one that is gone, while the keys are in it', async () => {
    const { kill } = await withTpm();
    const keys = await openKeys('auto', { directory });
    await keys.createKey({ label: 'a key' });
    await keys.close();
    expect((await doctor()).report).toMatchObject({ exitCode: 0, directory: { backend: 'tpm', keys: 1 } });
    await kill();
    const { report, codes } = await doctor();
    expect(codes).toEqual(['identity_unreachable', 'tpm_no_answer']);
    expect(report.choice.kind).toBeUndefined();
    expect(report.exitCode).toBe(14);
  });

  test('keys of another TPM', async () => {
    const first = await withTpm();
    const keys = await openKeys('auto', { directory });
    await keys.createKey({ label: 'a key' });
    await keys.close();
    await first.stop();
    swtpm = await startSwtpm({ fresh: true });
    vi.stubEnv('TPM2TOOLS_TCTI', swtpm.tcti);
    expect((await doctor()).codes).toEqual(['store_damaged']);
  });

  test('an owner password, and no persistent storage key', async () => {
    const { tools } = await withTpm();
    await tools('tpm2_changeauth', '-c', 'o', 'a password');
    const { codes, report } = await doctor();
    expect(codes[0]).toBe('tpm_owner_password');
    expect(report.tpm).toMatchObject({ state: 'unusable', description: { passwords: { owner: true } } });
  });

  test('no endorsement certificate', async () => {
    const { tools } = await withTpm();
    for (const index of ['0x01c00002', '0x01c0000a', '0x01c00016']) {
      await tools('tpm2_nvundefine', '-C', 'p', index);
    }
    const { codes, report } = await doctor();
    expect(codes).toEqual(['ek_certificate_missing']);
    expect(report.exitCode).toBe(27);
  });

  test('certificates that have expired, or are none', async () => {
    const { tools, directory: at } = await withTpm();
    const { der } = issueCertificate({ name: 'an old TPM', notBefore: new Date(0), notAfter: new Date(1000) });
    await writeFile(join(at, 'expired'), der);
    await writeFile(join(at, 'garbage'), 'garbage');
    for (const [index, file] of Object.entries({ '0x01c0000a': 'expired', '0x01c00016': 'garbage' })) {
      await tools('tpm2_nvundefine', '-C', 'p', index);
      const size = String(file === 'expired' ? der.length : 7);
      await tools('tpm2_nvdefine', '-C', 'o', '-s', size, '-a', 'ownerread|ownerwrite|authread|no_da', index);
      await tools('tpm2_nvwrite', '-C', 'o', '-i', file, index);
    }
    const { codes, report } = await doctor();
    expect(codes).toEqual(['ek_certificate_bad', 'ek_certificate_bad']);
    expect(report.findings.map(({ message }) => message)).toEqual([
      expect.stringMatching(/P-256.*expired/),
      expect.stringMatching(/P-384.*no X\.509 certificate/),
    ]);
  });

  test('keys in files though there is a TPM: how to move up', async () => {
    const keys = await openKeys('software', { directory });
    await keys.createKey({ label: 'a key' });
    await keys.close();
    await withTpm();
    const { report, codes } = await doctor();
    expect(codes).toEqual(['files_only']);
    expect(report.findings[0]!.remedy).toContain("openKeys('tpm', { directory })");
    expect(report.choice.kind).toBe('software');
  });

  test('--tcti names another one, or none', async () => {
    await withTpm();
    const { codes, report } = await doctor(['--tcti', 'swtpm:path=/nonexistent/socket']);
    expect(codes[0]).toBe('tpm_no_answer');
    expect(report.tpm.state).toBe('unusable');
  });
});

describe.skipIf(skipKeychain)('with a keychain', () => {
  const noTpm = ['--tcti', 'device:/nonexistent/tpm'];

  test('it works, and nothing of the doctor stays in it', async () => {
    const { home } = await withKeyring();
    const { report, codes } = await doctor();
    expect(report.keychain).toEqual({
      state: 'works',
      message: 'works',
      reading: expect.any(Number),
      signature: expect.any(Number),
    });
    expect(report.choice.kind).toBe(await auto());
    if (report.tpm.state === 'absent') expect(codes).toEqual(['not_hardware']);
    const kept = await readFile(join(home, 'data/keyrings/login.keyring'));
    expect(kept.includes('attested doctor')).toBe(false);
    expect(await entriesOf('attested doctor', keyring!)).toBe('');
  });

  test('locked: auto would refuse', async () => {
    const { lock } = await withKeyring();
    await doctor(noTpm); // there is a collection now
    await lock();
    const { report, codes } = await doctor(noTpm);
    expect(report.keychain).toMatchObject({ state: 'locked' });
    expect(report.choice).toEqual({ why: expect.stringContaining('locked') });
    expect(codes).toContain('keychain_locked');
  });

  test('frozen: the doctor does not wait for ever', async () => {
    const { freeze } = await withKeyring();
    freeze('bus');
    const begun = performance.now();
    const { report } = await doctor(noTpm);
    expect(report.keychain).toMatchObject({ state: 'locked', message: expect.stringContaining('within 2 s') });
    expect(performance.now() - begun).toBeLessThan(10_000);
  });

  test('keys in it that cannot be reached', async () => {
    const { kill } = await withKeyring();
    const keys = await openKeys('keychain', { directory });
    await keys.createKey({ label: 'a key' });
    await keys.close();
    expect((await doctor(noTpm)).report.directory).toMatchObject({ backend: 'keychain', keys: 1 });
    await kill();
    const { codes } = await doctor(noTpm);
    expect(codes[0]).toBe('identity_unreachable');
  });
});

describe('the command', () => {
  test('as a process: it ends, with the exit code of its worst finding', async () => {
    const { code, out } = await spawned(['doctor', '--json', '--dir', directory]);
    expect(code).toBe(JSON.parse(out).exitCode);
  });

  test('its help has every finding with its exit code, and each code is there once', async () => {
    const { out } = await attested(['doctor', '--help']);
    const rows = findingRows();
    for (const { exit, code } of rows) expect(out).toMatch(new RegExp(`${exit}  ${code} `));
    expect(new Set(rows.map(({ exit }) => exit)).size).toBe(rows.length);
    const docs = await readFile(join(import.meta.dirname, '../../docs/agents.md'), 'utf8');
    for (const { exit, code } of rows) expect(docs).toContain(`| ${exit} | \`${code}\` |`);
  });

  test.each([
    [['doctor', 'x'], 'options only'],
    [['doctor', '--timeout', '0'], '--timeout must be'],
    [['doctor', '--timeout', 'soon'], '--timeout must be'],
  ])('%j is a wrong call', async (argv, words) => {
    const { code, err } = await attested(argv);
    expect(code).toBe(2);
    expect(err).toContain(words);
  });

  test('every relaxation that it lists is an option that there is', async () => {
    const src = join(import.meta.dirname, '../../src');
    const files = (await readdir(src, { recursive: true })).filter(
      (name) => name.endsWith('.ts') && !name.startsWith('cli'),
    );
    const text = (await Promise.all(files.map((name) => readFile(join(src, name), 'utf8')))).join('\n');
    for (const { option } of relaxations) {
      const [name, value] = option.split(': ');
      expect(text).toMatch(new RegExp(`\\b${name}\\??:`));
      if (value?.startsWith("'")) expect(text).toContain(value);
    }
  });
});

async function contentOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  return Promise.all(files.sort().map(async (path) => `${path} ${await readFile(path, 'base64')}`));
}

/** Accounts, as a process of its own sees them. */
async function entriesOf(service: string, { env }: Keyring): Promise<string> {
  const program = `const { findCredentials } = require('@napi-rs/keyring');
    console.log(findCredentials(process.argv[1]).map(({ account }) => account).join());`;
  const options = { env: { ...process.env, ...env } };
  return (await promisify(execFile)(process.execPath, ['-e', program, service], options)).stdout.trim();
}
