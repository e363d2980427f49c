/** The whole examination, and what `openKeys('auto')` would make of it. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KeyBackend } from '../../keys/backend.ts';
import { type ClockReport, examineClock } from './clock.ts';
import { type DirectoryReport, examineDirectory, measureFiles } from './directory.ts';
import { exitCodeOf, type Finding, finding, sortFindings } from './findings.ts';
import { examineKeychain, type KeychainReport } from './keychain.ts';
import { type Relaxation, relaxations } from './relaxations.ts';
import { examineTpm, type TpmReport } from './tpm.ts';

export interface Request {
  directory: string;
  tcti: string | undefined;
  /** Milliseconds for each call to the keychain. */
  keychainTimeout: number;
  /** Milliseconds since the epoch. */
  now: number;
}

export interface Choice {
  /** Absent: `openKeys('auto')` would refuse. */
  kind?: KeyBackend;
  why: string;
}

export interface Report {
  /** The worst finding's, or 0. */
  exitCode: number;
  /** From the worst on. */
  findings: readonly Finding[];
  node: { version: string; needed: string };
  clock: ClockReport;
  tpm: TpmReport;
  keychain: KeychainReport;
  /** Keys in files: milliseconds for an ES256 signature. */
  files: { signature: number } | { message: string };
  directory: DirectoryReport;
  choice: Choice;
  relaxations: readonly Relaxation[];
}

export async function examine({ directory: path, tcti, keychainTimeout, now }: Request): Promise<Report> {
  const scratch = await mkdtemp(join(tmpdir(), 'attested-doctor-'));
  try {
    const node = examineNode();
    const clock = await examineClock(path, now);
    const [tpm, keychain] = await Promise.all([examineTpm(tcti, scratch, now), examineKeychain(keychainTimeout)]);
    const files = await measureFiles(scratch);
    const options = { directory: path, keychainTimeout, ...(tcti !== undefined && { tpm: { tcti } }) };
    const directory = await examineDirectory(options);
    const choice = choose(tpm.report, keychain, directory);
    const findings = sortFindings([
      ...node.findings,
      ...clock.findings,
      ...tpm.findings,
      ...directory.findings,
      ...judgeChoice(choice, tpm.report, keychain, directory),
    ]);
    return {
      exitCode: exitCodeOf(findings),
      findings,
      node: node.report,
      clock: clock.report,
      tpm: tpm.report,
      keychain,
      files,
      directory: directory.report,
      choice,
      relaxations,
    };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

type Examined = Awaited<ReturnType<typeof examineDirectory>>;

/** The same steps as `openKeys('auto')`, without opening anything in the directory itself. */
function choose(tpm: TpmReport, keychain: KeychainReport, { report, findings }: Examined): Choice {
  const [trouble] = findings;
  if (trouble !== undefined) return { why: trouble.message };
  if (report.backend !== undefined) return { kind: report.backend, why: 'the keys of the directory are there' };
  if (tpm.state === 'works') return { kind: 'tpm', why: 'there is a TPM that works' };
  const noTpm = `not tpm: ${tpm.message}`;
  if (keychain.state === 'works') return { kind: 'keychain', why: `there is a keychain that works; ${noTpm}` };
  if (keychain.state === 'locked') return { why: `${keychain.message}; ${noTpm}` };
  return { kind: 'software', why: `files can be written; ${noTpm}; not keychain: ${keychain.message}` };
}

function judgeChoice(
  { kind, why }: Choice,
  tpm: TpmReport,
  keychain: KeychainReport,
  { report, findings }: Examined,
): Finding[] {
  const moveUp = (better: KeyBackend) =>
    report.backend === undefined
      ? undefined
      : `open it once with openKeys('${better}', { directory }): new keys are made there`;
  if (kind === 'software') {
    const better = tpm.state === 'works' ? 'tpm' : keychain.state === 'works' ? 'keychain' : undefined;
    if (better === undefined) return [finding('files_only')];
    return [
      finding('files_only', `the keys of the directory are in files, though there is a ${better}`, moveUp(better)),
    ];
  }
  if (kind === 'keychain') {
    if (tpm.state !== 'works') return [finding('not_hardware')];
    return [
      finding('not_hardware', 'the keys of the directory are in the keychain, though there is a TPM', moveUp('tpm')),
    ];
  }
  if (kind !== undefined || findings.length > 0) return []; // what keeps it from opening is among the findings
  return [finding(keychain.state === 'locked' ? 'keychain_locked' : 'no_place', why)];
}

function examineNode(): { report: Report['node']; findings: Finding[] } {
  // three folders up from src/cli/doctor and from dist/cli/doctor alike
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  const needed = (JSON.parse(text) as { engines: { node: string } }).engines.node;
  const version = process.versions.node;
  const [least, have] = [needed, version].map((range) => range.replace(/^\D+/, '').split('.').map(Number));
  const isOlder = compare(have ?? [], least ?? []) < 0;
  const findings = isOlder ? [finding('node_unsupported', `Node ${version} is older than ${needed}`)] : [];
  return { report: { version, needed }, findings };
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return (a[i] ?? 0) - (b[i] ?? 0);
  return 0;
}
