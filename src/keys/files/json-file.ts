/** Strict reading of the store's JSON files: exactly the members that belong there, bytes of exactly the right length. */
import { decodeBase64url, fromUtf8 } from '../../core/bytes.ts';
import { isJsonObject, type JsonObject, parseJsonObject } from '../../core/json.ts';
import { corrupt } from './faults.ts';

export interface JsonReader {
  /** The object, if it has these members and no others. */
  object(value: unknown, members: readonly string[]): JsonObject;
  /** Bytes from base64url, of one length or of a range of lengths. */
  bytes(value: unknown, least: number, most?: number): Uint8Array;
  text(value: unknown): string;
  refuse(why: string): never;
}

/** Parses a file's content; whatever does not fit is `key_store_corrupt` with the file's name. */
export function readJsonFile(path: string, content: Uint8Array): { json: JsonObject | undefined; reader: JsonReader } {
  const refuse = (why: string): never => {
    throw corrupt(path, why);
  };
  const reader: JsonReader = {
    refuse,
    object(value, members) {
      if (!isJsonObject(value)) return refuse('is damaged');
      const names = Object.keys(value);
      if (names.length !== members.length || !members.every((name) => Object.hasOwn(value, name))) {
        return refuse('is damaged');
      }
      return value;
    },
    bytes(value, least, most = least) {
      const bytes = typeof value === 'string' ? decodeBase64url(value) : undefined;
      if (bytes === undefined || bytes.length < least || bytes.length > most) return refuse('is damaged');
      return bytes;
    },
    text: (value) => (typeof value === 'string' ? value : refuse('is damaged')),
  };
  const text = fromUtf8(content);
  return { json: text === undefined ? undefined : parseJsonObject(text), reader };
}

/** One file's content, as people may read it. */
export function writeJsonFile(json: JsonObject): string {
  return `${JSON.stringify(json, undefined, 2)}\n`;
}
