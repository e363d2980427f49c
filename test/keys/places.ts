/** Directories and machines for the tests of the key stores. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Machine } from '../../src/keys/software/machine-secret.ts';

export interface Place {
  /** Of the test's own; everything is in it. */
  root: string;
  /** What is given to `openKeys`. */
  directory: string;
  /** Where the store keeps its files. */
  store: string;
  dispose: () => Promise<void>;
}

export async function makePlace(): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), 'attested-keys-'));
  const directory = join(root, 'state');
  return {
    root,
    directory,
    store: join(directory, 'software-keys'),
    dispose: () => rm(root, { recursive: true, force: true }),
  };
}

/** A machine with an id, as Linux has one. */
export async function machineWithId(root: string, id: string): Promise<Machine> {
  const directory = join(root, `machine-${id.slice(0, 8)}`);
  await mkdir(directory, { recursive: true });
  const idFile = join(directory, 'machine-id');
  await writeFile(idFile, `${id}\n`);
  return { idFiles: [join(directory, 'absent'), idFile], secretFile: join(directory, 'private', 'secret') };
}

/** A machine without one. */
export function machineWithoutId(root: string, name = 'plain'): Machine {
  return { idFiles: [join(root, 'no-machine-id')], secretFile: join(root, name, 'secret') };
}

export async function keyFilesIn(store: string): Promise<string[]> {
  return (await readdir(store)).filter((name) => name.endsWith('.key.json')).map((name) => join(store, name));
}
