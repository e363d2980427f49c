/** Secrets in files: what somebody who can write the directory, or a failing backend, can do to them. */
import { createSecretKey } from 'node:crypto';
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AttestedError } from '../../src/errors.ts';
import type { SecretStore } from '../../src/keys/provider.ts';
import { fileSecrets } from '../../src/keys/secrets.ts';
import { makePlace, type Place } from './places.ts';

const secret = Buffer.from('a refresh token, say');
let place: Place;
let directory: string;
beforeEach(async () => {
  place = await makePlace();
  directory = join(place.root, 'files');
  await mkdir(directory, { mode: 0o700 });
});
afterEach(() => place.dispose());

const keyOf = (fill: number) => createSecretKey(Buffer.alloc(32, fill));
function secretsUnder(fill: number, where = directory): SecretStore {
  return fileSecrets({ directory: where, key: async () => keyOf(fill), assertOpen: () => undefined });
}

async function onlyFile(): Promise<string> {
  const names = await readdir(directory);
  expect(names).toHaveLength(1);
  return join(directory, names[0]!);
}

test('a secret cannot be put in the place of another', async () => {
  const secrets = secretsUnder(1);
  await secrets.set('first', secret);
  const first = await onlyFile();
  await secrets.set('second', Buffer.from('other'));
  const second = join(directory, (await readdir(directory)).find((name) => join(directory, name) !== first)!);
  await copyFile(first, second);
  await expect(secrets.get('second')).rejects.toMatchObject({ code: 'key_store_corrupt' });
  expect(Buffer.from((await secrets.get('first'))!)).toEqual(secret);
});

test('a secret of a store under another key is not found, and does not open under its own file name either', async () => {
  await secretsUnder(1).set('name', secret);
  const theirs = await onlyFile();
  const other = join(place.root, 'other');
  await mkdir(other, { mode: 0o700 });
  const ours = secretsUnder(2, other);
  await copyFile(theirs, join(other, theirs.slice(directory.length + 1)));
  expect(await ours.get('name')).toBeUndefined();
  await ours.set('name', Buffer.from('ours'));
  const own = (await readdir(other)).find((name) => !theirs.endsWith(name))!;
  await rename(theirs, join(other, own));
  await expect(ours.get('name')).rejects.toMatchObject({ code: 'key_store_corrupt' });
});

test.each<[string, (content: string) => string]>([
  ['empty', () => ''],
  ['cut short', (content) => content.slice(0, content.length / 2)],
  ['no JSON', () => 'not JSON'],
  ['an array', () => '[]'],
  ['of another version', (content) => content.replace('"version": 1', '"version": 2')],
  ['with a member more', (content) => content.replace('{', '{"more": 1,')],
  ['with another cipher', (content) => content.replace('A256GCM', 'A128GCM')],
  [
    'with a changed ciphertext',
    (content) => content.replace(/"ciphertext": "(.)/, (_, c) => `"ciphertext": "${c === 'A' ? 'B' : 'A'}`),
  ],
  ['with a changed tag', (content) => content.replace(/"tag": "(.)/, (_, c) => `"tag": "${c === 'A' ? 'B' : 'A'}`)],
  ['with a short tag', (content) => content.replace(/"tag": "(.{4})[^"]*/, '"tag": "$1')],
  ['with a salt that is a number', (content) => content.replace(/"salt": "[^"]*"/, '"salt": 7')],
  ['larger than any secret', (content) => content + ' '.repeat(200_000)],
])('a file that is %s is corrupt, is kept, and can be written over and deleted', async (_what, alter) => {
  const secrets = secretsUnder(1);
  await secrets.set('name', secret);
  const path = await onlyFile();
  const altered = alter(await readFile(path, 'utf8'));
  await writeFile(path, altered);
  const error = await secrets.get('name').catch((error: unknown) => error);
  expect(error).toMatchObject({ code: 'key_store_corrupt', message: expect.stringContaining(path) });
  expect((error as Error).message).not.toMatch(/refresh/);
  expect(await readFile(path, 'utf8')).toBe(altered);
  await secrets.set('name', secret);
  expect(Buffer.from((await secrets.get('name'))!)).toEqual(secret);
  await writeFile(path, altered);
  expect(await secrets.delete('name')).toBe(true);
});

test('a file that others may read, or that is a link, is refused', async () => {
  const secrets = secretsUnder(1);
  await secrets.set('name', secret);
  const path = await onlyFile();
  await chmod(path, 0o644);
  await expect(secrets.get('name')).rejects.toMatchObject({
    code: 'key_store_unavailable',
    message: expect.stringContaining('chmod 600'),
  });
  await rename(path, join(place.root, 'elsewhere'));
  await symlink(join(place.root, 'elsewhere'), path);
  await expect(secrets.get('name')).rejects.toMatchObject({ code: 'key_store_unavailable' });
  await secrets.set('name', Buffer.from('new')); // replaces the link, not what it points to
  expect(Buffer.from((await secrets.get('name'))!).toString()).toBe('new');
  expect(await readFile(join(place.root, 'elsewhere'), 'utf8')).toContain('attested secret');
});

test('a directory that went away is unavailable', async () => {
  const secrets = secretsUnder(1);
  await rm(directory, { recursive: true });
  await expect(secrets.set('name', secret)).rejects.toMatchObject({ code: 'key_store_unavailable' });
});

test('the key is asked for once, and again after a failure', async () => {
  let asked = 0;
  const secrets = fileSecrets({
    directory,
    async key() {
      if (++asked === 1) throw new AttestedError('key_store_unavailable', 'the TPM does not answer');
      return keyOf(1);
    },
    assertOpen: () => undefined,
  });
  await expect(secrets.set('name', secret)).rejects.toMatchObject({ code: 'key_store_unavailable' });
  expect(await readdir(directory)).toEqual([]);
  await secrets.set('name', secret);
  await Promise.all([secrets.get('name'), secrets.get('other'), secrets.delete('another')]);
  expect(asked).toBe(2);
});
