/** How the file store refuses. Messages name files of the store, which are named by hashes, and nothing from inside them. */
import { AttestedError } from '../../errors.ts';

export function unavailable(why: string, cause?: unknown): AttestedError {
  return new AttestedError('key_store_unavailable', why, cause === undefined ? {} : { cause });
}

export function wrongSecret(why: string): AttestedError {
  return new AttestedError('key_store_wrong_secret', why);
}

/** The file stays as it is: what looks damaged to us may be mended from a backup, or read by a later version. */
export function corrupt(path: string, why: string): AttestedError {
  return new AttestedError('key_store_corrupt', `${path} ${why}; it was left as it is`);
}

const SYSTEM_FAULTS: Record<string, string> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EROFS: 'the file system is read-only',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  ENOTDIR: 'a part of the path is not a directory',
  EMFILE: 'too many open files',
  ENFILE: 'too many open files',
  ENAMETOOLONG: 'the path is too long',
  EIO: 'the disk failed',
};

/** Runs a step of file work; what the system refuses becomes `key_store_unavailable`. */
export async function fileWork<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof AttestedError) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? '';
    throw unavailable(`could not ${doing}: ${SYSTEM_FAULTS[code] ?? (code || 'unexpected fault')}`, error);
  }
}
