/**
 * `backend.json`, which says where the keys of a directory are. It is written before the first key is made. Without it, a TPM
 * that does not answer for a moment would make an agent go on with weaker keys, and nobody would notice.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createPrivateFile, writePrivateFile } from '../platform/files.ts';
import { fileWork, unavailable } from './files/faults.ts';
import { readPrivateFile } from './files/guarded.ts';
import { readJsonFile, writeJsonFile } from './files/json-file.ts';
import { isKeyFileName } from './files/key-files.ts';
import { placeNames } from './files/place.ts';
import type { KeyProvider } from './provider.ts';
import { isSecretFileName } from './secrets.ts';

export type KeyBackend = KeyProvider['kind'];

/** From the strongest to the weakest. */
export const backends: readonly KeyBackend[] = ['tpm', 'keychain', 'software'];

/** What `openKeys` can be asked for. */
export const keyKinds: readonly ('auto' | KeyBackend)[] = ['auto', ...backends];

export function isWeaker(kind: KeyBackend, than: KeyBackend): boolean {
  return backends.indexOf(kind) > backends.indexOf(than);
}

const FILE = 'backend.json';
const FORMAT = 'attested key backend';
const VERSION = 1;

/**
 * Where the keys of a directory are; undefined for one without keys.
 * @throws AttestedError `key_store_corrupt` or `key_store_unavailable`
 */
export async function rememberedBackend(home: string): Promise<KeyBackend | undefined> {
  const path = join(home, FILE);
  const content = await readPrivateFile(path);
  if (content === undefined) return tracesIn(home);
  const { json, reader } = readJsonFile(path, content);
  const file = reader.object(json, ['format', 'version', 'backend']);
  if (file.format !== FORMAT || file.version !== VERSION) reader.refuse('is no backend file of a known version');
  return backends.find((kind) => kind === file.backend) ?? reader.refuse('names no backend that is known');
}

/**
 * Remembers a backend, in an existing directory.
 * @param replaces whether it may take the place of the one that is remembered
 * @throws AttestedError `key_store_unavailable` when another one is remembered, which may not be replaced
 */
export async function rememberBackend(
  home: string,
  kind: KeyBackend,
  replaces: (remembered: KeyBackend) => boolean,
): Promise<void> {
  const path = join(home, FILE);
  const content = writeJsonFile({ format: FORMAT, version: VERSION, backend: kind });
  const remembered = await rememberedBackend(home);
  if (remembered === undefined || remembered === kind) {
    if (await fileWork(`write ${path}`, () => createPrivateFile(path, content))) return;
    const now = await rememberedBackend(home); // ours already, or that of a process which was faster
    if (now === kind) return;
    throw unavailable(`another process has just chosen ${now} for ${home}: open the keys again`);
  }
  if (!replaces(remembered)) {
    throw unavailable(`another process has chosen ${remembered} for ${home} meanwhile: open the keys again`);
  }
  await fileWork(`write ${path}`, () => writePrivateFile(path, content));
}

/** What tells of directories that are older than `backend.json`, or have lost it. */
async function tracesIn(home: string): Promise<KeyBackend | undefined> {
  for (const kind of backends) {
    const directory = join(home, placeNames[kind]);
    const names = await readdir(directory).catch(() => []); // what is wrong with it, its own backend says better
    if (names.some((name) => isKeyFileName(name) || isSecretFileName(name))) return kind;
  }
  return undefined;
}
