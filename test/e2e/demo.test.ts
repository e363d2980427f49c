import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Outcome } from '../../src/cli/demo/act.ts';
import type { Report } from '../../src/cli/demo/report.ts';
import { type Keyring, skipKeychain, startKeyring } from '../support/keyring.ts';
import { type Swtpm, skipTpm, startSwtpm } from '../support/swtpm.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');
const started: ChildProcess[] = [];

interface Running {
  child: ChildProcess;
  out(): string;
  err(): string;
  ended: Promise<{ code: number | null; ms: number }>;
}

/** A TPM of the machine that the tests run on is not theirs. */
const NO_TPM = { TPM2TOOLS_TCTI: 'device:/dev/no-tpm-for-tests' };

function startDemo({ argv = [], env = NO_TPM }: { argv?: string[]; env?: Record<string, string> } = {}): Running {
  const start = performance.now();
  const child = spawn(process.execPath, [MAIN, 'demo', ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  started.push(child);
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  const ended = new Promise<{ code: number | null; ms: number }>((resolve) => {
    child.once('close', (code) => resolve({ code, ms: performance.now() - start }));
  });
  return { child, out: () => out, err: () => err, ended };
}

type Row = readonly [id: string, title: string];

const STEPS: readonly Row[] = [
  ['start', 'five processes start and are ready'],
  ['key', 'a place for keys is found'],
  ['enrol', 'a one-time token enrols, and a key is attested'],
  ['token', 'DPOP-1, DPOP-4, DPOP-6: a token by attestation and DPoP as one, at an independent implementation'],
  ['call', 'IMPL-1: the MCP server knows client, instance, storage and revocation status'],
  ['restart', 'another process goes on with the same key, without another enrolment'],
  ['rotate', 'IMPL-2: the key is changed, and the client stays the same client'],
  ['second-server', 'PRIV-1: two servers see two keys'],
  ['second-client', 'META-4, CHA-2: a client of the other method uses a PoP JWT, at AS and MCP server'],
];

const ATTACKS: readonly Row[] = [
  ['stolen-token', 'VER-1: a stolen access token, without the key'],
  ['stolen-token-other-instance', 'BIND-1: a stolen token in the hands of another instance'],
  ['stolen-bearer-token', 'VER-6: a stolen bearer token in the hands of another client'],
  ['attackers-key', "DPOP-3: a stolen attestation with a proof by the attacker's key"],
  ['attackers-key-at-as', "POP-6: a stolen attestation with a PoP by the attacker's key"],
  ['forged-attestation', 'VER-3: an attestation by an attester of the attacker'],
  ['replay-dpop', 'VER-8: an exact copy of a tool call in combined mode'],
  ['replay-pop', 'VER-8: an exact copy of a tool call with a PoP JWT'],
  ['replay-dpop-at-as', 'VER-8: an exact copy of a token request in combined mode'],
  ['replay-pop-at-as', 'VER-8: an exact copy of a token request with a PoP JWT'],
  ['other-audience', 'POP-2: attestation and PoP for another server'],
  ['relay', 'DPOP-2: a tool call passed on to another MCP server'],
  ['other-client', "another client's client_id"],
  ['software-at-hardware-tool', 'VER-5: a software key at a tool that demands hardware'],
  ['copied-directory', "a copy of the agent's directory on another machine"],
  ['revoked-renewal', 'a revoked instance gets no attestation'],
  ['revoked-at-mcp', 'a revoked instance is refused with an unexpired attestation'],
  ['revoked-at-as', 'a revoked instance gets no token'],
];

interface Finished {
  report: Report;
  code: number | null;
  out: string;
  err: string;
}

async function finish(run: Running): Promise<Finished> {
  const { code } = await run.ended;
  return { report: JSON.parse(run.out()) as Report, code, out: run.out(), err: run.err() };
}

function outcome({ error }: Report, list: readonly Outcome[], id: string): Outcome {
  const found = list.find((each) => each.id === id);
  if (found === undefined) throw new Error(`the demo did not get to ${id}: ${error}`);
  return found;
}

function detailsOf({ report }: Finished, id: string): string {
  return outcome(report, [...report.steps, ...report.attacks], id).details.join('\n');
}

/** Of all processes. */
function commandLines(): string[] {
  return execFileSync('ps', ['-A', '-ww', '-o', 'args='], { encoding: 'utf8' }).split('\n');
}

/** Entries of the default collection, whoever made them. */
function itemsIn({ env }: Keyring): number {
  const get = 'org.freedesktop.DBus.Properties.Get string:org.freedesktop.Secret.Collection string:Items';
  const args = `--session --print-reply --dest=org.freedesktop.secrets /org/freedesktop/secrets/aliases/default ${get}`;
  const answer = execFileSync('dbus-send', args.split(' '), { env: { ...process.env, ...env }, encoding: 'utf8' });
  return answer.match(/object path/g)?.length ?? 0;
}

/** The whole of it, once. */
function plays(steps: readonly Row[], attacks: readonly Row[], start: () => Promise<Running>): () => Finished {
  let finished: Finished;
  beforeAll(async () => {
    finished = await finish(await start());
  }, 120_000);

  test('ends with exit code 0, one JSON document and nothing else', () => {
    const { report, code, err } = finished;
    expect(err).toBe('');
    expect(report.error).toBeUndefined();
    const bad = [...report.steps, ...report.attacks].filter(({ ok }) => !ok);
    expect(bad).toEqual([]);
    expect([code, report.ok]).toEqual([0, true]);
  });

  test.each(steps)('step %s: %s', (id) => {
    expect(outcome(finished.report, finished.report.steps, id)).toMatchObject({ ok: true });
  });

  test.each(attacks)('attack %s is refused: %s', (id) => {
    const { ok, got, expected } = outcome(finished.report, finished.report.attacks, id);
    expect(ok, `expected ${expected}, got ${got}`).toBe(true);
    expect(got).toBe(expected);
  });

  test('every step and attack is listed here', () => {
    const ids = (list: readonly { id: string }[]) => list.map(({ id }) => id).sort();
    const listed = (rows: readonly Row[]) => rows.map(([id]) => id).sort();
    expect(ids(finished.report.steps)).toEqual(listed(steps));
    expect(ids(finished.report.attacks)).toEqual(listed(attacks));
  });

  test('no key, token or proof is in the report', () => {
    expect(finished.out).not.toMatch(/eyJ[A-Za-z0-9_-]{10}/);
    expect(finished.out).not.toContain('"d"');
  });

  return () => finished;
}

describe('the whole product: agent, attester, oidc-provider, MCP servers, each a process', () => {
  const finished = plays(STEPS, ATTACKS, async () => startDemo({ argv: ['--json'], env: NO_TPM }));

  test('the keys are in files, and a copy of them is of no use under another machine id', () => {
    expect(finished().report).toMatchObject({ keys: 'software', softwareTpm: false });
    expect(detailsOf(finished(), 'copied-directory')).toContain('key_store_wrong_secret');
    expect(detailsOf(finished(), 'enrol')).toContain('software, self-asserted');
  });

  test('its directory is gone', () => {
    const place = /\S*attested-demo-\w+/.exec(finished().out)?.[0];
    expect(place).toBeDefined();
    expect(existsSync(place as string)).toBe(false);
  });
});

const TPM_STEPS: readonly Row[] = [
  ...STEPS,
  ['tpm', 'the attester is told which TPMs it may believe'],
  ['hardware-tool', 'VER-5: a tool that demands hardware answers'],
];
const TPM_ATTACKS: readonly Row[] = [
  ...ATTACKS,
  ['software-for-hardware', 'software evidence where the policy demands a TPM'],
];

describe.skipIf(skipTpm)('with a software TPM of its own', () => {
  let place: string;
  beforeAll(() => {
    place = mkdtempSync(join(tmpdir(), 'demo-'));
  });
  afterAll(() => rm(place, { recursive: true }));
  const finished = plays(
    [['software-tpm', 'a TPM is made'], ...TPM_STEPS],
    [...TPM_ATTACKS, ['unknown-maker', 'a TPM of a maker that the attester does not know']],
    async () => startDemo({ argv: ['--json', '--tpm', 'swtpm'], env: { ...NO_TPM, TMPDIR: place } }),
  );

  test('says that it was one, and what the TPM proved', () => {
    expect(finished().report).toMatchObject({ keys: 'tpm', softwareTpm: true });
    expect(detailsOf(finished(), 'software-tpm')).toContain('proves nothing about hardware');
    expect(detailsOf(finished(), 'enrol')).toContain('EK certificate');
    expect(detailsOf(finished(), 'enrol')).toContain('activation');
    expect(detailsOf(finished(), 'enrol')).toContain('hardware, tpm-certified');
    expect(detailsOf(finished(), 'call')).toContain('key storage hardware (tpm-certified)');
    expect(detailsOf(finished(), 'rotate')).toContain('without another activation');
  });

  test('the copied directory, the software key and the unknown TPM fail for the right reasons', () => {
    expect(detailsOf(finished(), 'copied-directory')).toContain('the key was made in another TPM');
    expect(detailsOf(finished(), 'software-for-hardware')).toContain('does not accept this kind of evidence');
    expect(detailsOf(finished(), 'unknown-maker')).toContain('TPM attestation 2');
  });

  test('its directories and its TPMs are gone', () => {
    expect(finished().report.ok).toBe(true);
    expect(readdirSync(place)).toEqual([]);
    expect(commandLines().filter((line) => line.includes(place))).toEqual([]);
  });
});

describe.skipIf(skipTpm)("with the machine's TPM (here swtpm, named by the environment)", () => {
  let tpm: Swtpm;
  const start = async (...argv: string[]) => {
    tpm = await startSwtpm();
    return startDemo({ argv: ['--json', ...argv], env: { TPM2TOOLS_TCTI: tpm.tcti } });
  };
  afterAll(() => tpm.stop());

  const finished = plays(TPM_STEPS, TPM_ATTACKS, () => start());

  test("takes it by itself; without its maker's root the one EK is allowed, and the reader is told", () => {
    expect(finished().report).toMatchObject({ keys: 'tpm', softwareTpm: false });
    const told = detailsOf(finished(), 'tpm');
    expect(told).toContain('allowEk');
    expect(told).toContain('--tpm-roots');
    expect(told).toContain('on one machine');
  });

  test('the copied directory is refused where there is no TPM: no weaker keys are made in its place', () => {
    expect(detailsOf(finished(), 'copied-directory')).toContain('key_store_unavailable');
  });

  test('the TPM is left as it was', async () => {
    expect(await tpm.tools('tpm2_getcap', 'handles-persistent')).not.toContain('0x81000001');
    expect((await tpm.tools('tpm2_getcap', 'handles-transient')).trim()).toBe('');
  });

  test("believes its maker's root where that is given", async () => {
    const directory = join(tpm.directory, 'roots');
    mkdirSync(directory);
    writeFileSync(join(directory, 'root.der'), tpm.roots.root);
    writeFileSync(join(directory, 'issuer.der'), tpm.roots.issuer);
    const argv = ['--json', '--tpm-roots', directory];
    const run = await finish(startDemo({ argv, env: { TPM2TOOLS_TCTI: tpm.tcti } }));
    expect(run.report).toMatchObject({ ok: true, keys: 'tpm' });
    expect(detailsOf(run, 'tpm')).toContain('believed: makers whose roots were given');
    expect(detailsOf(run, 'tpm')).not.toContain('allowEk');
  }, 120_000);
});

describe.skipIf(skipKeychain)('with a keychain', () => {
  test('two demos at once, one user: both go well, and nothing is left in it', async () => {
    const keyring = await startKeyring();
    onTestFinished(() => keyring.stop());
    const env = { ...NO_TPM, ...keyring.env };
    const runs = [1, 2].map(() => startDemo({ argv: ['--json'], env }));
    for (const run of await Promise.all(runs.map(finish))) {
      expect(run.report.error).toBeUndefined();
      expect(run.report).toMatchObject({ ok: true, keys: 'keychain' });
      expect(detailsOf(run, 'copied-directory')).not.toBe('');
    }
    expect(itemsIn(keyring)).toBe(0);

    const kept = await finish(startDemo({ argv: ['--json', '--keep'], env }));
    expect(kept.report.keychainService).toMatch(/^attested-demo-/);
    expect(itemsIn(keyring)).toBeGreaterThan(0);
    await rm(kept.report.directory as string, { recursive: true });
  }, 120_000);
});

describe('what it cannot do, it says', () => {
  test.each([
    [['--keys', 'hsm'], '--keys must be one of'],
    [['--tpm', 'infineon'], '--tpm can only be swtpm'],
    [['--tpm', 'swtpm', '--keys', 'software'], 'contradict'],
  ])('%s', async (argv, message) => {
    const run = startDemo({ argv });
    expect((await run.ended).code).toBe(2);
    expect(run.err()).toContain(message);
  });

  test('a TPM where there is none', async () => {
    const run = startDemo({ argv: ['--keys', 'tpm'], env: NO_TPM });
    expect((await run.ended).code).toBe(1);
    expect(run.out()).toContain('key_store_unavailable');
    expect(run.out()).toContain('--keys software');
  }, 60_000);

  test('swtpm where it is not installed: which packages', async () => {
    const run = startDemo({ argv: ['--tpm', 'swtpm'], env: { ...NO_TPM, PATH: '/nonexistent' } });
    expect((await run.ended).code).toBe(1);
    expect(run.out()).toContain('swtpm_localca is not installed');
    expect(run.out()).toContain('apt install swtpm swtpm-tools');
  }, 60_000);
});

describe('a demo that cannot go on ends with exit code 1, in time, and leaves no process', () => {
  afterEach(() => {
    for (const child of started.splice(0)) child.kill('SIGKILL');
  });

  /** Waits for a step, and gives the processes by their names. */
  async function at(run: Running, step: string): Promise<Map<string, number>> {
    while (!run.out().includes(step)) {
      if (run.child.exitCode !== null) throw new Error(`the demo ended early:\n${run.out()}${run.err()}`);
      await sleep(10);
    }
    const named = [...run.out().matchAll(/^ +([\w ]+): .*\(process (\d+)\)$/gm)];
    return new Map(named.map(([, name, pid]) => [name as string, Number(pid)]));
  }

  const isAlive = (pid: number): boolean => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };

  async function allGone(pids: Iterable<number>): Promise<boolean> {
    for (let tries = 0; tries < 300; tries++) {
      if (![...pids].some(isAlive)) return true;
      await sleep(10);
    }
    return false;
  }

  test.each([['attester'], ['authorization server'], ['MCP server'], ['agent']])(
    'the %s is killed',
    async (name) => {
      const run = startDemo();
      const pids = await at(run, 'Enrol');
      process.kill(pids.get(name) as number, 'SIGKILL');
      const { code, ms } = await run.ended;
      expect(code).toBe(1);
      expect(ms).toBeLessThan(30_000);
      expect(run.out()).toMatch(new RegExp(`failed: .*the process of the ${name} ended unasked \\(SIGKILL\\)`));
      expect(pids.size).toBe(5);
      expect(await allGone(pids.values())).toBe(true);
    },
    60_000,
  );

  test('a process hangs', async () => {
    const run = startDemo();
    const pids = await at(run, 'Enrol');
    process.kill(pids.get('agent') as number, 'SIGSTOP');
    const { code, ms } = await run.ended;
    expect(code).toBe(1);
    expect(ms).toBeLessThan(60_000);
    expect(run.out()).toContain('the agent did not answer within');
    expect(await allGone(pids.values())).toBe(true);
  }, 90_000);

  test.each(['SIGINT', 'SIGTERM'] as const)(
    '%s',
    async (signal) => {
      const run = startDemo({ argv: ['--keep'] });
      const pids = await at(run, 'Enrol');
      run.child.kill(signal);
      const { code } = await run.ended;
      expect(code).toBe(1);
      expect(run.out()).toContain(`stopped by ${signal}`);
      expect(await allGone(pids.values())).toBe(true);
      const kept = /are left in (\S+)/.exec(run.out())?.[1] as string;
      expect(existsSync(join(kept, 'attester', 'attester.sqlite'))).toBe(true);
      await rm(kept, { recursive: true });
    },
    60_000,
  );

  test.skipIf(skipTpm)(
    'it is killed itself, with a software TPM',
    async () => {
      const place = mkdtempSync(join(tmpdir(), 'demo-'));
      const run = startDemo({ argv: ['--tpm', 'swtpm'], env: { ...NO_TPM, TMPDIR: place } });
      const pids = await at(run, 'Enrol');
      const ours = () => commandLines().filter((line) => line.includes(place));
      expect(ours()).toHaveLength(2); // the TPM, and the shell that ends it
      run.child.kill('SIGKILL');
      await run.ended;
      expect(await allGone(pids.values())).toBe(true);
      for (let tries = 0; tries < 300 && ours().length > 0; tries++) await sleep(10);
      expect(ours()).toEqual([]);
      await rm(place, { recursive: true, maxRetries: 5 });
    },
    60_000,
  );

  test('it is killed itself, without a chance to clean up', async () => {
    const run = startDemo();
    const pids = await at(run, 'Enrol');
    run.child.kill('SIGKILL');
    await run.ended;
    expect(pids.size).toBe(5);
    expect(await allGone(pids.values())).toBe(true);
    const place = /\S*attested-demo-\w+/.exec(run.out())?.[0] as string;
    await rm(place, { recursive: true, maxRetries: 5 });
  }, 60_000);
});
