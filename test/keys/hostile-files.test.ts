/** Arbitrary content of the store's files: whatever it is, the answer is an AttestedError, soon. */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AttestedError, openKeys } from 'attested/keys';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { keyFilesIn, makePlace, type Place } from './places.ts';

const options = { machineSecret: Buffer.alloc(32, 7) };
/** Milliseconds; the dearest scrypt that a header may ask for takes about one second. */
const SOON = 4000;
let place: Place;
let headerPath: string;
let keyPath: string;
let header: string;
let key: string;

beforeAll(async () => {
  place = await makePlace();
  const keys = await openKeys('software', { directory: place.directory, ...options });
  await keys.createKey({ label: 'a key' });
  await keys.close();
  headerPath = join(place.store, 'store.json');
  keyPath = (await keyFilesIn(place.store))[0]!;
  header = await readFile(headerPath, 'utf8');
  key = await readFile(keyPath, 'utf8');
});
afterAll(() => place.dispose());

/** Uses the store as an agent does. Undefined when all went well, else the refusal; any other error is thrown. */
async function use(
  secret: { machineSecret?: Uint8Array; passphrase?: string } = options,
): Promise<AttestedError | undefined> {
  const started = performance.now();
  try {
    const keys = await openKeys('software', { directory: place.directory, ...secret });
    try {
      await keys.getKey('a key');
      await keys.listKeys();
      await keys.createKey({ label: 'a key' });
      return undefined;
    } finally {
      await keys.close();
    }
  } catch (error) {
    if (error instanceof AttestedError) return error;
    throw error;
  } finally {
    expect(performance.now() - started).toBeLessThan(SOON);
  }
}

async function useWith(
  path: string,
  content: string | Uint8Array,
  secret = options,
): Promise<AttestedError | undefined> {
  const healthy = path === headerPath ? header : key;
  await writeFile(path, content);
  try {
    const refused = await use(secret);
    expect(await readFile(path)).toEqual(Buffer.from(content)); // never overwritten
    return refused;
  } finally {
    await writeFile(path, healthy);
  }
}

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.json({ maxDepth: 4 }).map((text) => Buffer.from(text)),
  fc.nat({ max: 500 }).map((depth) => Buffer.from('['.repeat(depth) + ']'.repeat(depth))),
);

test.each(['header', 'key'])('arbitrary bytes as %s are refused as corrupt', async (which) => {
  const run = async (content: Uint8Array) => {
    const refused = await useWith(which === 'header' ? headerPath : keyPath, content);
    expect(refused?.code).toBe('key_store_corrupt');
  };
  await fc.assert(fc.asyncProperty(bytes, run), { numRuns: 150 });
});

/** A valid file with one place in it (by number, counted through all levels) given another value. */
function mutate(text: string, place: number, value: unknown): string {
  const json = JSON.parse(text) as Record<string, unknown>;
  const places: [Record<string, unknown>, string][] = [];
  const walk = (object: Record<string, unknown>) => {
    for (const [name, inner] of Object.entries(object)) {
      places.push([object, name]);
      if (typeof inner === 'object' && inner !== null) walk(inner as Record<string, unknown>);
    }
  };
  walk(json);
  const [object, name] = places[place % places.length]!;
  object[name] = value;
  return JSON.stringify(json);
}

/** With the checksum put right again, as an attacker would. */
function withChecksum(text: string): string {
  const { checksum: _old, ...rest } = JSON.parse(text) as Record<string, unknown>;
  const checksum = createHash('sha256').update(JSON.stringify(rest)).digest('base64url');
  return JSON.stringify({ ...rest, checksum });
}

const values = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.constantFrom('scrypt', 'hkdf-sha256', 'given', 'machine-id', 'secret-file', 'ES256', 'PS256', '', 0, -1, 2, null),
  fc.uint8Array({ minLength: 12, maxLength: 32 }).map((value) => Buffer.from(value).toString('base64url')),
);

test('a valid header with any member replaced opens nothing, or is as good as before', async () => {
  const run = async (at: number, value: unknown) => {
    const content = withChecksum(mutate(header, at, value));
    const refused = await useWith(headerPath, content);
    if (content !== withChecksum(header)) expect(refused?.code).toMatch(/^key_store_(corrupt|wrong_secret|locked)$/);
    else expect(refused).toBeUndefined();
  };
  await fc.assert(fc.asyncProperty(fc.nat({ max: 6 }), values, run), { numRuns: 200 });
});

test('a valid key file with any member replaced is refused, or is as good as before', async () => {
  const run = async (at: number, value: unknown) => {
    const content = mutate(key, at, value);
    const refused = await useWith(keyPath, content);
    if (content === JSON.stringify(JSON.parse(key))) expect(refused).toBeUndefined();
    else expect(refused?.code).toBe('key_store_corrupt');
  };
  await fc.assert(fc.asyncProperty(fc.nat({ max: 19 }), values, run), { numRuns: 200 });
});

test.each([19, 30, 40, 53, 1024, 1e300, -1, 0, 1, 13, 14.5, '17', null, true, [17], { a: 17 }])(
  'a header that asks for scrypt with N = 2^%j is refused before any of it is computed',
  async (log2N) => {
    const json = JSON.parse(header) as { derivation: { salt: string } };
    const derivation = { name: 'scrypt', log2N, salt: json.derivation.salt };
    const started = performance.now();
    const content = withChecksum(JSON.stringify({ ...json, derivation }));
    await writeFile(headerPath, content);
    const refused = await use({ passphrase: 'a passphrase' });
    await writeFile(headerPath, header);
    expect(refused?.code).toBe('key_store_corrupt');
    expect(performance.now() - started).toBeLessThan(1000);
  },
);

test('a repeated member, a byte order mark and __proto__ are refused', async () => {
  for (const content of [
    key.replace('"version": 1', '"version": 1, "version": 1'),
    `\ufeff${key}`,
    key.replace('"version": 1', '"version": 1, "__proto__": {}'),
  ]) {
    expect((await useWith(keyPath, content))?.code).toBe('key_store_corrupt');
  }
});

test('a header whose checksum does not fit is damaged, not a wrong passphrase', async () => {
  const { derivation } = JSON.parse(header) as { derivation: { salt: string } };
  const salt = (derivation.salt.startsWith('A') ? 'B' : 'A') + derivation.salt.slice(1);
  const altered = header.replace(derivation.salt, salt);
  expect((await useWith(headerPath, altered))?.code).toBe('key_store_corrupt');
  expect((await useWith(headerPath, withChecksum(altered)))?.code).toBe('key_store_wrong_secret');
});

test('keys without their header are kept: no new header is made beside them', async () => {
  const { rename, readdir } = await import('node:fs/promises');
  await rename(headerPath, join(place.root, 'header'));
  expect((await use())?.code).toBe('key_store_corrupt');
  expect(await readdir(place.store)).not.toContain('store.json');
  await rename(join(place.root, 'header'), headerPath);
  expect(await use()).toBeUndefined();
});
