/**
 * The secret that ties a store to this machine when there is no passphrase. It keeps a *copy of the directory* (a backup, a
 * synchronised home, a container image) from working elsewhere. It does not keep out code that runs as the same user here,
 * nor somebody who holds the whole disk: both can read it, and the machine id is readable by every user. (Other users of
 * this machine are kept out by the files' modes.)
 */
import { randomBytes } from 'node:crypto';
import { dirname, relative } from 'node:path';
import { createPrivateFile, makePrivateDirectory, readFileIfThere } from '../../platform/files.ts';
import { machineSecretFile } from '../directories.ts';
import { corrupt, fileWork, unavailable } from '../files/faults.ts';
import { readPrivateFile } from '../files/guarded.ts';

/** Where a machine secret came from; written into the store, so that the same source is asked again. */
export const MACHINE_SOURCES = ['given', 'machine-id', 'secret-file'] as const;
export type MachineSource = (typeof MACHINE_SOURCES)[number];

/** What this machine offers. Tests stand in for another machine with it. */
export interface Machine {
  /** Files with a machine id, in order of preference. */
  idFiles: readonly string[];
  /** A random secret, made on first use; in place of a machine id where there is none (macOS, Windows, some containers). */
  secretFile: string;
}

export function thisMachine(): Machine {
  return { idFiles: ['/etc/machine-id', '/var/lib/dbus/machine-id'], secretFile: machineSecretFile() };
}

const SECRET_BYTES = 32;
/** machine-id(5): 32 hexadecimal digits. Before the first boot it is empty or says `uninitialized`. */
const MACHINE_ID = /^(?!0{32})[0-9a-f]{32}$/;

/**
 * The secret of one source as it is now; undefined when this machine has none.
 * @throws AttestedError `key_store_unavailable` or `key_store_corrupt` when the secret file is there and unusable
 */
export async function readMachineSecret(
  source: Exclude<MachineSource, 'given'>,
  machine: Machine,
): Promise<Uint8Array | undefined> {
  if (source === 'machine-id') return readMachineId(machine.idFiles);
  const secret = await readPrivateFile(machine.secretFile);
  if (secret !== undefined && secret.length !== SECRET_BYTES) throw corrupt(machine.secretFile, 'has the wrong length');
  return secret;
}

/**
 * The machine's secret for a new store in `directory`.
 * @throws AttestedError `key_store_unavailable` or `key_store_corrupt`
 */
export async function chooseMachineSecret(
  directory: string,
  machine: Machine,
): Promise<{ source: MachineSource; secret: Uint8Array }> {
  const id = await readMachineSecret('machine-id', machine);
  if (id !== undefined) return { source: 'machine-id', secret: id };
  const { secretFile } = machine;
  if (!/^\.\.([/\\]|$)/.test(relative(directory, secretFile))) {
    throw unavailable(
      `${secretFile} would be copied together with ${directory}; use another directory or a passphrase`,
    );
  }
  await fileWork(`make the machine's secret file ${secretFile}`, async () => {
    await makePrivateDirectory(dirname(secretFile));
    if ((await readFileIfThere(secretFile)) === undefined) {
      await createPrivateFile(secretFile, randomBytes(SECRET_BYTES));
    }
  });
  const secret = await readMachineSecret('secret-file', machine);
  if (secret === undefined) throw unavailable(`${secretFile} was removed while it was in use`);
  return { source: 'secret-file', secret };
}

async function readMachineId(files: readonly string[]): Promise<Uint8Array | undefined> {
  for (const file of files) {
    const text = await readFileIfThere(file).catch(() => undefined);
    const id = text?.toString('latin1').trim();
    if (id !== undefined && MACHINE_ID.test(id)) return Buffer.from(id, 'hex');
  }
  return undefined;
}
