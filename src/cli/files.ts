/** Files and values that several commands read. */
import { readFile } from 'node:fs/promises';
import { isJsonObject, parseJsonObject } from '../core/json.ts';
import { NEWEST_REVISION, type RevisionNumber, revisions } from '../core/revisions.ts';
import type { JsonWebKey } from '../core/signer.ts';
import { AttestedError } from '../errors.ts';
import { jwks, type TrustSource } from '../verifier/index.ts';
import { type Arguments, UsageError } from './command.ts';

/** Bytes; every file that a command reads is small. */
const MAX_FILE = 1024 * 1024;

/** @throws UsageError for a file that cannot be read */
export async function readText(path: string): Promise<string> {
  try {
    const bytes = await readFile(path);
    if (bytes.length > MAX_FILE) throw new UsageError(`${path} is larger than ${MAX_FILE} bytes`);
    return bytes.toString('utf8');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`);
  }
}

/** Trust in the keys of a file: a JWK Set, or one JWK. @throws UsageError, also for keys that are private or unsupported */
export async function trustIn(path: string): Promise<TrustSource> {
  const json = parseJsonObject(await readText(path));
  const keys = json !== undefined && Array.isArray(json.keys) ? json.keys : [json];
  if (!keys.every((key) => isJsonObject(key) && typeof key.kty === 'string')) {
    throw new UsageError(`${path} is neither a JWK Set nor a JWK`);
  }
  return asUsage(path, () => jwks({ keys: keys as JsonWebKey[] }));
}

/** What the library refuses of a user's values is a mistake in the call. @throws UsageError */
export function asUsage<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof AttestedError) throw new UsageError(`${what}: ${error.message}`);
    throw error;
  }
}

/** `--revision N`. @throws UsageError */
export function revisionNumber(args: Arguments): RevisionNumber {
  const text = args.text('revision');
  if (text === undefined) return NEWEST_REVISION;
  const number = Number(text.replace(/^-?0?/, ''));
  if (!Object.hasOwn(revisions, number)) {
    throw new UsageError(`--revision must be one of ${Object.keys(revisions).join(', ')}`);
  }
  return number as RevisionNumber;
}
