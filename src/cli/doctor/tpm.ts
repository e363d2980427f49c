/** Is there a TPM, may we use it, what does it say of itself, how fast does it sign? */
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { AttestedError } from '../../errors.ts';
import { describeTpm, type TpmDescription } from '../../keys/tpm/describe.ts';
import { chooseTcti, deviceFile, namedTcti, type Tcti } from '../../keys/tpm/tcti.ts';
import { openTpmKeys } from '../../keys/tpm.ts';
import { installHintHere, libraryVersion } from '../../native/tpm2-tss/install.ts';
import { loadTss } from '../../native/tpm2-tss/library.ts';
import { type Finding, finding } from './findings.ts';
import { signLatency } from './measure.ts';

export interface TpmReport {
  state: 'works' | 'absent' | 'unusable';
  /** In words. */
  message: string;
  tcti?: string;
  /** A resource manager stands before it. */
  managed?: boolean;
  /** Groups of the device, and whether this user is in it. */
  device?: { path: string; group: string; member: boolean };
  library: { loads: boolean; version?: string; install?: string };
  description?: TpmDescription;
  /** Milliseconds, ES256. */
  signature?: number;
}

const DEVICE = '/dev/tpmrm0';
const DEADLINE = 20_000;

/** @param scratch a directory that goes when the doctor does: a key is made in it to measure with */
export async function examineTpm(
  tcti: string | undefined,
  scratch: string,
  now: number,
): Promise<{ report: TpmReport; findings: Finding[] }> {
  const named = namedTcti(tcti);
  const library = await examineLibrary(named);
  const device = await examineDevice();
  const found = { library, ...(device && { device }) };
  let chosen: Tcti;
  try {
    chosen = chooseTcti(tcti);
  } catch (error) {
    const message = wordsOf(error);
    if (device === undefined && named === undefined)
      return { report: { ...found, state: 'absent', message }, findings: [] };
    const file = named && deviceFile(named);
    const code = file !== undefined && !existsSync(file) ? 'tpm_no_answer' : 'tpm_no_permission';
    return { report: { ...found, state: 'unusable', message }, findings: [finding(code, message)] };
  }
  const known = { ...found, tcti: chosen.tcti, managed: chosen.managed };
  const unusable = (one: Finding, description?: TpmDescription) => ({
    report: { ...known, ...(description && { description }), state: 'unusable' as const, message: one.message },
    findings: [one],
  });
  if (!library.loads) return unusable(finding('tpm_no_library', undefined, library.install));
  let description: TpmDescription | undefined;
  try {
    description = await describeTpm(chosen, DEADLINE);
    const signature = await measure(chosen, scratch);
    const findings = judge(description, now);
    return { report: { ...known, state: 'works', message: 'works', description, signature }, findings };
  } catch (error) {
    return unusable(reasonFor(error, description), description);
  }
}

async function measure({ tcti }: Tcti, directory: string): Promise<number> {
  const keys = await openTpmKeys({ directory, tpm: { tcti, deadline: DEADLINE } });
  try {
    const signer = await keys.createKey({ label: 'doctor' });
    return await signLatency(signer.sign);
  } finally {
    await keys.close();
  }
}

/** Of a TPM that describes itself but makes no key, the description tells why. */
function reasonFor(error: unknown, description: TpmDescription | undefined): Finding {
  const message = wordsOf(error);
  if (description?.lockout.locked) return finding('tpm_locked_out', message);
  if (description?.passwords.owner && !description.persistentStorageKey) return finding('tpm_owner_password', message);
  if (description?.freeSlots === 0) return finding('tpm_full', message);
  return finding('tpm_no_answer', message);
}

function judge({ lockout, freeSlots, endorsementCertificates: certificates }: TpmDescription, now: number): Finding[] {
  const findings: Finding[] = [];
  if (lockout.locked) {
    const wait = lockout.recovery > 0 ? `wait ${lockout.recovery} s, or run: ` : 'run: ';
    findings.push(finding('tpm_locked_out', undefined, `${wait}tpm2_dictionarylockout --clear-lockout`));
  }
  if (freeSlots === 0) findings.push(finding('tpm_full', undefined, `use a resource manager (${DEVICE})`));
  if (certificates.length === 0) findings.push(finding('ek_certificate_missing'));
  for (const { kind, certificate, unreadable } of certificates) {
    if (unreadable !== undefined)
      findings.push(finding('ek_certificate_bad', `the ${kind} certificate: ${unreadable}`));
    else if (certificate !== undefined && certificate.notAfter < now) {
      findings.push(finding('ek_certificate_bad', `the ${kind} endorsement certificate has expired`));
    }
  }
  return findings;
}

/** @param tcti the one that is named: its module is a package of its own, where it is not the usual one */
async function examineLibrary(tcti: string | undefined): Promise<TpmReport['library']> {
  try {
    await loadTss();
  } catch {
    return { loads: false, install: await installHintHere(/^(swtpm|mssim)\b/.exec(tcti ?? '')?.[0]) };
  }
  const version = await libraryVersion();
  return { loads: true, ...(version !== undefined && { version }) };
}

async function examineDevice(): Promise<TpmReport['device'] | undefined> {
  if (!existsSync(DEVICE)) return undefined;
  const { gid } = statSync(DEVICE);
  const groups = await readFile('/etc/group', 'utf8').catch(() => '');
  const name = groups
    .split('\n')
    .find((line) => line.split(':')[2] === String(gid))
    ?.split(':')[0];
  return { path: DEVICE, group: name ?? String(gid), member: process.getgroups?.().includes(gid) ?? false };
}

function wordsOf(error: unknown): string {
  if (error instanceof AttestedError) return error.message;
  throw error;
}
