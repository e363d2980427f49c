/** The directory for keys: can it be used, where are its keys, and do they open? Nothing is made in it. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { AttestedError } from '../../errors.ts';
import { type KeyBackend, rememberedBackend } from '../../keys/backend.ts';
import { openKeys } from '../../keys/index.ts';
import type { OpenKeysOptions } from '../../keys/options.ts';
import { type Finding, finding } from './findings.ts';
import { signLatency } from './measure.ts';

export interface DirectoryReport {
  path: string;
  /** Where its keys are, once it has any. */
  backend?: KeyBackend;
  /** How many keys. */
  keys?: number;
  message: string;
}

export async function examineDirectory(
  options: OpenKeysOptions & { directory: string },
): Promise<{ report: DirectoryReport; findings: Finding[] }> {
  const path = resolve(options.directory);
  try {
    const backend = await rememberedBackend(path);
    if (backend === undefined) return await examineEmpty(path);
    const keys = await openKeys(backend, { ...options, directory: path });
    try {
      const listed = await keys.listKeys();
      // one of them, for real: a TPM may have been cleared, a file damaged
      const [first] = listed;
      if (first !== undefined) await keys.getKey(first.label);
      return { report: { path, backend, keys: listed.length, message: 'its keys open' }, findings: [] };
    } finally {
      await keys.close();
    }
  } catch (error) {
    if (!(error instanceof AttestedError)) throw error;
    const backend = await rememberedBackend(path).catch(() => undefined);
    const { message } = error;
    return { report: { path, ...(backend && { backend }), message }, findings: judge(error, backend) };
  }
}

function judge({ code, message }: AttestedError, backend: KeyBackend | undefined): Finding[] {
  if (code === 'key_store_corrupt' || code === 'key_store_wrong_secret') return [finding('store_damaged', message)];
  if (code === 'key_store_locked') {
    // files under a passphrase that was not given here are as they should be
    return backend === 'software' ? [] : [finding('keychain_locked', message)];
  }
  const unreachable = backend === 'tpm' || backend === 'keychain';
  return [finding(unreachable ? 'identity_unreachable' : 'directory_unusable', message)];
}

/** The directory, or the nearest one above it that is there, has to be ours to write. */
async function examineEmpty(path: string): Promise<{ report: DirectoryReport; findings: Finding[] }> {
  let existing = path;
  while ((await stat(existing).catch(() => undefined)) === undefined && dirname(existing) !== existing) {
    existing = dirname(existing);
  }
  const isDirectory = (await stat(existing)).isDirectory();
  const writable = await access(existing, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  if (isDirectory && writable) return { report: { path, message: 'no keys in it yet' }, findings: [] };
  const message = isDirectory ? `${existing} cannot be written` : `${existing} is not a directory`;
  const remedy = 'name another directory with ATTESTED_HOME or --dir';
  return { report: { path, message }, findings: [finding('directory_unusable', message, remedy)] };
}

/** Keys in files, in a directory that goes when the doctor does. Milliseconds for a signature, ES256. */
export async function measureFiles(scratch: string): Promise<{ signature: number } | { message: string }> {
  try {
    const keys = await openKeys('software', { directory: join(scratch, 'files'), machineSecret: randomBytes(32) });
    try {
      return { signature: await signLatency((await keys.createKey({ label: 'doctor' })).sign) };
    } finally {
      await keys.close();
    }
  } catch (error) {
    if (!(error instanceof AttestedError)) throw error;
    return { message: error.message };
  }
}
