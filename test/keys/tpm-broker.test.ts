import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type KeyProvider, openKeys, type Signer } from 'attested/keys';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { verifiesInNode } from '../contract/key-provider.ts';
import { type Keyring, skipKeychain, startKeyring } from '../support/keyring.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { makePlace, type Place } from './places.ts';

const data = Buffer.from('the bytes to be signed');
const TCTI = 'tabrmd:bus_type=session,bus_name=com.intel.tss2.Tabrmd';
/**
 * Not among what `npm test` installs: the package tpm2-abrmd makes its daemon the TPM of the whole machine, which then is
 * chosen by whoever opens keys there.
 */
const isInstalled = spawnSync('tpm2-abrmd', ['--version'], { stdio: 'ignore' }).error === undefined;

describe.skipIf(skipTpm)('a resource manager daemon', () => {
  if (!isInstalled || skipKeychain) {
    test('is found by what its package installs, without one that runs', async () => {
      const { chooseTcti } = await import('../../src/keys/tpm/tcti.ts');
      const exists = (path: string) => path.endsWith('com.intel.tss2.Tabrmd.service');
      const surroundings = { env: {}, platform: 'linux' as const, exists, mayUse: () => false };
      expect(chooseTcti(undefined, surroundings)).toEqual({ tcti: 'tabrmd', managed: true });
    });
    return;
  }

  let tpm: Swtpm;
  let bus: Keyring;
  let place: Place;
  let daemon: ChildProcess;
  const opened: KeyProvider[] = [];
  beforeEach(async () => {
    [tpm, bus, place] = [await startSwtpm(), await startKeyring('none'), await makePlace()];
    vi.stubEnv('DBUS_SESSION_BUS_ADDRESS', bus.env.DBUS_SESSION_BUS_ADDRESS!);
    daemon = await startDaemon();
  }, 60_000);
  afterEach(async () => {
    for (const keys of opened.splice(0)) await keys.close();
    daemon.kill('SIGKILL');
    vi.unstubAllEnvs();
    await bus.stop();
    await tpm.stop();
    await place.dispose();
  });

  async function startDaemon(): Promise<ChildProcess> {
    const started = spawn('tpm2-abrmd', ['--session', '--allow-root', '--flush-all', `--tcti=${tpm.tcti}`], {
      stdio: 'ignore',
    });
    await expect
      .poll(() => spawnSync('tpm2_getrandom', ['1', '-T', TCTI], { stdio: 'ignore' }).status, { timeout: 10_000 })
      .toBe(0);
    return started;
  }

  async function open(directory = place.directory): Promise<KeyProvider> {
    const keys = await openKeys('tpm', { directory, tpm: { tcti: TCTI, saltedSessions: true } });
    opened.push(keys);
    return keys;
  }
  const works = async (signer: Signer) => expect(verifiesInNode(signer, await signer.sign(data))).toBe(true);

  test('two agents, both busy with more keys than slots, both get on', async () => {
    const keys = await open();
    expect(keys.why).toContain('through a resource manager');
    const signers = await Promise.all(Array.from({ length: 12 }, (_, i) => keys.createKey({ label: `key ${i}` })));
    const path = join(import.meta.dirname, 'children/tpm-agent.ts');
    const child = spawn(process.execPath, [path, join(place.root, 'other'), TCTI, 'sign', '100'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const ended = once(child, 'exit');
    for (let i = 0; i < 10; i++) for (const signer of signers) await works(signer);
    await lines.next();
    const { signatures, ...other } = JSON.parse((await lines.next()).value as string) as Signer & {
      signatures: string[];
    };
    expect(signatures).toHaveLength(101);
    for (const signature of signatures) expect(verifiesInNode(other, Buffer.from(signature, 'base64url'))).toBe(true);
    expect(await ended).toEqual([0, null]);
  });

  test('that dies is told, and its keys are back with the next one; a TPM that restarts behind it is not noticed', async () => {
    const signer = await (await open()).createKey({ label: 'a key' });
    await tpm.restart();
    await works(signer);
    for (let i = 0; i < 2; i++) {
      daemon.kill('SIGKILL');
      await once(daemon, 'exit');
      await expect(signer.sign(data)).rejects.toMatchObject({ code: 'key_store_unavailable' });
      daemon = await startDaemon();
      await works(signer);
    }
  });
});
