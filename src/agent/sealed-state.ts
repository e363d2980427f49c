/**
 * How the state lies on the disk: sealed, so that who gets a copy of the directory (a backup, a container's layer) learns no
 * server's name from it; how many keys there are, and so about how many servers, the keys themselves show. The sealing key is
 * a secret of the key provider's, as well guarded as its keys; the file names it by a random id, so that whichever of two
 * processes writes last, both can read what is there.
 *
 * Sealing does not stop who may write here from putting an older file of the same client back.
 */
import { createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { fromUtf8, utf8 } from '../core/bytes.ts';
import { type JsonObject, parseJsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import { readJsonFile, writeJsonFile } from '../keys/files/json-file.ts';
import { readSealedMembers, seal, sealedMembers, unseal } from '../keys/files/sealed.ts';
import type { SecretStore } from '../keys/provider.ts';
import { randomId } from '../platform/crypto.ts';

export interface StateSeal {
  /** What a file says; undefined for one that is damaged, of another client, or sealed under a key that is lost. */
  open(content: Uint8Array): Promise<{ state: JsonObject; sealed: boolean } | undefined>;
  /** The same, sealed under the key of the file opened last, or under a new one. */
  seal(state: JsonObject): Promise<string>;
}

const FORMAT = 'attested agent state';
const VERSION = 2;
/** Before version 2 the state was in clear. */
const CLEAR_VERSION = 1;
const PURPOSE = 'attested agent state v2';
const KEY_BYTES = 32;
const ID = /^[0-9a-f-]{36}$/;
const MAX_CONTENT = 64 * 1024 * 1024;

/** @param name the file's own, without directory: what is sealed for one client is not opened as another's */
export function openStateSeal(secrets: SecretStore, name: string): StateSeal {
  let current: { id: string; key: KeyObject } | undefined;

  async function keyOf(id: string): Promise<KeyObject | undefined> {
    if (current?.id === id) return current.key;
    const bytes = await secrets.get(secretName(id)).catch((error: unknown) => {
      // damaged for good is lost; locked or out of reach is another matter, and may pass
      if (error instanceof AttestedError && error.code === 'key_store_corrupt') return undefined;
      throw error;
    });
    return bytes?.length === KEY_BYTES ? createSecretKey(bytes) : undefined;
  }

  return {
    async open(content) {
      const text = fromUtf8(content);
      const json = text === undefined ? undefined : parseJsonObject(text);
      if (json?.version === CLEAR_VERSION) return { state: json, sealed: false };
      const file = readFile(name, content);
      if (file === undefined) return undefined;
      const key = await keyOf(file.id);
      if (key === undefined) return undefined;
      try {
        const plain = unseal(key, PURPOSE, additionalData(name, file.id), file.sealed);
        const state = parseJsonObject(fromUtf8(plain) ?? '');
        if (state === undefined) return undefined;
        current = { id: file.id, key };
        return { state, sealed: true };
      } catch {
        return undefined;
      }
    },

    async seal(state) {
      current ??= await newKey(secrets);
      const { id, key } = current;
      const sealed = seal(key, PURPOSE, additionalData(name, id), utf8(JSON.stringify(state)));
      return writeJsonFile({ format: FORMAT, version: VERSION, key: id, ...sealedMembers(sealed) });
    },
  };
}

async function newKey(secrets: SecretStore): Promise<{ id: string; key: KeyObject }> {
  const id = randomId();
  const bytes = randomBytes(KEY_BYTES);
  await secrets.set(secretName(id), bytes);
  const key = createSecretKey(bytes);
  bytes.fill(0);
  return { id, key };
}

function readFile(name: string, content: Uint8Array) {
  try {
    const { json, reader } = readJsonFile(name, content);
    const file = reader.object(json, ['format', 'version', 'key', 'derivation', 'encryption']);
    const id = reader.text(file.key);
    if (file.format !== FORMAT || file.version !== VERSION || !ID.test(id)) return undefined;
    return { id, sealed: readSealedMembers(file, reader, MAX_CONTENT) };
  } catch {
    return undefined;
  }
}

function secretName(id: string): string {
  return `attested:agent-state:${id}`;
}

function additionalData(name: string, id: string): Uint8Array {
  return utf8(JSON.stringify([FORMAT, VERSION, name, id]));
}
