import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Outcome } from '../../src/cli/demo/act.ts';
import type { Report } from '../../src/cli/demo/report.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');
const started: ChildProcess[] = [];

interface Running {
  child: ChildProcess;
  out(): string;
  err(): string;
  ended: Promise<{ code: number | null; ms: number }>;
}

function startDemo(...argv: string[]): Running {
  const start = performance.now();
  const child = spawn(process.execPath, [MAIN, 'demo', ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
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

describe('the whole product: agent, attester, oidc-provider, MCP servers, each a process', () => {
  let report: Report;
  let run: Running;
  let code: number | null;

  beforeAll(async () => {
    run = startDemo('--json');
    ({ code } = await run.ended);
    report = JSON.parse(run.out()) as Report;
  }, 90_000);

  const outcome = (list: readonly Outcome[], id: string): Outcome => {
    const found = list.find((each) => each.id === id);
    if (found === undefined) throw new Error(`the demo did not get to ${id}: ${report.error}`);
    return found;
  };

  test('ends with exit code 0, one JSON document and nothing else', () => {
    expect(run.err()).toBe('');
    expect(report.error).toBeUndefined();
    expect([code, report.ok]).toEqual([0, true]);
  });

  test.each([
    ['start', 'five processes start and are ready'],
    ['key', 'the best place for keys is found'],
    ['enrol', 'a one-time token enrols, and a key is attested'],
    ['token', 'DPOP-1, DPOP-4, DPOP-6: a token by attestation and DPoP as one, at an independent implementation'],
    ['call', 'IMPL-1: the MCP server knows client, instance, storage and revocation status'],
    ['rotate', 'IMPL-2: the key is changed, and the client stays the same client'],
    ['second-server', 'PRIV-1: two servers see two keys'],
    ['second-client', 'META-4, CHA-2: a client of the other method uses a PoP JWT, at AS and MCP server'],
  ])('step %s: %s', (id) => {
    expect(outcome(report.steps, id)).toMatchObject({ ok: true });
  });

  test.each([
    ['stolen-token', 'VER-1: a stolen access token, without the key'],
    ['stolen-token-other-instance', 'BIND-1: a stolen token in the hands of another instance'],
    ['stolen-bearer-token', 'VER-6: a stolen bearer token in the hands of another client'],
    ['attackers-key', "DPOP-3: a stolen attestation with a proof by the attacker's key"],
    ['attackers-key-at-as', "POP-6: a stolen attestation with a PoP by the attacker's key"],
    ['forged-attestation', 'VER-3: an attestation by an attester of the attacker'],
    ['replay-dpop', 'VER-8: an exact copy of a tool call in combined mode'],
    ['replay-pop', 'VER-8: an exact copy of a tool call with a PoP JWT'],
    ['replay-dpop-at-as', 'an exact copy of a token request in combined mode'],
    ['replay-pop-at-as', 'an exact copy of a token request with a PoP JWT'],
    ['other-audience', 'POP-2: attestation and PoP for another server'],
    ['relay', 'DPOP-2: a tool call passed on to another MCP server'],
    ['other-client', "another client's client_id"],
    ['revoked-renewal', 'a revoked instance gets no attestation'],
    ['revoked-at-mcp', 'a revoked instance is refused with an unexpired attestation'],
    ['revoked-at-as', 'a revoked instance gets no token'],
  ])('attack %s is refused: %s', (id) => {
    const { ok, got, expected } = outcome(report.attacks, id);
    expect(ok, `expected ${expected}, got ${got}`).toBe(true);
    expect(got).toBe(expected);
  });

  test('every step and attack is listed here', () => {
    expect([report.steps.length, report.attacks.length]).toEqual([8, 16]);
  });

  test('no key, token or proof is in the report', () => {
    expect(run.out()).not.toMatch(/eyJ[A-Za-z0-9_-]{10}/);
    expect(run.out()).not.toContain('"d"');
  });

  test('its directory is gone', () => {
    const place = /\S*attested-demo-\w+/.exec(run.out())?.[0];
    expect(place).toBeDefined();
    expect(existsSync(place as string)).toBe(false);
  });
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
      const run = startDemo('--keep');
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
