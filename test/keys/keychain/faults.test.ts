/** Keychains that are locked, gone or hung, entries that others wrote, several processes. All of it against gnome-keyring. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { inspect, promisify } from 'node:util';
import { importSigner, openKeys } from 'attested/keys';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connectKeychain } from '../../../src/keys/keychain/client.ts';
import { newEntry, openEntry } from '../../../src/keys/keychain/entry.ts';
import { verifiesInNode } from '../../contract/key-provider.ts';
import { type Keyring, skipKeychain, startKeyring } from '../../support/keyring.ts';
import { makePlace, type Place } from '../places.ts';

const run = promisify(execFile);
const data = Buffer.from('the bytes to be signed');
const usual = { ...process.env };
let place: Place;
let keyring: Keyring | undefined;
const children: ChildProcess[] = [];
beforeEach(async () => {
  place = await makePlace();
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  keyring?.thaw();
  await keyring?.stop();
  keyring = undefined;
  process.env = { ...usual };
  await place.dispose();
});

async function inKeyring(daemon?: 'unlocked' | 'new' | 'none'): Promise<Keyring> {
  keyring = await startKeyring(daemon);
  Object.assign(process.env, keyring.env);
  return keyring;
}

const refused = (code: string, words: string) => ({ code, message: expect.stringContaining(words) });

describe.skipIf(skipKeychain)('a keychain that cannot be used', () => {
  test('locked: says how to unlock it, and works once that is done', async () => {
    const { lock, unlock } = await inKeyring();
    const keys = await openKeys('keychain', { directory: place.directory });
    const { thumbprint } = await keys.createKey({ label: 'a key' });
    await keys.secrets.set('a secret', data);

    await lock();
    await expect(openKeys('keychain', { directory: place.directory })).rejects.toMatchObject(
      refused('key_store_locked', 'gnome-keyring-daemon'),
    );
    await expect(keys.getKey('a key')).rejects.toMatchObject({ code: 'key_store_locked' });
    await expect(keys.createKey({ label: 'new' })).rejects.toMatchObject({ code: 'key_store_locked' });
    await expect(keys.listKeys()).rejects.toMatchObject({ code: 'key_store_locked' });
    await expect(keys.deleteKey('a key')).rejects.toMatchObject({ code: 'key_store_locked' });

    await unlock();
    const again = await openKeys('keychain', { directory: place.directory });
    expect((await again.getKey('a key'))?.thumbprint).toBe(thumbprint);
    expect(Buffer.from((await again.secrets.get('a secret'))!)).toEqual(data);
    expect((await keys.getKey('a key'))?.thumbprint).toBe(thumbprint);
    await Promise.all([keys.close(), again.close()]);
  });

  test('never set up, so that there is nowhere to write', async () => {
    await inKeyring('new');
    await expect(openKeys('keychain', { directory: place.directory })).rejects.toMatchObject(
      refused('key_store_unavailable', 'collection'),
    );
  });

  test('no Secret Service on the bus', async () => {
    await inKeyring('none');
    await expect(openKeys('keychain', { directory: place.directory })).rejects.toMatchObject(
      refused('key_store_unavailable', 'gnome-keyring'),
    );
  });

  test.each([
    ['no such socket', 'unix:path=/nonexistent/bus'],
    ['no address', ''],
    ['no address that could be read', 'nonsense'],
  ])('no D-Bus: %s', async (_what, address) => {
    process.env.DBUS_SESSION_BUS_ADDRESS = address;
    process.env.XDG_RUNTIME_DIR = place.root;
    await expect(openKeys('keychain', { directory: place.directory })).rejects.toMatchObject(
      refused('key_store_unavailable', 'DBUS_SESSION_BUS_ADDRESS'),
    );
  });

  test.each(['daemon', 'bus'] as const)(
    'a %s that hangs ends every call at its deadline, and stops nothing else',
    async (what) => {
      const { freeze, thaw } = await inKeyring();
      const keys = await openKeys('keychain', { ...place, keychainTimeout: 700 });
      const signer = await keys.createKey({ label: 'a key' });

      freeze(what);
      const begun = performance.now();
      const calls = [keys.getKey('a key'), keys.listKeys(), keys.createKey({ label: 'another' })];
      let longest = 0;
      const beat = setInterval(() => {
        longest = Math.max(longest, performance.now() - last);
        last = performance.now();
      }, 5);
      let last = performance.now();
      const results = await Promise.allSettled(calls);
      clearInterval(beat);
      for (const result of results)
        expect(result).toMatchObject({ status: 'rejected', reason: refused('key_store_locked', 'within 0.7 s') });
      expect(performance.now() - begun).toBeLessThan(5000);
      expect(longest).toBeLessThan(300);
      expect(verifiesInNode(signer, await signer.sign(data))).toBe(true); // from memory

      thaw();
      expect((await keys.getKey('a key'))?.thumbprint).toBe(signer.thumbprint);
      await keys.close();
    },
  );

  test('one that was not there at first, and one that comes back, is found', async () => {
    const { kill, unlock } = await inKeyring('none');
    await expect(openKeys('keychain', { directory: place.directory })).rejects.toMatchObject({
      code: 'key_store_unavailable',
    });
    await unlock();
    const keys = await openKeys('keychain', { directory: place.directory });
    const { thumbprint } = await keys.createKey({ label: 'a key' });
    await kill();
    await expect(keys.getKey('a key')).rejects.toMatchObject({ code: 'key_store_unavailable' });
    await unlock();
    expect((await keys.getKey('a key'))?.thumbprint).toBe(thumbprint);
    await keys.close();
  });

  test('another keychain than the one that the secrets were kept under', async () => {
    const { home } = await inKeyring();
    const keys = await openKeys('keychain', { directory: place.directory });
    await keys.secrets.set('a secret', data);
    await keys.close();
    await keyring!.kill();
    await rm(join(home, 'data'), { recursive: true });
    await keyring!.unlock();
    await expect(openKeys('keychain', { directory: place.directory })).rejects.toMatchObject(
      refused('key_store_corrupt', 'lost the key'),
    );
  });

  test('a directory whose own file was lost', async () => {
    await inKeyring();
    const keys = await openKeys('keychain', { directory: place.directory });
    await keys.secrets.set('a secret', data);
    await keys.close();
    await rm(join(place.directory, 'keychain', 'keychain.json'));
    await expect(openKeys('keychain', { directory: place.directory })).rejects.toMatchObject(
      refused('key_store_corrupt', 'keychain.json is missing'),
    );
  });
});

describe.skipIf(skipKeychain)('entries', () => {
  const keytar = createRequire(import.meta.url).resolve('@napi-rs/keyring/keytar');
  /** As another program has it: its own process, so that ours loads nothing native. */
  const inKeytar = async (expression: string): Promise<unknown> => {
    const program = `const keytar = require(${JSON.stringify(keytar)}); (async () => JSON.stringify(await ${expression}) ?? 'null')().then(console.log)`;
    return JSON.parse((await run(process.execPath, ['-e', program])).stdout);
  };

  test('are found by programs that use keytar, under service attested and the label', async () => {
    await inKeyring();
    const keys = await openKeys('keychain', { directory: place.directory });
    const { thumbprint } = await keys.createKey({ label: 'a key' });
    const text = (await inKeytar("keytar.getPassword('attested', 'a key')")) as string;
    expect(importSigner(JSON.parse(text)).thumbprint).toBe(thumbprint);
    expect(text.length).toBeLessThan(2560);
    await keys.close();
  });

  test('that keytar programs wrote are keys: JWK and PEM', async () => {
    await inKeyring();
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
    const { thumbprint } = importSigner(pem);
    await inKeytar(`keytar.setPassword('attested', 'pem', ${JSON.stringify(pem)})`);
    await inKeytar(
      `keytar.setPassword('attested', 'jwk', ${JSON.stringify(JSON.stringify(privateKey.export({ format: 'jwk' })))})`,
    );
    const keys = await openKeys('keychain', { directory: place.directory });
    for (const label of ['pem', 'jwk']) {
      const signer = await keys.getKey(label);
      expect(signer).toMatchObject({ alg: 'ES256', thumbprint });
      expect(verifiesInNode(signer!, await signer!.sign(data))).toBe(true);
    }
    expect(await keys.listKeys()).toHaveLength(2);
    await keys.close();
  });

  test('of other programs are no keys: not listed, not overwritten, and not shown', async () => {
    await inKeyring();
    await inKeytar("keytar.setPassword('attested', 'mail', 'hunter2')");
    await inKeytar("keytar.setPassword('attested', 'clé', 'not a label')");
    const keys = await openKeys('keychain', { directory: place.directory });
    expect(await keys.listKeys()).toEqual([]);
    for (const job of [() => keys.getKey('mail'), () => keys.createKey({ label: 'mail' })]) {
      const error = await job().catch((error: unknown) => error);
      expect(error).toMatchObject({ code: 'key_store_corrupt' });
      expect(inspect(error, { depth: Infinity, showHidden: true })).not.toContain('hunter2');
    }
    expect(await inKeytar("keytar.getPassword('attested', 'mail')")).toBe('hunter2');
    expect(await keys.deleteKey('mail')).toBe(true);
    await keys.createKey({ label: 'mail' });
    await keys.close();
  });

  test('of a service of its own are apart', async () => {
    await inKeyring();
    const mine = await openKeys('keychain', { directory: place.directory });
    const theirs = await openKeys('keychain', { ...place, keychainService: 'another agent' });
    const made = [await mine.createKey({ label: 'a key' }), await theirs.createKey({ label: 'a key' })];
    expect(made[0]!.thumbprint).not.toBe(made[1]!.thumbprint);
    expect(await mine.listKeys()).toHaveLength(1);
    expect(await theirs.deleteKey('a key')).toBe(true);
    expect((await mine.getKey('a key'))?.thumbprint).toBe(made[0]!.thumbprint);
    await Promise.all([mine.close(), theirs.close()]);
  });

  test('hold keys that cannot be exported once they are read', async () => {
    const { key } = await openEntry('a key', newEntry('ES256'), undefined);
    expect(key).toMatchObject({ type: 'private', extractable: false, usages: ['sign'] });
    await expect(crypto.subtle.exportKey('pkcs8', key)).rejects.toThrow(/extractable/);
    await expect(crypto.subtle.exportKey('jwk', key)).rejects.toThrow(/extractable/);
  });

  test('are understood in the UTF-16 that programs on Windows write', async () => {
    const text = Buffer.from(newEntry('ES256')).toString();
    const { part } = await openEntry('a key', Buffer.from(text, 'utf16le'), undefined);
    expect(part.thumbprint).toBe(importSigner(JSON.parse(text)).thumbprint);
  });

  test('whose public and private parts are of different keys are refused', async () => {
    const [a, b] = [newEntry('ES256'), newEntry('ES256')].map((entry) => JSON.parse(Buffer.from(entry).toString()));
    const mixed = Buffer.from(JSON.stringify({ ...a, d: b.d }));
    await expect(openEntry('a key', mixed, undefined)).rejects.toMatchObject({ code: 'key_store_corrupt' });
  });
});

