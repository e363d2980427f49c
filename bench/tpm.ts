// run: yes
/**
 * What signatures of a TPM cost through the key provider: against a C program that calls tpm2-tss, against the command of
 * tpm2-tools, in the event loop, in memory, and until the first one. All with one software TPM, whose signatures are quick
 * (a third of a millisecond; those of a chip take 20 to 200), so that what we add shows. And what a key in files costs over
 * node:crypto.
 */
import { fork, spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type KeyProvider, openKeys, type Signer } from 'attested/keys';
import { type Swtpm, skipTpm, startSwtpm } from '../test/support/swtpm.ts';
import { startEsysProgram } from './support/esys-program.ts';
import { loopDelayDuring } from './support/loop-delay.ts';
import { helperOf, residentMemory } from './support/memory.ts';
import { bestOf, comparePairs, median, report, reportAtMost } from './support/pairs.ts';

const directory = mkdtempSync(join(tmpdir(), 'attested-bench-'));
const data = Buffer.alloc(300, 7);
const isThere = (command: string) => spawnSync(command, ['--version'], { stdio: 'ignore' }).error === undefined;
const skipped = (what: string, why: string) => {
  console.log(`\n${what}: skipped, ${why}`);
  return true;
};

const open = (tcti: string): Promise<KeyProvider> => openKeys('tpm', { directory, tpm: { tcti } });
const atOnce = (signer: Signer, n: number) => Promise.all(Array.from({ length: n }, () => signer.sign(data)));
async function oneByOne(signer: Signer, n: number): Promise<void> {
  for (let i = 0; i < n; i++) await signer.sign(data);
}

/**
 * A name which says that a resource manager is there, as before a machine's own TPM: then the provider keeps its objects
 * loaded. Here nobody else has any, or only for as long as he is measured.
 */
function asManaged({ directory, socket }: Swtpm): string {
  const path = join(directory, 'tpmrm0');
  symlinkSync(socket, path);
  symlinkSync(`${socket}.ctrl`, `${path}.ctrl`);
  return `swtpm:path=${path}`;
}

async function againstEsys(tcti: string): Promise<boolean> {
  const program = startEsysProgram(tcti, directory);
  if (typeof program === 'string') return skipped('TPM signatures against a C program', program);
  const keys = await open(tcti);
  const signer = await keys.createKey({ label: 'a key' });
  const rows = await comparePairs(
    [
      { name: 'Esys_Sign in C', run: program.sign },
      { name: 'the provider, one after another', run: (n) => oneByOne(signer, n) },
      { name: 'the provider, all at once', run: async (n) => void (await atOnce(signer, n)) },
    ],
    { rounds: 40, operations: 50, warmUp: 20 },
  );
  program.end();
  await keys.close();
  const most = 1 / 1.6;
  return report('TPM signatures against a C program', rows, {
    'the provider, one after another': most,
    'the provider, all at once': most,
  });
}

const PERSISTENT = '0x81000010';
const SIGNING = 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign';

async function makePersistentKey(tpm: Swtpm): Promise<void> {
  if ((await tpm.tools('tpm2_getcap', 'handles-persistent')).includes(PERSISTENT)) return;
  await tpm.tools('tpm2_createprimary', '-G', 'ecc256:ecdsa-sha256', '-a', SIGNING, '-c', 'key');
  await tpm.tools('tpm2_evictcontrol', '-C', 'o', '-c', 'key', PERSISTENT);
  await tpm.tools('tpm2_flushcontext', '-t');
}

async function againstTools(tpm: Swtpm, tcti: string): Promise<boolean> {
  const title = 'TPM signatures against tpm2_sign, a process for each';
  if (!isThere('tpm2_sign')) return skipped(title, 'no tpm2-tools');
  await makePersistentKey(tpm);
  writeFileSync(join(tpm.directory, 'data'), data);
  const keys = await open(tcti);
  const signer = await keys.createKey({ label: 'a key' });
  const rows = await comparePairs(
    [
      {
        name: 'tpm2_sign',
        run: async (n) => {
          for (let i = 0; i < n; i++) {
            await tpm.tools('tpm2_sign', '-c', PERSISTENT, '-g', 'sha256', '-o', 'signature', 'data');
          }
        },
      },
      { name: 'the provider', run: (n) => oneByOne(signer, n) },
    ],
    { rounds: 30, operations: 8, warmUp: 3 },
  );
  await keys.close();
  return report(title, rows, { 'the provider': 15 });
}

const [DELAY, WAITING] = [100, 50];

