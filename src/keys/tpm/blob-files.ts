/** Single objects of a directory beside the keys: the attestation key, the key of the secrets. Made once, whoever is first. */
import { join } from 'node:path';
import { createPrivateFile } from '../../platform/files.ts';
import { corrupt, fileWork } from '../files/faults.ts';
import { readPrivateFile } from '../files/guarded.ts';
import { withDirectoryLock } from '../files/lock.ts';
import { type Blob, encodeBlob, parseBlob } from './blobs.ts';

type Kind = Parameters<typeof parseBlob>[1];

/**
 * The blob of this kind, made now if there is none. Made outside the directory's lock, since a TPM may take its time; of
 * several that are made at once, the first one written is everybody's.
 */
export async function blobOnce(
  directory: string,
  kind: Kind,
  make: () => Promise<Blob>,
): Promise<ReturnType<typeof parseBlob>> {
  const path = join(directory, `${kind}.json`);
  const content = await readPrivateFile(path);
  if (content !== undefined) return parseBlob(path, kind, content);
  const made = encodeBlob(kind, await make());
  await writeOnce(directory, path, made);
  const kept = await readPrivateFile(path);
  if (kept === undefined) throw corrupt(path, 'went away while it was made');
  return parseBlob(path, kind, kept);
}

/** Writes a file that is not there yet. An existing one stays. */
export async function writeOnce(directory: string, path: string, content: string): Promise<void> {
  await withDirectoryLock(directory, () => fileWork(`write ${path}`, () => createPrivateFile(path, content)));
}
