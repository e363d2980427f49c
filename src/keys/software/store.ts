/** Opens a key directory: finds or makes its header and derives its root key. */
import type { KeyObject } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { utf8 } from '../../core/bytes.ts';
import { AttestedError } from '../../errors.ts';
import { createPrivateFile } from '../../platform/files.ts';
import { fileWork, unavailable, wrongSecret } from '../files/faults.ts';
import { readPrivateFile } from '../files/guarded.ts';
import { isKeyFileName } from '../files/key-files.ts';
import { withDirectoryLock } from '../files/lock.ts';
import { openPlace } from '../files/place.ts';
import { type OpenKeysOptions, SCRYPT_LOG2N } from '../options.ts';
import { isSecretFileName } from '../secrets.ts';
import {
  type Derivation,
  decodeHeader,
  deriveRoot,
  encodeHeader,
  isRootOf,
  newSalt,
  type StoreHeader,
} from './header.ts';
import { chooseMachineSecret, type Machine, type MachineSource, readMachineSecret } from './machine-secret.ts';

const HEADER = 'store.json';

export interface OpenedStore {
  /** Real path of the private directory with the files. */
  directory: string;
  root: KeyObject;
  derivation: Derivation;
}

/** @throws AttestedError `key_store_*` */
export async function openStore(parent: string, options: OpenKeysOptions, machine: Machine): Promise<OpenedStore> {
  const directory = await openPlace(parent, 'software');
  const header = await readHeader(directory);
  if (header !== undefined) return openExisting(directory, header, options, machine);
  return withDirectoryLock(directory, async () => {
    const made = await readHeader(directory); // by another process, while we waited
    return made === undefined
      ? makeStore(directory, options, machine)
      : openExisting(directory, made, options, machine);
  });
}

async function readHeader(directory: string): Promise<StoreHeader | undefined> {
  const path = join(directory, HEADER);
  const content = await readPrivateFile(path);
  return content === undefined ? undefined : decodeHeader(path, content);
}

async function openExisting(
  directory: string,
  header: StoreHeader,
  options: OpenKeysOptions,
  machine: Machine,
): Promise<OpenedStore> {
  const { derivation } = header;
  const root = await deriveRoot(derivation, await secretFor(derivation, directory, options, machine));
  if (isRootOf(header, root)) return { directory, root, derivation };
  if (derivation.name === 'scrypt') throw wrongSecret(`the passphrase is not the one that ${directory} was made with`);
  if (derivation.source === 'given') throw wrongSecret(`machineSecret is not the one that ${directory} was made with`);
  throw otherMachine(directory, derivation.source, machine);
}

async function makeStore(directory: string, options: OpenKeysOptions, machine: Machine): Promise<OpenedStore> {
  const names = await fileWork(`list ${directory}`, () => readdir(directory));
  if (names.some((name) => isKeyFileName(name) || isSecretFileName(name))) {
    // a new header would have a new root key: none of these files could ever be opened again
    throw new AttestedError(
      'key_store_corrupt',
      `${join(directory, HEADER)} is missing, but there are keys or secrets beside it: restore it from a backup; nothing was written`,
    );
  }
  const { derivation, secret } = await newDerivation(directory, options, machine);
  const root = await deriveRoot(derivation, secret);
  const path = join(directory, HEADER);
  const won = await fileWork(`write ${path}`, () => createPrivateFile(path, encodeHeader(derivation, root)));
  if (won) return { directory, root, derivation };
  const header = await readHeader(directory);
  if (header === undefined) throw unavailable(`${path} was removed while it was in use`);
  return openExisting(directory, header, options, machine);
}

async function newDerivation(
  directory: string,
  { passphrase, machineSecret, scryptLog2N }: OpenKeysOptions,
  machine: Machine,
): Promise<{ derivation: Derivation; secret: Uint8Array }> {
  const salt = newSalt();
  if (passphrase !== undefined) {
    const derivation: Derivation = { name: 'scrypt', log2N: scryptLog2N ?? SCRYPT_LOG2N.usual, salt };
    return { derivation, secret: passphraseBytes(passphrase) };
  }
  const { source, secret } =
    machineSecret === undefined
      ? await chooseMachineSecret(directory, machine)
      : { source: 'given' as const, secret: machineSecret };
  return { derivation: { name: 'hkdf-sha256', source, salt }, secret };
}

/** The secret that a store asks for, from the options or the machine. */
async function secretFor(
  derivation: Derivation,
  directory: string,
  { passphrase, machineSecret }: OpenKeysOptions,
  machine: Machine,
): Promise<Uint8Array> {
  const wanted = derivation.name === 'scrypt' ? 'passphrase' : derivation.source;
  if (wanted === 'passphrase' || wanted === 'given') {
    const given = wanted === 'given' ? machineSecret : passphrase && passphraseBytes(passphrase);
    const name = wanted === 'given' ? 'machineSecret' : 'passphrase';
    if (given) return given;
    throw new AttestedError('key_store_locked', `${directory} was made with a ${name}: give it to open the keys`);
  }
  if (passphrase !== undefined || machineSecret !== undefined) {
    throw wrongSecret(
      `${directory} was made with this machine's own secret: open it without passphrase and machineSecret`,
    );
  }
  const secret = await readMachineSecret(wanted, machine);
  if (secret === undefined) throw otherMachine(directory, wanted, machine);
  return secret;
}

function otherMachine(directory: string, source: MachineSource, { secretFile }: Machine): AttestedError {
  const unless = source === 'machine-id' ? "this one's id was changed" : `${secretFile} was lost or replaced`;
  return wrongSecret(
    `the keys in ${directory} were made on another machine (unless ${unless}) and cannot be opened here; ` +
      'an agent needs keys of its own on each machine, and in a container a passphrase or machineSecret from outside',
  );
}

/** One text typed on two keyboards may differ in code points: compared in NFC, as RFC 8265 wants it. */
function passphraseBytes(passphrase: string): Uint8Array {
  return utf8(passphrase.normalize('NFC'));
}
