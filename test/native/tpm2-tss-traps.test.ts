/**
 * The traps of calling tpm2-tss from Node, each seen in a trial. Tested elsewhere, because they need a process around the TPM:
 * one that hangs for good, two users without a resource manager, power cuts; they are the key provider's. The padding of
 * signatures is `attested/tpm2`'s. Sockets by the thousand, which TCP keeps waiting after their end, cannot happen: the
 * software TPM of the tests listens on a unix socket.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Esys, installHint, NO_RESPONSE, openEsys, TpmError } from '../../src/native/tpm2-tss/index.ts';
import { instanceKeyTemplate, srkTemplate } from '../../src/tpm2/index.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';
import { bytes, handles, hex, isSigned, LOADED_SESSION, newKey, SHA256, TRANSIENT, withTpm } from './support.ts';

const digestOf = (text: string) => new Uint8Array(createHash('sha256').update(text).digest());
const refusedWith = (code: number) => expect.objectContaining({ name: 'TpmError', code });
const run = promisify(execFile);

describe.skipIf(skipTpm)('tpm2-tss: memory', () => {
  test(
    '2000 signatures at once while garbage is collected: every one is right',
    () =>
      withTpm(async (_, tpm) => {
        const child = join(import.meta.dirname, 'children/stress.ts');
        const { stdout, stderr } = await run(process.execPath, ['--expose-gc', child, tpm.tcti, '2000']);
        expect(stderr).toBe('');
        const { right, rounds } = JSON.parse(stdout);
        expect(right).toBe(2000);
        expect(rounds).toBeGreaterThan(500);
      }),
    60_000,
  );

  test('what a caller does with its arrays after the call changes nothing', () =>
    withTpm(async (esys) => {
      const { handle, object } = await newKey(esys);
      const before = Array.from({ length: 20 }, (_, at) => {
        const digest = digestOf(String(at));
        const signature = esys.sign(handle, digest);
        digest.fill(0); // the queue has not come to it yet
        return signature;
      });
      const signatures = await Promise.all(before);
      expect(signatures.map((signature, at) => isSigned(String(at), signature, object.public))).toEqual(
        signatures.map(() => true),
      );
    }));

  test('what a command gives is the caller’s own, and later commands leave it alone', () =>
    withTpm(async (esys) => {
      const first = await esys.getRandom(32);
      const kept = hex(first);
      await esys.getRandom(32);
      expect(hex(first)).toBe(kept);
      expect(first.buffer.byteLength).toBe(32);
    }));
});

describe.skipIf(skipTpm)('tpm2-tss: arguments', () => {
  let tpm: Swtpm;
  let esys: Esys;
  let key: number;
  beforeAll(async () => {
    tpm = await startSwtpm();
    esys = await openEsys(tpm.tcti);
    key = (await newKey(esys)).handle;
  });
  afterAll(async () => {
    await esys.close();
    await tpm.stop();
  });

  const digest = digestOf('x');
  const object = { private: Uint8Array.of(0, 1, 0), public: Uint8Array.of(0, 1, 0) };
  // biome-ignore lint/suspicious/noExplicitAny: what JavaScript callers can do
  const wrong: [string, (esys: any, key: number) => Promise<unknown>][] = [
    ['no handle', (esys) => esys.sign(undefined, digest)],
    ['a handle that is text', (esys) => esys.sign('1', digest)],
    ['a handle that is a BigInt', (esys) => esys.sign(1n, digest)],
    ['a handle below zero', (esys) => esys.sign(-1, digest)],
    ['a handle of more than 32 bits', (esys) => esys.sign(2 ** 32, digest)],
    ['half a handle', (esys) => esys.sign(1.5, digest)],
    ['NaN for a handle', (esys) => esys.sign(Number.NaN, digest)],
    ['no digest', (esys, key) => esys.sign(key)],
    ['null for a digest', (esys, key) => esys.sign(key, null)],
    ['zero for a digest', (esys, key) => esys.sign(key, 0)],
    ['text for a digest', (esys, key) => esys.sign(key, 'x'.repeat(32))],
    ['a list for a digest', (esys, key) => esys.sign(key, Array(32).fill(1))],
    ['a plain object for a digest', (esys, key) => esys.sign(key, { length: 32 })],
    ['words of four bytes for a digest', (esys, key) => esys.sign(key, new Uint32Array(8))],
    ['memory itself for a digest', (esys, key) => esys.sign(key, new ArrayBuffer(32))],
    ['a digest longer than any', (esys, key) => esys.sign(key, new Uint8Array(65))],
    ['a digest longer than a TPM2B', (esys, key) => esys.sign(key, new Uint8Array(70_000))],
    ['an empty scheme', (esys, key) => esys.sign(key, digest, { scheme: new Uint8Array(0) })],
    ['a scheme cut off', (esys, key) => esys.sign(key, digest, { scheme: Uint8Array.of(0, 0x18, 0) })],
    ['a scheme with more behind', (esys, key) => esys.sign(key, digest, { scheme: Uint8Array.of(0, 0x10, 0) })],
    ['text for an auth value', (esys, key) => esys.sign(key, digest, { auth: { authValue: 'password' } })],
    [
      'an auth value longer than any',
      (esys, key) => esys.sign(key, digest, { auth: { authValue: new Uint8Array(65) } }),
    ],
    ['text for a session', (esys, key) => esys.sign(key, digest, { auth: { session: 'x' } })],
    ['text for a session to encrypt with', (esys, key) => esys.sign(key, digest, { encryptWith: 'x' })],
    ['a template cut off', (esys) => esys.createPrimary('owner', srkTemplate().slice(0, -1))],
    ['a template with more behind', (esys) => esys.createPrimary('owner', Buffer.concat([srkTemplate(), digest]))],
    ['an empty template', (esys) => esys.createPrimary('owner', new Uint8Array(0))],
    ['a template of noise', (esys) => esys.createPrimary('owner', new Uint8Array(100).fill(0xff))],
    ['a template larger than any', (esys) => esys.createPrimary('owner', new Uint8Array(60_000))],
    ['no hierarchy', (esys) => esys.createPrimary('platform', srkTemplate())],
    ['a hierarchy that every object has', (esys) => esys.createPrimary('constructor', srkTemplate())],
    ['too much to seal', (esys, key) => esys.create(key, instanceKeyTemplate('ES256'), { data: new Uint8Array(300) })],
    ['blobs of noise', (esys, key) => esys.load(key, object)],
    ['no blobs', (esys, key) => esys.load(key, {})],
    ['nothing to load', (esys, key) => esys.load(key, undefined)],
    ['qualifying data longer than any', (esys, key) => esys.quote(key, new Uint8Array(100), [])],
    ['a PCR that is none', (esys) => esys.pcrRead([{ hash: SHA256, pcrs: [32] }])],
    ['a PCR below zero', (esys) => esys.pcrRead([{ hash: SHA256, pcrs: [-1] }])],
    ['more banks than any TPM has', (esys) => esys.pcrRead(Array(17).fill({ hash: SHA256, pcrs: [1] }))],
    ['no banks', (esys) => esys.pcrRead(undefined)],
    ['too many policies', (esys, key) => esys.policyOr(key, Array(9).fill(digest))],
    ['a session of no kind', (esys) => esys.startSession({ type: 'audit' })],
    ['a session hash of no size', (esys) => esys.startSession({ type: 'hmac', hash: 0x1_000b })],
    ['a session hash that is text', (esys) => esys.startSession({ type: 'hmac', hash: 'sha256' })],
    ['a capability that is none', (esys) => esys.getCapability(99, 0, 1)],
    ['a capability that is text', (esys) => esys.getCapability('handles', 0, 1)],
    ['no random bytes', (esys) => esys.getRandom(0)],
    ['random bytes without end', (esys) => esys.getRandom(Number.POSITIVE_INFINITY)],
    ['an NV index that is none', (esys) => esys.nvRead(0x81000001)],
    ['an NV index that is text', (esys) => esys.nvRead('0x1c00002')],
    ['a handle to close that is none', (esys) => esys.closeHandle(-1)],
    ['a handle to flush that is none', (esys) => esys.flush(0xdead)],
  ];
  test.each(wrong)('%s is refused, and the next command works', async (_, attempt) => {
    const error = await attempt(esys, key).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(error).toBeInstanceOf(TpmError);
    expect((error as TpmError).code).toBeGreaterThan(0);
    expect(await esys.sign(key, digest)).toHaveLength(72);
    expect(await handles(esys, TRANSIENT)).toHaveLength(1);
  });

  test.each([
    ['no text', undefined],
    ['empty text', ''],
    ['a number', 5],
    ['text with an end in the middle', 'device\0:/dev/tpm0'],
    ['text that is too long', `device:${'x'.repeat(2000)}`],
    ['no module', 'no-such-module:x'],
    ['no device', 'device:/no/such/tpm'],
    ['no socket', 'swtpm:path=/no/such/socket'],
  ])('a TCTI that is %s is refused', async (_, tcti) => {
    await expect(openEsys(tcti as string)).rejects.toBeInstanceOf(TpmError);
  });
});

describe.skipIf(skipTpm)('tpm2-tss: one queue', () => {
  test('hundreds of commands of all kinds at once: each has its own answer, in the order of the calls', () =>
    withTpm(async (esys, tpm) => {
      const { handle, object } = await newKey(esys);
      const certificate = await esys.nvRead(0x01c00002);
      const order: number[] = [];
      const answers = Array.from({ length: 200 }, async (_, at) => {
        const signature = await esys.sign(handle, digestOf(String(at)));
        order.push(at);
        return isSigned(String(at), signature, object.public);
      });
      const others = [
        ...Array.from({ length: 50 }, async (_, at) => (await esys.getRandom(at + 1)).length === at + 1),
        ...Array.from(
          { length: 20 },
          async () => hex((await esys.nvRead(0x01c00002)) ?? new Uint8Array()) === hex(certificate as Uint8Array),
        ),
        ...Array.from(
          { length: 20 },
          async () => hex((await esys.readPublic(handle)).public) === hex(object.public.slice(2)),
        ),
        ...Array.from({ length: 20 }, () =>
          esys.sign(0xdead, digestOf('x')).then(
            () => false,
            (error) => error.code === 0x07000b,
          ),
        ),
      ];
      expect((await Promise.all([...answers, ...others])).every(Boolean)).toBe(true);
      expect(order).toEqual(Array.from({ length: 200 }, (_, at) => at));
      expect(await tpm.tools('tpm2_getrandom', '4', '--hex')).toMatch(/^[0-9a-f]{8}$/);
    }));

  test('while the TPM takes its time, the rest of the program runs', () =>
    withTpm(async (esys, tpm) => {
      const { handle, object } = await newKey(esys);
      tpm.freeze();
      let answered = false;
      const signing = Promise.all(Array.from({ length: 50 }, () => esys.sign(handle, digestOf('x'))));
      signing.then(() => {
        answered = true;
      });
      let ticks = 0;
      for (const until = performance.now() + 300; performance.now() < until; ticks++) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      expect(ticks).toBeGreaterThan(20);
      expect(answered).toBe(false);
      tpm.thaw();
      expect((await signing).every((signature) => isSigned('x', signature, object.public))).toBe(true);
    }));

  test('close lets finish what was called before, refuses what comes after, and may be called again', () =>
    withTpm(async (_, tpm) => {
      const esys = await openEsys(tpm.tcti);
      const before = [esys.getRandom(8), esys.getRandom(9)];
      const closing = esys.close();
      const after = [esys.getRandom(10), esys.nvRead(0x01c00002), esys.closeHandle(1)].map((call) =>
        expect(call).rejects.toEqual(refusedWith(NO_RESPONSE)),
      );
      expect((await Promise.all(before)).map(({ length }) => length)).toEqual([8, 9]);
      await Promise.all([closing, esys.close(), ...after]);
    }));
});

describe.skipIf(skipTpm)('tpm2-tss: a TPM that dies', () => {
  test('every command says so, the context closes at once, and another one works when the TPM is back', () =>
    withTpm(async (_, tpm) => {
      const esys = await openEsys(tpm.tcti);
      const { handle, object } = await newKey(esys);
      const calls = Array.from({ length: 100 }, () => esys.sign(handle, digestOf('x')));
      const settled = Promise.allSettled(calls);
      await calls[3];
      await tpm.kill();
      const lost = (await settled).flatMap((call) => (call.status === 'rejected' ? [call.reason] : []));
      expect(lost.length).toBeGreaterThan(50);
      for (const error of lost) expect(error).toEqual(refusedWith(0x0a000a));
      await tpm.restart();
      // The context does not come back; it says what is to be done.
      await expect(esys.getRandom(8)).rejects.toThrow(/open another context/);
      const started = performance.now();
      await esys.close();
      expect(performance.now() - started).toBeLessThan(1000);
      const again = await openEsys(tpm.tcti);
      const srk = await again.createPrimary('owner', srkTemplate());
      const loaded = await again.load(srk.handle, object);
      expect(isSigned('x', await again.sign(loaded, digestOf('x')), object.public)).toBe(true);
      await again.close();
    }));

  test('a frozen TPM that is then killed lets the call go', () =>
    withTpm(async (_, tpm) => {
      const esys = await openEsys(tpm.tcti);
      tpm.freeze();
      const waiting = expect(esys.getRandom(8)).rejects.toEqual(refusedWith(0x0a000a));
      await new Promise((resolve) => setTimeout(resolve, 50));
      await tpm.kill();
      await waiting;
      await esys.close();
      await expect(openEsys(tpm.tcti)).rejects.toBeInstanceOf(TpmError);
    }));
});

describe.skipIf(skipTpm)('tpm2-tss: slots and lock-out', () => {
  test('objects and sessions beyond the TPM’s slots are refused with their codes; a flush makes room', () =>
    withTpm(async (esys) => {
      const loaded = [];
      for (let at = 0; at < 3; at++) loaded.push((await esys.createPrimary('owner', srkTemplate())).handle);
      await expect(esys.createPrimary('owner', srkTemplate())).rejects.toEqual(refusedWith(0x902));
      await esys.flush(loaded[0] as number);
      loaded[0] = (await esys.createPrimary('owner', srkTemplate())).handle;
      const started = [];
      for (let at = 0; at < 3; at++) started.push(await esys.startSession({ type: 'hmac' }));
      await expect(esys.startSession({ type: 'hmac' })).rejects.toEqual(refusedWith(0x903));
      await esys.flush(started[0] as number);
      await esys.startSession({ type: 'hmac' });
      expect(await handles(esys, TRANSIENT)).toHaveLength(3);
      expect(await handles(esys, LOADED_SESSION)).toHaveLength(3);
    }));

  test('wrong auth values of our keys do not count towards the lock-out', () =>
    withTpm(async (esys) => {
      const auth = { authValue: bytes('right') };
      const { handle, object } = await newKey(esys, instanceKeyTemplate('ES256'), auth);
      for (let at = 0; at < 10; at++) {
        const wrong = { authValue: bytes(`wrong ${at}`) };
        await expect(esys.sign(handle, digestOf('x'), { auth: wrong })).rejects.toEqual(refusedWith(0x9a2));
      }
      expect(await esys.getCapability(0x06, 0x20e, 1)).toEqual([{ property: 0x20e, value: 0 }]);
      expect(isSigned('x', await esys.sign(handle, digestOf('x'), { auth }), object.public)).toBe(true);
    }));
});

describe.skipIf(skipTpm)('tpm2-tss: libraries', () => {
  const open = join(import.meta.dirname, 'children/open.ts');
  const openIn = async (tcti: string, env: Record<string, string>, ...flags: string[]) => {
    const { TSS2_LOG: _, ...inherited } = process.env;
    const { stdout, stderr } = await run(process.execPath, [...flags, open, tcti], { env: { ...inherited, ...env } });
    return { ...JSON.parse(stdout), stderr };
  };

  /** A search path on which a library is found first that is none. */
  const withBroken = async <T>(file: string, use: (path: string) => Promise<T>): Promise<T> => {
    const directory = mkdtempSync(join(tmpdir(), 'attested-libraries-'));
    writeFileSync(join(directory, file), 'no library');
    try {
      return await use(directory);
    } finally {
      rmSync(directory, { recursive: true });
    }
  };
  const hint = () => installHint(readFileSync('/etc/os-release', 'utf8'));

  test('nothing is written to the standard error when the TPM refuses', () =>
    withTpm(async (_, tpm) => {
      expect(await openIn(tpm.tcti, {})).toEqual({ opened: true, refused: 0x1c4, unknown: 0x18b, stderr: '' });
      expect((await openIn('swtpm:path=/no/such/socket', {})).stderr).toBe('');
      // Unless somebody asks.
      expect((await openIn(tpm.tcti, { TSS2_LOG: 'all+ERROR' })).stderr).toMatch(/ERROR/);
    }));

  test.each(['libtss2-esys.so.0', 'libtss2-mu.so.0', 'libtss2-tctildr.so.0'])('without %s: what to install', (file) =>
    withBroken(file, async (path) => {
      const { name, code, message } = await openIn('device:/dev/tpmrm0', { LD_LIBRARY_PATH: path });
      expect({ name, code }).toEqual({ name: 'TpmError', code: NO_RESPONSE });
      expect(message).toContain(file);
      expect(message).toContain(hint());
    }),
  );

  test('without libtss2-rc: it works, in fewer words', () =>
    withTpm(async (_, tpm) => {
      await withBroken('libtss2-rc.so.0', async (path) => {
        expect(await openIn(tpm.tcti, { LD_LIBRARY_PATH: path })).toMatchObject({ opened: true, unknown: 0x18b });
      });
    }));

  test('without the TCTI module: what to install', () =>
    withBroken('libtss2-tcti-swtpm.so.0', async (path) => {
      const { name, code, message } = await openIn('swtpm:path=/tmp/x', { LD_LIBRARY_PATH: path });
      expect({ name, code }).toEqual({ name: 'TpmError', code: NO_RESPONSE });
      expect(message).toContain(installHint(readFileSync('/etc/os-release', 'utf8'), 'swtpm'));
    }));

  test('without koffi: a TpmError, and only when a TPM is opened', async () => {
    const hook = `import { registerHooks } from 'node:module';
      registerHooks({ resolve(name, context, next) {
        if (name === 'koffi') throw new Error('no koffi here');
        return next(name, context);
      } });`;
    const flag = `--import=data:text/javascript,${encodeURIComponent(hook)}`;
    const { name, code, message } = await openIn('device:/dev/tpmrm0', {}, flag);
    expect({ name, code }).toEqual({ name: 'TpmError', code: NO_RESPONSE });
    expect(message).toMatch(/koffi/);
  });
});
