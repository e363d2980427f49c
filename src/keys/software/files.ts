/** Keys in encrypted files, one file per key. */
import type { KeyObject } from 'node:crypto';
import { join, resolve } from 'node:path';
import { generatePrivateKeyDer, signBytes } from '../../platform/crypto.ts';
import { createPrivateFile } from '../../platform/files.ts';
import { fileWork } from '../files/faults.ts';
import { readPrivateFile, removePrivateFile } from '../files/guarded.ts';
import { keyFileName, listKeyFiles } from '../files/key-files.ts';
import { withDirectoryLock } from '../files/lock.ts';
import { type HeldKey, keepKeys, samePublicPart } from '../kept.ts';
import type { OpenKeysOptions } from '../options.ts';
import type { KeyProvider } from '../provider.ts';
import { fileSecrets } from '../secrets.ts';
import type { Derivation } from './header.ts';
import { openKey, parseKeyFile, sealKey } from './key-file.ts';
import { type Machine, thisMachine } from './machine-secret.ts';
import { openStore } from './store.ts';

interface LoadedKey extends HeldKey {
  key: KeyObject;
}

/**
 * Opens a directory of encrypted keys, or makes one.
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
  const pathOf = (label: string) => join(directory, keyFileName(label));

  const { assertOpen, ...keys } = keepKeys<LoadedKey>(
    {
      /** What the disk says now; the private key is decrypted only when it is not in memory yet. */
      async read(label, held) {
        const path = pathOf(label);
        const content = await readPrivateFile(path);
        if (content === undefined) return undefined;
        const file = parseKeyFile(path, keyFileName(label), content);
        if (held !== undefined && samePublicPart(held.part, file.public)) return held;
        return { part: file.public, key: openKey(path, file, root) };
      },

      async make(label, alg) {
        const path = pathOf(label);
        const content = sealKey(label, alg, generatePrivateKeyDer(alg), root);
        await fileWork(`write ${path}`, () => createPrivateFile(path, content));
      },

      // the content does not matter: a damaged key can be deleted too, which is how its label becomes free again
      remove: (label) => removePrivateFile(pathOf(label)),
      list: () => listKeyFiles(directory, (...file) => parseKeyFile(...file).public),
      sign: ({ part, key }, data) => signBytes(part.alg, key, data),
      withLock: (job) => withDirectoryLock(directory, job),
    },
    options.maxLoadedKeys,
  );

  return {
    kind: 'software',
    assurance: 'software',
    why: explain(derivation, directory),
    directory: home,
    ...keys,
    secrets: fileSecrets({ directory, key: async () => root, assertOpen }),
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
