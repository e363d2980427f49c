/**
 * Files and directories that only we may have touched. Whoever else can write here could plant a key that he knows, and
 * whoever else can read here gets half of what it takes to open one: both are refused, with the command that mends it.
 *
 * Windows has neither modes nor numeric owners; there the user profile's access list has to do.
 */
import { constants, type Stats } from 'node:fs';
import { lstat, mkdir, open, readdir, realpath, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { syncDirectory } from '../../platform/files.ts';
import { corrupt, fileWork, unavailable } from './faults.ts';

const MAX_FILE = 64 * 1024;
const STALE_TEMPORARY = 60_000;

/**
 * Makes (or takes) a directory of the user's and, in it, one that is private to us.
 * @returns the real path of the private one
 * @throws AttestedError `key_store_unavailable`
 */
export async function openPrivateDirectory(parent: string, name: string): Promise<string> {
  return fileWork(`open the key directory ${join(parent, name)}`, async () => {
    await mkdir(parent, { recursive: true, mode: 0o700 });
    const home = await realpath(parent);
    const homeStat = await stat(home);
    assertOwner(homeStat, home);
    // in a directory that others may write, ours could be swapped for theirs; the sticky bit (as of /tmp) forbids just that
    if (process.platform !== 'win32' && (homeStat.mode & 0o022) !== 0 && (homeStat.mode & 0o1000) === 0) {
      throw unavailable(`others may write to the directory ${home}; mend it with: chmod go-w '${home}'`);
    }
    const directory = join(home, name);
    await mkdir(directory, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
    const found = await lstat(directory); // not followed: it is ours alone, and nobody has reason to make it a link
    if (!found.isDirectory()) throw unavailable(`${directory} is not a directory`);
    assertPrivate(found, directory, '700');
    return directory;
  });
}

/**
 * Reads a small file of ours, once its owner and mode are seen to be right on the opened file itself.
 * @param most its size in bytes
 * @returns undefined when there is none
 * @throws AttestedError `key_store_unavailable`, or `key_store_corrupt` when it is larger than any file of ours
 */
export async function readPrivateFile(path: string, most: number = MAX_FILE): Promise<Uint8Array | undefined> {
  return fileWork(`read ${path}`, async () => {
    const file = await openUnfollowed(path);
    if (file === undefined) return undefined;
    try {
      const found = await file.stat();
      if (!found.isFile()) throw unavailable(`${path} is not a regular file`);
      assertPrivate(found, path, '600');
      const bytes = Buffer.alloc(most + 1);
      let size = 0;
      while (size < bytes.length) {
        const { bytesRead } = await file.read(bytes, size, bytes.length - size, size);
        if (bytesRead === 0) return bytes.subarray(0, size);
        size += bytesRead;
      }
      throw corrupt(path, 'is larger than any file of this store');
    } finally {
      await file.close();
    }
  });
}

/** Deletes a file of ours, which may be damaged; false when there is none. @throws AttestedError `key_store_unavailable` */
export async function removePrivateFile(path: string): Promise<boolean> {
  return fileWork(`delete ${path}`, async () => {
    try {
      await rm(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw error;
    }
    await syncDirectory(dirname(path));
    return true;
  });
}

/** Removes what an interrupted write left behind. Best effort: a read-only directory can still be read. */
export async function removeStaleTemporaries(directory: string, now: number): Promise<void> {
  try {
    for (const name of await readdir(directory)) {
      if (!name.endsWith('.tmp')) continue;
      const path = join(directory, name);
      if (now - (await lstat(path)).mtimeMs > STALE_TEMPORARY) await rm(path);
    }
  } catch {
    // whatever is wrong with the directory is reported by the step that needs it
  }
}

async function openUnfollowed(path: string): Promise<Awaited<ReturnType<typeof open>> | undefined> {
  try {
    // not blocking: a pipe in the place of a file must not hang us
    return await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code === 'ELOOP' || code === 'EMLINK')
      throw unavailable(`${path} is a symbolic link, not a file of this store`);
    throw error;
  }
}

function assertPrivate(found: Stats, path: string, mode: string): void {
  assertOwner(found, path);
  if (process.platform !== 'win32' && (found.mode & 0o077) !== 0) {
    throw unavailable(`others than its owner may open ${path}; mend it with: chmod ${mode} '${path}'`);
  }
}

function assertOwner(found: Stats, path: string): void {
  const user = process.geteuid?.();
  if (user !== undefined && found.uid !== user) {
    // root's directory around ours is as trustworthy as the machine; a file of root's among ours is a mistake
    if (found.uid === 0 && found.isDirectory()) return;
    throw unavailable(`${path} belongs to another user; take it over (chown) if it is yours, or use another directory`);
  }
}
