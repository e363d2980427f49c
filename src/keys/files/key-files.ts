/** Files of keys, one a key: what they are called, and what a directory has of them. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { utf8 } from '../../core/bytes.ts';
import { sha256 } from '../../platform/crypto.ts';
import type { KeyInfo } from '../provider.ts';
import { fileWork } from './faults.ts';
import { readPrivateFile } from './guarded.ts';

const SUFFIX = '.key.json';
const NAME = /^[0-9a-f]{64}\.key\.json$/;

/** A hash, in hexadecimal: labels may look like paths, and some file systems ignore case. */
export function keyFileName(label: string): string {
  return `${Buffer.from(sha256(utf8(label))).toString('hex')}${SUFFIX}`;
}

export function isKeyFileName(name: string): boolean {
  return NAME.test(name);
}

/**
 * The keys that a directory has files of.
 * @param parse reads one file
 * @throws AttestedError `key_store_unavailable`, and what `parse` throws
 */
export async function listKeyFiles(
  directory: string,
  parse: (path: string, name: string, content: Uint8Array) => KeyInfo,
): Promise<KeyInfo[]> {
  const names = await fileWork(`list ${directory}`, () => readdir(directory));
  const keys: KeyInfo[] = [];
  for (const name of names.filter(isKeyFileName)) {
    const path = join(directory, name);
    const content = await readPrivateFile(path);
    if (content === undefined) continue; // deleted since
    const { label, alg, thumbprint } = parse(path, name, content);
    keys.push({ label, alg, thumbprint });
  }
  return keys;
}