describe.skipIf(skipKeychain)('processes', () => {
  test('that create the same labels at once get the same keys, in one directory or in several, and end by themselves', async () => {
    await inKeyring();
    const labels = ['a key', 'another', 'a third'];
    const script = fileURLToPath(new URL('../children/create-in-keychain.ts', import.meta.url));
    const instant = String(Date.now() + 700);
    const outputs = await Promise.all(
      Array.from({ length: 5 }, async (_, i) => {
        const directory = i < 3 ? place.directory : join(place.root, `state ${i}`);
        return JSON.parse((await run(process.execPath, [script, directory, instant, ...labels])).stdout) as string[];
      }),
    );
    expect(outputs[0]).toHaveLength(3);
    for (const output of outputs) expect(output).toEqual(outputs[0]);
    const keys = await openKeys('keychain', { directory: place.directory });
    expect((await keys.listKeys()).map(({ thumbprint }) => thumbprint).sort()).toEqual([...outputs[0]!].sort());
    await keys.close();
  });

  test('that are killed take their helper along', async () => {
    await inKeyring();
    const module = new URL('../../../src/keys/index.ts', import.meta.url).href;
    const program = `const { openKeys } = await import(${JSON.stringify(module)});
      globalThis.keys = await openKeys('keychain', { directory: ${JSON.stringify(place.directory)} });
      console.log('open'); setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    await once(child.stdout, 'data');
    const helpers = childrenOf(child.pid!);
    expect(helpers).toHaveLength(1);
    child.kill('SIGKILL');
    for (let i = 0; i < 100 && isAlive(helpers[0]!); i++) await sleep(20);
    expect(isAlive(helpers[0]!)).toBe(false);
  });

  test('whose helper is killed get a new one', async () => {
    const { freeze, thaw } = await inKeyring();
    const keychain = connectKeychain(5000);
    await keychain.set('attested', 'an account', data);
    const [helper] = childrenOf(process.pid, 'helper.ts');
    freeze('daemon');
    const waiting = [keychain.get('attested', 'an account'), keychain.list('attested')];
    process.kill(helper!, 'SIGKILL');
    for (const result of await Promise.allSettled(waiting)) {
      expect(result).toMatchObject({ reason: refused('key_store_unavailable', 'helper') });
    }
    thaw();
    expect(Buffer.from((await keychain.get('attested', 'an account'))!)).toEqual(data);
    keychain.close();
  });
});

/** Processes by their parent, as Linux lists them. */
function childrenOf(parent: number, script = ''): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids
    .map(Number)
    .filter((pid) => statusOf(pid)?.parent === parent && read(`/proc/${pid}/cmdline`)?.includes(script));
}

function statusOf(pid: number): { state: string; parent: number } | undefined {
  const [, state, parent] = /\) (\w) (\d+)/.exec(read(`/proc/${pid}/stat`) ?? '') ?? [];
  return state === undefined ? undefined : { state, parent: Number(parent) };
}

const isAlive = (pid: number) => !['Z', undefined].includes(statusOf(pid)?.state);

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined; // it has ended since
  }
}
