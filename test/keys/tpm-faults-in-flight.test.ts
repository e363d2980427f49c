import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type KeyProvider, type OpenKeysOptions, openKeys, type Signer } from 'attested/keys';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openEsys } from '../../src/native/tpm2-tss/index.ts';
import { verifiesInNode } from '../contract/key-provider.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { type Relay, startRelay } from '../support/swtpm-relay.ts';
import { makePlace, type Place } from './places.ts';
import { helpersOf, isAlive, timed } from './tpm-support.ts';

const data = Buffer.from('the bytes to be signed');
const DEADLINE = 2000;
/** What a busy machine may add to a deadline. */
const LATE = 4000;

describe.skipIf(skipTpm)('a TPM that fails while it is used', () => {
  let tpm: Swtpm;
  let relay: Relay;
  let place: Place;
  const opened: KeyProvider[] = [];
  const children: ChildProcess[] = [];
  beforeEach(async () => {
    [tpm, place] = [await startSwtpm(), await makePlace()];
    relay = await startRelay(tpm);
  }, 60_000);
  afterEach(async () => {
    tpm.thaw();
    for (const child of children.splice(0)) child.kill('SIGKILL');
    for (const keys of opened.splice(0)) await keys.close();
    await relay.close();
    await tpm.stop();
    await place.dispose();
  });

  async function open(options: OpenKeysOptions['tpm'] = {}): Promise<KeyProvider> {
    const keys = await openKeys('tpm', { directory: place.directory, tpm: { tcti: relay.tcti, ...options } });
    opened.push(keys);
    return keys;
  }

  function start(child: string, args: readonly string[], wrapper: readonly string[] = []) {
    const path = fileURLToPath(new URL(`./children/${child}`, import.meta.url));
    const [command, ...rest] = [...wrapper, process.execPath, path, place.directory, relay.tcti, ...args];
    const started = spawn(command!, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
    children.push(started);
    const lines = createInterface({ input: started.stdout })[Symbol.asyncIterator]();
    return { child: started, next: async () => (await lines.next()).value as string | undefined };
  }

  const works = async (signer: Signer) => expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);
  const killHelper = () => {
    for (const helper of helpersOf(process.pid)) process.kill(helper, 'SIGKILL');
  };

  test.each<[string, (tpm: Swtpm) => Promise<unknown>]>([
    ['dies', (tpm) => tpm.kill()],
    ['hangs', async (tpm) => tpm.freeze()],
    ['hangs, then dies', (tpm) => sleep(100, tpm.freeze()).then(() => tpm.kill())],
    ['restarts', (tpm) => tpm.restart()],
    ['loses its helper', async () => killHelper()],
  ])('200 signatures in flight while the TPM %s: each has an end in time, and the key stays', async (_what, fail) => {
    const keys = await open({ deadline: DEADLINE });
    const signer = await keys.createKey({ label: 'a key' });
    await works(signer);
    const signing = Array.from({ length: 200 }, () => timed(signer.sign(data)));
    await Promise.race(signing); // it is under way
    await fail(tpm);
    for (const { value, error, milliseconds } of await Promise.all(signing)) {
      if (value) expect(verifiesInNode(signer, value)).toBe(true);
      else expect(error).toMatchObject({ name: 'AttestedError', code: 'key_store_unavailable' });
      expect(milliseconds).toBeLessThan(DEADLINE + LATE);
    }
    await tpm.restart();
    await expect.poll(() => works(signer).then(() => true, String), { timeout: 10_000 }).toBe(true);
    expect(await keys.listKeys()).toHaveLength(1);
  });

  test('a TPM that dies during a signature is told then, not at the deadline', async () => {
    const signer = await (await open()).createKey({ label: 'a key' });
    tpm.freeze();
    const signing = timed(signer.sign(data));
    await sleep(200);
    await tpm.kill();
    const { error, milliseconds } = await signing;
    expect(error).toMatchObject({ code: 'key_store_unavailable' });
    expect(milliseconds).toBeLessThan(200 + LATE);
    await tpm.restart();
    await works(signer);
  });

  test('a helper that is killed during a signature: another one makes it', async () => {
    const signer = await (await open()).createKey({ label: 'a key' });
    tpm.freeze();
    const signing = signer.sign(data);
    await sleep(200);
    killHelper();
    tpm.thaw();
    expect(verifiesInNode(signer, await signing)).toBe(true);
  });

  test('a signature that two helpers died of is given up, and the ones behind it are made', async () => {
    const signer = await (await open()).createKey({ label: 'a key' });
    tpm.freeze();
    const [first, ...others] = Array.from({ length: 5 }, () => timed(signer.sign(data)));
    for (let i = 0; i < 2; i++) {
      await sleep(100);
      killHelper();
    }
    expect((await first!).error).toMatchObject({ code: 'key_store_unavailable' });
    tpm.thaw();
    for (const { value } of await Promise.all(others)) expect(verifiesInNode(signer, value!)).toBe(true);
  });

  test('helpers that die with sessions open leave no full TPM behind', async () => {
    const keys = await open({ saltedSessions: true, pcrs: { sha256: [7] } });
    const signer = await keys.createKey({ label: 'a key' });
    for (let i = 0; i < 6; i++) {
      await works(signer);
      killHelper();
      await sleep(50);
    }
    await works(signer);
  });

  test('sessions of another program: waited for, and no matter to keys that need none', async () => {
    const plain = await (await open()).createKey({ label: 'plain' });
    const salted = await (await open({ saltedSessions: true })).createKey({ label: 'salted' });
    const noSessions = () =>
      expect.poll(async () => tpm.tools('tpm2_getcap', 'handles-loaded-session'), { timeout: 5000 }).toBe('');
    await noSessions(); // ours is given back
    const esys = await openEsys(relay.tcti);
    const sessions = [];
    for (let i = 0; i < 3; i++) sessions.push(await esys.startSession({ type: 'hmac' }));
    await works(plain);
    const signing = works(salted);
    await sleep(300);
    for (const session of sessions) await esys.flush(session);
    await signing;
    await noSessions();
    for (let i = 0; i < 3; i++) await esys.startSession({ type: 'hmac' });
    await esys.close(); // its sessions stay, as after a crash
    await works(salted);
  });

  test('power cuts while keys are made: each is there and works, or is not there and can be made', async () => {
    const keys = await open({ deadline: DEADLINE });
    const labels = Array.from({ length: 30 }, (_, i) => `key ${i}`);
    const making = labels.map((label) => timed(keys.createKey({ label })));
    for (let i = 0; i < 3; i++) {
      await sleep(40);
      await tpm.restart();
    }
    const made = await Promise.all(making);
    for (const { error } of made) if (error) expect(error).toMatchObject({ code: 'key_store_unavailable' });
    const listed = (await keys.listKeys()).length;
    expect(listed).toBeGreaterThanOrEqual(made.filter(({ value }) => value).length);
    for (const label of labels) await works(await keys.createKey({ label }));
    for (const { value } of made) if (value) await works(value);
  });

  test('three processes that make the same label at once have one key', async () => {
    const agents = Array.from({ length: 3 }, () => start('tpm-agent.ts', ['sign', '1']));
    const told = await Promise.all(agents.map(async ({ next }) => JSON.parse((await next())!) as Signer));
    expect(new Set(told.map(({ publicJwk }) => publicJwk.x)).size).toBe(1);
    expect(
      (await readdir(join(place.directory, 'tpm-keys'))).filter((name) => name.endsWith('.key.json')),
    ).toHaveLength(1);
  });

  test('no room for files: keys that are there work, others are refused, nothing half is left', async () => {
    const keys = await open();
    const signer = await keys.createKey({ label: 'a key' });
    const before = await readdir(join(place.directory, 'tpm-keys'));
    const noRoom = ['sh', '-c', 'ulimit -f 0; exec "$@"', 'sh'];
    const { child, next } = start('tpm-no-room.ts', [], noRoom);
    const ended = once(child, 'exit');
    expect(JSON.parse((await next())!)).toEqual({
      signing: 'done',
      making: 'key_store_unavailable',
      certifying: 'key_store_unavailable', // its attestation key could not be kept
      keeping: 'key_store_unavailable',
      listed: ['a key'],
    });
    expect(await ended).toEqual([0, null]);
    expect(await readdir(join(place.directory, 'tpm-keys'))).toEqual(before);
    await works(signer);
    await works(await keys.createKey({ label: 'another' }));
  });

  test.each([
    ['exit', 'an agent that calls process.exit() does not wait for the TPM'],
    ['natural', 'an agent that has nothing else to do waits for the deadline, and no longer'],
    ['stay', 'an agent that is killed leaves no helper'],
  ])('the TPM hangs in a signature, %s: %s', async (how) => {
    const { child, next } = start('tpm-ends.ts', [how]);
    expect(await next()).toBe('ready');
    const [helper] = helpersOf(child.pid!);
    tpm.freeze();
    child.stdin.write('go\n');
    expect(await next()).toBe('signing');
    await sleep(how === 'stay' ? 200 : 0); // the signature has reached the TPM
    const ended = timed(once(child, 'exit'));
    if (how === 'stay') child.kill('SIGKILL');
    const { value, milliseconds } = await ended;
    if (how !== 'stay') expect(value).toEqual([0, null]);
    expect(milliseconds).toBeLessThan(LATE + (how === 'natural' ? DEADLINE : 0));
    if (how === 'natural') {
      for (let i = 0; i < 5; i++) expect(await next()).toBe('key_store_unavailable');
    }
    await expect.poll(() => isAlive(helper!), { timeout: 8000 }).toBe(false);
  });
});
