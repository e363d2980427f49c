/**
 * Small secrets beside the keys. In files each is sealed under a key that the backend guards: the root of the software store,
 * a key sealed by the TPM, a key in the keychain (whose own entries are too small on some systems).
 *
 * A secret's name is part of what is authenticated, so that one secret cannot be put in another's place, and it is nowhere in
 * clear, file name included: names tell which servers an agent talks to. Who may write here can bring back an older content
 * of the same name, as with any file.
 */
import type { KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { utf8 } from '../core/bytes.ts';
import { hmacSha256 } from '../platform/crypto.ts';
import { writePrivateFile } from '../platform/files.ts';
import { corrupt, fileWork } from './files/faults.ts';
import { readPrivateFile, removePrivateFile } from './files/guarded.ts';
import { readJsonFile, writeJsonFile } from './files/json-file.ts';
import { deriveSubkey, readSealedMembers, seal, sealedMembers, unseal } from './files/sealed.ts';
import { assertSecret, assertSecretName, MAX_SECRET } from './labels.ts';
import { createLanes } from './lanes.ts';
import type { SecretStore } from './provider.ts';

const FORMAT = 'attested secret';
const VERSION = 1;
const CONTENT = 'attested secrets v1 content';
const NAMES = 'attested secrets v1 names';
const FILE_NAME = /^[0-9a-f]{64}\.secret\.json$/;
/** Base64url makes four characters of three bytes; the rest of the file is a few hundred. */
const MAX_FILE = Math.ceil((MAX_SECRET * 4) / 3) + 4096;

export interface FileSecretsOptions {
  /** An existing private directory of the backend's; files that do not end in `.secret.json` may stand beside these. */
  directory: string;
  /** Root key, 32 bytes. Asked once; asked again when it failed, as a TPM or a keychain may for a while. */
  key: () => Promise<KeyObject>;
  /** Throws when the provider is closed. */
  assertOpen: () => void;
}

export function isSecretFileName(name: string): boolean {
  return FILE_NAME.test(name);
}

export function fileSecrets({ directory, key, assertOpen }: FileSecretsOptions): SecretStore {
  const lanes = createLanes();
  let root: Promise<KeyObject> | undefined;
  const rootKey = (): Promise<KeyObject> => {
    root ??= key().catch((error: unknown) => {
      root = undefined;
      throw error;
    });
    return root;
  };

  /** Jobs of one name run in the order of their calls. */
  async function inLane<T>(name: string, job: (path: string, root: KeyObject) => Promise<T>): Promise<T> {
    assertOpen();
    assertSecretName(name);
    return lanes.run(name, async () => {
      assertOpen();
      const held = await rootKey();
      return job(join(directory, fileNameOf(held, name)), held);
    });
  }

  return {
    get: (name) =>
      inLane(name, async (path, held) => {
        const content = await readPrivateFile(path, MAX_FILE);
        return content === undefined ? undefined : openSecret(path, name, content, held);
      }),

    async set(name, secret) {
      assertSecret(secret);
      const copy = Uint8Array.from(secret); // the caller's bytes may change while this one waits
      return inLane(name, (path, held) => {
        const sealed = seal(held, CONTENT, additionalData(name), copy);
        copy.fill(0);
        const content = writeJsonFile({ format: FORMAT, version: VERSION, ...sealedMembers(sealed) });
        return fileWork(`write ${path}`, () => writePrivateFile(path, content));
      });
    },

    delete: (name) => inLane(name, removePrivateFile),
  };
}

/** Secrets in this process's memory. */
export function memorySecrets(assertOpen: () => void): SecretStore {
  const held = new Map<string, Uint8Array>();
  const check = (name: string) => {
    assertOpen();
    assertSecretName(name);
  };
  return {
    async get(name) {
      check(name);
      const secret = held.get(name);
      return secret && Uint8Array.from(secret);
    },
    async set(name, secret) {
      check(name);
      assertSecret(secret);
      held.set(name, Uint8Array.from(secret));
    },
    async delete(name) {
      check(name);
      return held.delete(name);
    },
  };
}

function openSecret(path: string, name: string, content: Uint8Array, root: KeyObject): Uint8Array {
  const { json, reader } = readJsonFile(path, content);
  const file = reader.object(json, ['format', 'version', 'derivation', 'encryption']);
  if (file.format !== FORMAT || file.version !== VERSION) reader.refuse('is no secret of a known version');
  const sealed = readSealedMembers(file, reader, MAX_SECRET);
  try {
    return Uint8Array.from(unseal(root, CONTENT, additionalData(name), sealed));
  } catch {
    throw corrupt(path, 'was altered, or was copied here from another store');
  }
}

/** Keyed, so that who reads the directory cannot try the names of servers that he knows. */
function fileNameOf(root: KeyObject, name: string): string {
  const key = deriveSubkey(root, new Uint8Array(), NAMES);
  return `${Buffer.from(hmacSha256(key, utf8(name))).toString('hex')}.secret.json`;
}

function additionalData(name: string): Uint8Array {
  return utf8(JSON.stringify([FORMAT, VERSION, name]));
}