async function besideSlowTpm(tpm: Swtpm): Promise<boolean> {
  console.log(`\nEvent loop while a TPM takes ${DELAY} ms a command and ${WAITING} signatures wait`);
  const relay = fork(join(import.meta.dirname, 'support/slow-tpm.ts'), [tpm.socket, String(DELAY)]);
  const [tcti] = (await once(relay, 'message')) as [string];
  const keys = await open(tcti);
  const signer = await keys.createKey({ label: 'a key' });
  const { own, idle } = await loopDelayDuring(() => atOnce(signer, WAITING));
  await keys.close();
  relay.disconnect();
  const machine = Math.max(0, idle - 1); // ticks are a millisecond apart where nothing delays them
  const remark = `${own.toFixed(1)} ms between ticks; of an idle process meanwhile: ${idle.toFixed(1)} ms`;
  return reportAtMost('p99 delay, beyond what the machine delays', Math.max(0, own - machine), 5, 'ms', remark);
}

/** Signatures; where samples begin; so many of them make a sample; they are in flight at once. */
const [MANY, SETTLED, SAMPLE, IN_FLIGHT] = [20_000, 8000, 500, 50];
const MOST_GROWTH = 4;

async function inMemory(tcti: string): Promise<boolean> {
  console.log(`\nResident memory over ${MANY} TPM signatures`);
  const keys = await open(tcti);
  const signer = await keys.createKey({ label: 'a key' });
  const helper = helperOf(process.pid);
  const samples = { 'this process': [] as number[], 'its helper': [] as number[] };
  for (let done = 0; done < MANY; done += IN_FLIGHT) {
    await atOnce(signer, IN_FLIGHT);
    if (done < SETTLED || done % SAMPLE > 0) continue;
    samples['this process'].push(residentMemory(process.pid));
    samples['its helper'].push(residentMemory(helper));
  }
  await keys.close();
  let met = true;
  for (const [name, sizes] of Object.entries(samples)) {
    const third = Math.floor(sizes.length / 3);
    const [early, late] = [median(sizes.slice(0, third)), median(sizes.slice(-third))];
    const remark = `${early.toFixed(1)} MiB, then ${late.toFixed(1)} MiB`;
    met = reportAtMost(`growth, ${name}`, late - early, MOST_GROWTH, 'MiB', remark) && met;
  }
  return met;
}

/** Milliseconds until a program in a new Node has written something. */
async function untilWritten(program: string): Promise<number> {
  const begin = performance.now();
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    cwd: join(import.meta.dirname, '..'), // from where the package is found by its name
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  const milliseconds = performance.now() - begin;
  await once(child, 'exit');
  return milliseconds;
}

async function untilFirstSignature(tcti: string): Promise<boolean> {
  const options = JSON.stringify({ directory, tpm: { tcti } });
  const program = `import { openKeys } from 'attested/keys';
    const keys = await openKeys('tpm', ${options});
    const signer = await keys.getKey('a key');
    process.stdout.write(await signer.sign(Buffer.from('data')));
    await keys.close();`;
  const rows = await comparePairs(
    [
      { name: 'Node', run: async () => (await untilWritten("process.stdout.write('x')")) * 1000 },
      { name: 'to the first signature', run: async () => (await untilWritten(program)) * 1000 },
    ],
    { rounds: 30, operations: 1, warmUp: 3 },
  );
  console.log('\nFrom the start of a process to its first TPM signature');
  const [bare, whole] = rows.map(({ microseconds }) => microseconds / 1000) as [number, number];
  return reportAtMost('beyond the start of Node', whole - bare, 300, 'ms', `of Node: ${bare.toFixed(1)} ms`);
}

async function inFiles(): Promise<boolean> {
  const keys = await openKeys('software', { directory });
  const signer = await keys.createKey({ label: 'a key' });
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const rows = await comparePairs([
    {
      name: 'sign of node:crypto',
      run: (n) => {
        for (let i = 0; i < n; i++) sign('sha256', data, privateKey);
      },
    },
    { name: 'a key in encrypted files', run: (n) => oneByOne(signer, n) },
  ]);
  await keys.close();
  return report('Signatures of a key in files', rows, { 'a key in encrypted files': 0.9 });
}

let met = await bestOf(inFiles);
if (skipTpm || !isThere('swtpm')) skipped('TPM signatures', 'no software TPM (swtpm)');
else {
  const tpm = await startSwtpm();
  const tcti = asManaged(tpm);
  const measures = [
    () => againstEsys(tcti),
    () => againstTools(tpm, tcti),
    () => besideSlowTpm(tpm),
    () => inMemory(tcti),
    () => untilFirstSignature(tcti),
  ];
  for (const measure of measures) met = (await bestOf(measure)) && met;
  await tpm.stop();
}
rmSync(directory, { recursive: true });
process.exitCode = met ? 0 : 1;
