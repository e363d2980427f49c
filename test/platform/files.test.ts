import { chmod, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  createPrivateFile,
  makePrivateDirectory,
  readFileIfThere,
  writePrivateFile,
} from '../../src/platform/files.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attested-files-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

test('of many who create one file exactly one succeeds, and its content stays', async () => {
  const path = join(directory, 'file');
  const attempts = Array.from({ length: 20 }, (_, i) => createPrivateFile(path, `content of ${i}`));
  const won = (await Promise.all(attempts)).map((success, i) => (success ? i : -1)).filter((i) => i >= 0);
  expect(won).toHaveLength(1);
  expect(await readFile(path, 'utf8')).toBe(`content of ${won[0]}`);
  expect(await readdir(directory)).toEqual(['file']);
});

test('a file is not created through a link that leads nowhere', async () => {
  await symlink(join(directory, 'target'), join(directory, 'file'));
  expect(await createPrivateFile(join(directory, 'file'), 'content')).toBe(false);
  expect(await readdir(directory)).toEqual(['file']);
});

test('writing replaces a file whole, and leaves nothing beside it', async () => {
  const path = join(directory, 'file');
  await writePrivateFile(path, 'a first and longer content');
  await writePrivateFile(path, Buffer.from('second'));
  expect(await readFile(path, 'utf8')).toBe('second');
  expect(await readdir(directory)).toEqual(['file']);
});

test.each([
  ['created', createPrivateFile],
  ['written', writePrivateFile],
])("a file that is %s is its owner's alone", async (_what, make) => {
  await makePrivateDirectory(join(directory, 'a', 'b'));
  const path = join(directory, 'a', 'b', 'file');
  await make(path, 'content');
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect((await stat(join(directory, 'a'))).mode & 0o777).toBe(0o700);
  expect((await stat(join(directory, 'a', 'b'))).mode & 0o777).toBe(0o700);
});

test.each([
  ['created', createPrivateFile],
  ['written', writePrivateFile],
])('a file that cannot be %s leaves nothing behind', async (_what, make) => {
  await expect(make(join(directory, 'absent', 'file'), 'content')).rejects.toMatchObject({ code: 'ENOENT' });
  await expect(make(join(directory, 'file'), { not: 'bytes' } as unknown as string)).rejects.toThrow(TypeError);
  expect(await readdir(directory)).toEqual([]);
});

test('reading tells a missing file from an unreadable one', async () => {
  expect(await readFileIfThere(join(directory, 'absent'))).toBeUndefined();
  await expect(readFileIfThere(directory)).rejects.toMatchObject({ code: 'EISDIR' });
});

test('a reader sees one content or the other, never a part or nothing', async () => {
  const path = join(directory, 'file');
  const contents = ['a', 'b'].map((letter) => letter.repeat(500_000));
  await writePrivateFile(path, contents[0] as string);
  let writing = true;
  const write = (async () => {
    for (let i = 0; i < 30; i++) await writePrivateFile(path, contents[i % 2] as string);
    writing = false;
  })();
  let reads = 0;
  for (; writing; reads++) expect(contents.includes(String(await readFileIfThere(path)))).toBe(true);
  await write;
  expect(reads).toBeGreaterThan(5);
});

test('writing over a file that others could read, or over a link, makes a private file of its own', async () => {
  const [open, victim, linked] = ['open', 'victim', 'linked'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  await writeFile(open, 'old');
  await chmod(open, 0o666);
  await writePrivateFile(open, 'new');
  expect((await stat(open)).mode & 0o777).toBe(0o600);
  await writeFile(victim, 'untouched');
  await symlink(victim, linked);
  await writePrivateFile(linked, 'new');
  expect(await readFile(victim, 'utf8')).toBe('untouched');
  expect(await readFile(linked, 'utf8')).toBe('new');
});
