/** Keys in encrypted files, one file per key. */
import type { KeyObject } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Signer } from '../../core/signer.ts';
import { AttestedError } from '../../errors.ts';
import { generatePrivateKeyDer, signBytes } from '../../platform/crypto.ts';
import { createPrivateFile } from '../../platform/files.ts';
import { fileWork, unavailable } from '../files/faults.ts';
import { readPrivateFile, removePrivateFile } from '../files/guarded.ts';
import { withDirectoryLock } from '../files/lock.ts';
import { assertLabel, assertSameAlgorithm, assertSignatureAlgorithm } from '../labels.ts';
import { createLanes } from '../lanes.ts';
import { createLru } from '../lru.ts';
import { MAX_LOADED_KEYS, type OpenKeysOptions } from '../options.ts';
import type { KeyInfo, KeyProvider } from '../provider.ts';
import { fileSecrets } from '../secrets.ts';
import type { Derivation } from './header.ts';
import {
  isKeyFileName,
  keyFileName,
  openKey,
  type PublicPart,
  parseKeyFile,
  samePublicPart,
  sealKey,
} from './key-file.ts';
import { type Machine, thisMachine } from './machine-secret.ts';
import { openStore } from './store.ts';

const LOCK_LANE = 'lock'; // no label: those are prefixed below

interface LoadedKey {
  part: PublicPart;
  key: KeyObject;
}

/**
 * Opens a directory of encrypted keys, or makes one.
 *
 * A signer works from memory. When its key was forgotten for want of room it is read again; the file is then the judge of
 * whether the key still exists. A key that *another* process deletes stays usable here until then, or until the next
 * `getKey` or `createKey` of its label.
 *
 * @throws AttestedError `key_store_wrong_secret`, `key_store_locked` (a secret is needed and was not given),
 *   `key_store_corrupt` (the header) or `key_store_unavailable`
 */
export async function openFileKeys(
  parent: string,
  options: OpenKeysOptions,
  machine: Machine = thisMachine(),
): Promise<KeyProvider> {
  const home = resolve(parent);
  const { directory, root, derivation } = await openStore(home, options, machine);
  const loaded = createLru<LoadedKey>(options.maxLoadedKeys ?? MAX_LOADED_KEYS);
  const lanes = createLanes();
  let closed = false;

  const pathOf = (label: string) => join(directory, keyFileName(label));
  const assertOpen = () => {
    if (closed) throw unavailable('the key provider is closed');
  };
  /** One job per label at a time in this process, so that no reading can bring back what a deletion has just removed. */
  const inLane = <T>(label: string, job: () => Promise<T>): Promise<T> =>
    lanes.run(`label ${label}`, async () => {
      assertOpen();
      return job();
    });
  const locked = <T>(job: () => Promise<T>): Promise<T> =>
    lanes.run(LOCK_LANE, () => withDirectoryLock(directory, job));

  /** What the disk says now; the private key is decrypted only when it is not in memory yet. */
  async function load(label: string): Promise<LoadedKey | undefined> {
    const path = pathOf(label);
    const content = await readPrivateFile(path);
    if (content === undefined) {
      loaded.delete(label);
      return undefined;
    }
    const file = parseKeyFile(path, keyFileName(label), content);
    const held = loaded.get(label);
    if (held !== undefined && samePublicPart(held.part, file.public)) return held;
    const entry: LoadedKey = { part: file.public, key: openKey(path, file, root) };
    loaded.set(label, entry);
    return entry;
  }

  /** For a signer whose key is not in memory: it may have been deleted, or its label be another key's by now. */
  async function loadAgain(label: string, thumbprint: string): Promise<KeyObject> {
    const entry = await inLane(label, () => load(label));
    if (entry?.part.thumbprint === thumbprint) return entry.key;
    throw new AttestedError('key_not_found', 'the key of this signer was deleted');
  }

  function signerFor({ part: { label, alg, jwk, thumbprint } }: LoadedKey): Signer {
    return {
      alg,
      publicJwk: { ...jwk },
      thumbprint,
      async sign(data) {
        assertOpen();
        const held = loaded.get(label);
        const key = held?.part.thumbprint === thumbprint ? held.key : await loadAgain(label, thumbprint);
        return signBytes(alg, key, data);
      },
    };
  }

  return {
    kind: 'software',
    assurance: 'software',
    why: explain(derivation, directory),
    directory: home,

    async createKey({ label, alg = 'ES256' }) {
      assertOpen();
      assertLabel(label);
      assertSignatureAlgorithm(alg);
      return inLane(label, async () => {
        const entry =
          (await load(label)) ??
          (await locked(async () => {
            const made = await load(label); // by another process, while we waited
            if (made !== undefined) return made;
            const path = pathOf(label);
            const content = sealKey(label, alg, generatePrivateKeyDer(alg), root);
            await fileWork(`write ${path}`, () => createPrivateFile(path, content));
            return load(label); // from the disk: what is used is what was kept, also where another process was first
          }));
        if (entry === undefined) throw new AttestedError('key_not_found', 'the key was deleted while it was made');
        assertSameAlgorithm(entry.part.alg, alg);
        return signerFor(entry);
      });
    },

    async getKey(label) {
      assertOpen();
      assertLabel(label);
      const entry = await inLane(label, () => load(label));
      return entry && signerFor(entry);
    },

    async listKeys() {
      assertOpen();
      const names = await fileWork(`list ${directory}`, () => readdir(directory));
      const keys: KeyInfo[] = [];
      for (const name of names.filter(isKeyFileName)) {
        const path = join(directory, name);
        const content = await readPrivateFile(path);
        if (content === undefined) continue; // deleted since
        const { label, alg, thumbprint } = parseKeyFile(path, name, content).public;
        keys.push({ label, alg, thumbprint });
      }
      return keys.sort((a, b) => (a.label < b.label ? -1 : 1));
    },

    async deleteKey(label) {
      assertOpen();
      assertLabel(label);
      // the content does not matter: a damaged key can be deleted too, which is how its label becomes free again
      return inLane(label, () =>
        locked(async () => {
          loaded.delete(label); // first: whatever happens now, signers have to ask the disk
          return removePrivateFile(pathOf(label));
        }),
      );
    },

    secrets: fileSecrets({ directory, key: async () => root, assertOpen }),

    async close() {
      closed = true;
      await lanes.idle();
      loaded.clear();
    },
  };
}

const PROTECTION: Record<string, string> = {
  scrypt: 'under a passphrase: a copy of the files is worth as much as the passphrase is hard to guess',
  given: 'under a secret that the caller gave: a copy of the files is of no use without it',
  'machine-id': "under this machine's id: a copy of the directory is of no use elsewhere, a copy of the whole disk is",
  'secret-file':
    "under a random secret outside the directory: a copy of the directory is of no use elsewhere, a copy of the user's home is",
};

function explain(derivation: Derivation, directory: string): string {
  const protection = PROTECTION[derivation.name === 'scrypt' ? 'scrypt' : derivation.source];
  return `encrypted files in ${directory}, ${protection}; programs that run as the same user can use the keys`;
}
