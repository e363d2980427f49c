import { type ChildProcess, spawn } from 'node:child_process';
import { createPublicKey } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type KeyProvider, type OpenKeysOptions, openKeys, type Signer } from 'attested/keys';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { verifiesInNode } from '../contract/key-provider.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { makePlace, type Place } from './places.ts';
import { helpersOf, isAlive, timed } from './tpm-support.ts';

const data = Buffer.from('the bytes to be signed');

describe.skipIf(skipTpm)('a TPM that fails', () => {
  let tpm: Swtpm;
  let place: Place;
  const opened: KeyProvider[] = [];
  const children: ChildProcess[] = [];
  beforeEach(async () => {
    [tpm, place] = [await startSwtpm(), await makePlace()];
  }, 60_000);
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    for (const keys of opened.splice(0)) await keys.close();
    await tpm.stop();
    await place.dispose();
  });

  async function open(options: OpenKeysOptions['tpm'] = {}, directory = place.directory): Promise<KeyProvider> {
    const keys = await openKeys('tpm', { directory, tpm: { tcti: tpm.tcti, ...options } });
    opened.push(keys);
    return keys;
  }

  function start(directory: string, ...job: string[]): { child: ChildProcess; lines: AsyncIterator<string> } {
    const path = fileURLToPath(new URL('./children/tpm-agent.ts', import.meta.url));
    const child = spawn(process.execPath, [path, directory, tpm.tcti, ...job], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    return { child, lines: createInterface({ input: child.stdout! })[Symbol.asyncIterator]() };
  }

  const works = async (signer: Signer) => expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);

  test('a helper that is killed is replaced, and nothing that waits is lost', async () => {
    const keys = await open();
    const signers = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((label) => keys.createKey({ label })));
    const signing = Array.from({ length: 50 }, (_, i) => signers[i % 5]!.sign(data));
    const making = keys.createKey({ label: 'made meanwhile' });
    const [helper] = helpersOf(process.pid);
    process.kill(helper!, 'SIGKILL');
    (await Promise.all(signing)).forEach((signature, i) => {
      expect(verifiesInNode(signers[i % 5]!, signature)).toBe(true);
    });
    await works(await making);
    expect(helpersOf(process.pid)).not.toContain(helper);
    expect(await keys.listKeys()).toHaveLength(6);
  });

  test('a helper that is killed while nobody waits is replaced when somebody does', async () => {
    const signer = await (await open()).createKey({ label: 'a key' });
    for (let i = 0; i < 5; i++) {
      for (const helper of helpersOf(process.pid)) process.kill(helper, 'SIGKILL');
      await new Promise((resolve) => setTimeout(resolve, 20));
      await works(signer);
    }
  });

  test('a helper that cannot be started is told, and tried again', async () => {
    const { execPath } = process;
    try {
      for (const path of ['/nowhere/node', '/bin/false']) {
        process.execPath = path;
        const { error, milliseconds } = await timed(open());
        expect(error).toMatchObject({ code: 'key_store_unavailable', message: expect.stringContaining('process') });
        expect(milliseconds).toBeLessThan(2000);
      }
    } finally {
      process.execPath = execPath;
    }
    await works(await (await open()).createKey({ label: 'a key' }));
  });

  test('a TPM that hangs is given up at the deadline, for all who wait, and is used again when it answers', async () => {
    await open(); // starts the helper, which may take its time
    const keys = await open({ deadline: 1000 });
    const signer = await keys.createKey({ label: 'a key' });
    tpm.freeze();
    let ticks = 0;
    const ticking = setInterval(() => void ticks++, 5);
    const all = await Promise.all(Array.from({ length: 20 }, () => timed(signer.sign(data))));
    clearInterval(ticking);
    for (const { error, milliseconds } of all) {
      expect(error).toMatchObject({
        code: 'key_store_unavailable',
        message: expect.stringContaining('did not answer within 1 s'),
      });
      expect(milliseconds).toBeGreaterThan(950);
      expect(milliseconds).toBeLessThan(3000);
    }
    expect(ticks).toBeGreaterThan(40); // our own event loop went on
    tpm.thaw();
    // so short a deadline may be over, on a busy machine, before the new helper has started: one that follows finds it ready
    const again = () => signer.sign(data).then((signature) => verifiesInNode(signer, signature), String);
    await expect.poll(again, { timeout: 10_000 }).toBe(true);
  });

  test('a TPM that hangs does not keep a provider from opening or closing', async () => {
    const keys = await open();
    await keys.createKey({ label: 'a key' });
    tpm.freeze();
    const { error, milliseconds } = await timed(open({ deadline: 400 }, join(place.root, 'other')));
    expect(error).toMatchObject({ code: 'key_store_unavailable' });
    expect(milliseconds).toBeLessThan(3000);
    expect((await timed(keys.close())).milliseconds).toBeLessThan(3000);
    tpm.thaw();
  });

  test('a TPM that is gone says so at once, and its keys are back with it', async () => {
    const keys = await open();
    const signer = await keys.createKey({ label: 'a key' });
    await tpm.kill();
    const { error, milliseconds } = await timed(signer.sign(data));
    expect(error).toMatchObject({ code: 'key_store_unavailable' });
    expect(milliseconds).toBeLessThan(2000);
    await tpm.restart();
    await works(signer);
  });

  test('a TPM that restarts between two signatures is not noticed', async () => {
    const signer = await (await open({ saltedSessions: true, pcrs: { sha256: [7] } })).createKey({ label: 'a key' });
    for (let i = 0; i < 3; i++) {
      await works(signer);
      await tpm.restart();
    }
    await works(signer);
  });

  test('ten power cuts in a row, each after all kinds of use, lock nothing out', async () => {
    const keys = await open({ keyAuth: Buffer.alloc(32, 7) });
    const signer = await keys.createKey({ label: 'a key' });
    for (let i = 0; i < 10; i++) {
      await works(signer);
      await keys.tpm!.certify('a key', data);
      await keys.tpm!.endorsementKey();
      await keys.tpm!.activate(new Uint8Array(52), new Uint8Array(70)).catch(() => undefined);
      await tpm.restart();
    }
    await works(signer);
    expect(await tpm.tools('tpm2_getcap', 'properties-variable')).toMatch(/LOCKOUT_COUNTER: 0x0\b/);
  });

  test('another TPM in the place of the one that made the key is told apart, and the first one is known again', async () => {
    const keys = await open();
    const signer = await keys.createKey({ label: 'a key' });
    await works(signer);
    const [state, mine] = [join(tpm.directory, 'state'), join(tpm.directory, 'mine')];
    const other = await startSwtpm({ fresh: true });
    const replaceState = async (by: string) => {
      await tpm.kill();
      rmSync(state, { recursive: true });
      cpSync(by, state, { recursive: true });
      await tpm.restart();
    };
    await tpm.kill();
    cpSync(state, mine, { recursive: true });
    await replaceState(join(other.directory, 'state'));
    await expect(signer.sign(data)).rejects.toMatchObject({
      code: 'key_store_wrong_secret',
      message: expect.stringContaining('another TPM'),
    });
    await replaceState(mine);
    await works(signer);
    await other.stop();
  });

  test.each([
    ['tpm2_createprimary', '-C', 'n'],
    ['tpm2_loadexternal', '-C', 'n', '-G', 'ecc', '-u', 'public.pem'],
  ])('slots that another program left full are waited for, then taken: %s', async (command, ...args) => {
    const signer = await (await open()).createKey({ label: 'a key' });
    await new Promise((resolve) => setTimeout(resolve, 400)); // ours are given back
    const key = createPublicKey({ key: signer.publicJwk, format: 'jwk' });
    writeFileSync(join(tpm.directory, 'public.pem'), key.export({ type: 'spki', format: 'pem' }));
    for (let i = 0; i < 3; i++) await tpm.tools(command!, ...args, '-c', `${i}.ctx`);
    expect((await tpm.tools('tpm2_getcap', 'handles-transient')).match(/0x8/g)).toHaveLength(3);
    await works(signer);
  });

  test('slots that another program gives back are used as soon as they are', async () => {
    const signer = await (await open()).createKey({ label: 'a key' });
    await new Promise((resolve) => setTimeout(resolve, 400));
    for (let i = 0; i < 3; i++) await tpm.tools('tpm2_createprimary', '-C', 'n', '-c', `${i}.ctx`);
    const signing = timed(works(signer));
    await new Promise((resolve) => setTimeout(resolve, 300));
    await tpm.tools('tpm2_flushcontext', '-t');
    const { error, milliseconds } = await signing;
    expect(error).toBeUndefined();
    expect(milliseconds).toBeLessThan(2500);
  });

  test('lock-out does not concern our keys, and is told where it does', async () => {
    const keys = await open({ keyAuth: Buffer.alloc(32, 7) });
    const signer = await keys.createKey({ label: 'a key' });
    await tpm.tools('tpm2_dictionarylockout', '-s', '-n', '1', '-t', '1000', '-l', '1000');
    await tpm.tools('tpm2_createprimary', '-C', 'n', '-c', 'p.ctx', '-p', 'right');
    await tpm.tools('tpm2_create', '-C', 'p.ctx', '-P', 'wrong', '-u', 'u', '-r', 'r').catch(() => undefined);
    expect(await tpm.tools('tpm2_getcap', 'properties-variable')).toMatch(/inLockout: +1/);
    await tpm.tools('tpm2_flushcontext', '-t');
    const right = tpm.tools('tpm2_create', '-C', 'p.ctx', '-P', 'right', '-u', 'u', '-r', 'r');
    await expect(right).rejects.toThrow(/0x921/i);
    await tpm.tools('tpm2_flushcontext', '-t');
    await works(signer);
    await works(await keys.createKey({ label: 'made in lock-out' }));
    await keys.secrets.set('a secret', data);
    expect(Buffer.from((await keys.secrets.get('a secret'))!)).toEqual(data);
    await keys.tpm!.certify('a key', data);
    await keys.tpm!.quote({ sha256: [7] }, data);
  });

  test('two agents on one TPM, both busy, both get on', async () => {
    const keys = await open();
    const signer = await keys.createKey({ label: 'a key' });
    await works(signer);
    const { child, lines } = start(join(place.root, 'other'), 'sign', '200');
    let mine = 0;
    let ended = false;
    const end = once(child, 'close').then(() => {
      ended = true;
    });
    while (!ended) {
      await works(signer);
      mine += 1;
    }
    await end;
    await lines.next();
    const { signatures, ...other } = JSON.parse((await lines.next()).value as string) as Signer & {
      signatures: string[];
    };
    expect(signatures).toHaveLength(201);
    for (const signature of signatures) expect(verifiesInNode(other, Buffer.from(signature, 'base64url'))).toBe(true);
    expect(mine).toBeGreaterThan(100);
  });

  test('an agent that is killed leaves no helper, also where the TPM hangs', async () => {
    for (const frozen of [false, true]) {
      const { child, lines } = start(join(place.root, `killed ${frozen}`), 'stay');
      await lines.next();
      const helpers = helpersOf(child.pid!);
      expect(helpers).toHaveLength(1);
      if (frozen) tpm.freeze();
      child.kill('SIGKILL');
      await expect.poll(() => isAlive(helpers[0]!), { timeout: 5000 }).toBe(false);
      tpm.thaw();
      if (!frozen) expect(await tpm.tools('tpm2_getcap', 'handles-transient')).toBe('');
    }
  });

  test('an agent that has nothing more to do ends, though it closed nothing', async () => {
    const { child } = start(place.directory, 'leave');
    expect(await once(child, 'exit')).toEqual([0, null]);
    await expect.poll(async () => tpm.tools('tpm2_getcap', 'handles-transient'), { timeout: 5000 }).toBe('');
  });

  test.each([
    ['a socket that is not there', 'swtpm:path=/nowhere/socket'],
    ['a device that is not there', 'device:/dev/tpm-that-is-not-there'],
    ['a module that is not there', 'no-such-module'],
    ['nonsense', ':::'],
  ])('a TCTI that leads to no TPM is told soon: %s', async (_what, tcti) => {
    const { error, milliseconds } = await timed(open({ tcti }));
    expect(error).toMatchObject({ code: 'key_store_unavailable' });
    expect(milliseconds).toBeLessThan(3000);
  });
});
