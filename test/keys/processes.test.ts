/** What several processes, and processes that die, do to one key directory. All of them are real. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openKeys } from 'attested/keys';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { verifiesInNode } from '../contract/key-provider.ts';
import { keyFilesIn, makePlace, type Place } from './places.ts';

const machineSecret = Buffer.alloc(32, 7);
const data = Buffer.from('the bytes to be signed');
let place: Place;
const children: ChildProcess[] = [];
beforeEach(async () => {
  place = await makePlace();
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await place.dispose();
});

function start(script: string, ...args: string[]): ChildProcess {
  const path = fileURLToPath(new URL(`./children/${script}.ts`, import.meta.url));
  const child = spawn(process.execPath, [path, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  return child;
}

async function outputOf(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await once(child, 'close');
  return text;
}

test('processes that create the same labels at once, in a directory that is new to all, get the same keys', async () => {
  const labels = ['one', 'two', 'three'];
  const instant = String(Date.now() + 1500);
  const processes = Array.from({ length: 4 }, () => start('create-keys', place.directory, instant, ...labels));
  const outputs = await Promise.all(processes.map(outputOf));
  const answers = outputs.map((output) => JSON.parse(output) as string[]);
  expect(new Set(answers.map((thumbprints) => thumbprints.join())).size).toBe(1);
  expect(new Set(answers[0]).size).toBe(labels.length);

  const keys = await openKeys('software', { directory: place.directory, machineSecret });
  for (const [i, label] of labels.entries()) {
    const signer = await keys.getKey(label);
    expect(signer?.thumbprint).toBe(answers[0]![i]);
    expect(verifiesInNode(signer!, await signer!.sign(data))).toBe(true);
  }
  expect((await readdir(place.store)).filter((name) => name.endsWith('.tmp') || name === 'lock')).toEqual([]);
  await keys.close();
});

test('the lock of a killed process is taken over', async () => {
  const keys = await openKeys('software', { directory: place.directory, machineSecret });
  const holder = start('hold-lock', place.store);
  await once(holder.stdout!, 'data');
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  expect(await readdir(place.store)).toContain('lock');
  const signer = await keys.createKey({ label: 'a key' });
  expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
  expect(await readdir(place.store)).not.toContain('lock');
  await keys.close();
});

test('a lock that is held is waited for', async () => {
  const keys = await openKeys('software', { directory: place.directory, machineSecret });
  const holder = start('hold-lock', place.store);
  await once(holder.stdout!, 'data');
  const creating = keys.createKey({ label: 'a key' }).then(() => 'created');
  const waited = new Promise((resolve) => setTimeout(resolve, 300, 'still waiting'));
  expect(await Promise.race([creating, waited])).toBe('still waiting');
  expect(await keyFilesIn(place.store)).toEqual([]);
  holder.kill('SIGTERM'); // a process that ends in order gives its lock back at once
  expect(await creating).toBe('created');
  await keys.close();
});

test('a process killed at any moment loses no key that it had made', async () => {
  for (const delay of [0, 3, 7, 12]) {
    const { directory, store, dispose } = await makePlace();
    const child = start('create-without-end', directory);
    const output = outputOf(child);
    await once(child.stdout!, 'data');
    await new Promise((resolve) => setTimeout(resolve, delay));
    child.kill('SIGKILL');
    const made = (await output).split('\n').slice(0, -1);
    expect(made.length).toBeGreaterThan(0);

    const keys = await openKeys('software', { directory, machineSecret });
    for (const [i, thumbprint] of made.entries()) {
      const signer = await keys.getKey(`key ${i}`);
      expect(signer?.thumbprint).toBe(thumbprint);
    }
    // at most one more, whose end it did not live to tell; and every file there is a whole one
    const listed = await keys.listKeys();
    expect(listed.length - made.length).toBeLessThanOrEqual(1);
    for (const { label } of listed) expect(await keys.getKey(label)).toBeDefined();
    expect(await keyFilesIn(store)).toHaveLength(listed.length);
    await keys.close();
    await dispose();
  }
});

test('what an interrupted write left is removed on opening, once it is a minute old', async () => {
  await (await openKeys('software', { directory: place.directory, machineSecret })).close();
  const [old, fresh] = ['old.key.json.0123456789ab.tmp', 'fresh.key.json.0123456789ab.tmp'];
  for (const name of [old, fresh]) await writeFile(join(place.store, name), 'half a k');
  const minuteAgo = Date.now() / 1000 - 61;
  await utimes(join(place.store, old), minuteAgo, minuteAgo);
  const keys = await openKeys('software', { directory: place.directory, machineSecret });
  const names = await readdir(place.store);
  expect(names).toContain(fresh); // it may be another process at work
  expect(names).not.toContain(old);
  await keys.close();
});
