import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Act, type Outcome, perform } from '../../src/cli/demo/act.ts';
import { Halt } from '../../src/cli/demo/halt.ts';
import { judge } from '../../src/cli/demo/judge.ts';
import { openProcesses } from '../../src/cli/demo/processes.ts';
import type { LoggedRefusal } from '../../src/cli/demo/protocol.ts';
import { type Report, textNarrator } from '../../src/cli/demo/report.ts';
import type { Scene } from '../../src/cli/demo/scene.ts';
import { listen } from '../../src/cli/demo/serve.ts';
import { openSoftwareTpms } from '../../src/cli/demo/software-tpm.ts';

/** A scene with an MCP server that has logged these refusals. */
function sceneWith(...refusals: LoggedRefusal[]): Scene {
  return { fact: () => ({ mcp: { takeRefusals: async () => refusals } }) } as unknown as Scene;
}

describe('an attack counts as refused only when it was refused as it must be', () => {
  const expected = { at: 'mcp', status: 401, error: 'invalid_token', because: 'BIND-1' } as const;
  const answer = { status: 401, error: 'invalid_token', description: 'not yours' };
  const logged = { code: 'invalid_token', rule: 'BIND-1', message: 'not yours' };

  test.each<[string, Partial<typeof answer>, LoggedRefusal[], boolean, string]>([
    ['as expected', {}, [logged], true, '401 invalid_token'],
    ['accepted', { status: 200, error: undefined as unknown as string }, [], false, '200 without an error code'],
    ['another status', { status: 500 }, [logged], false, '500 invalid_token'],
    ['another code', { error: 'invalid_request' }, [logged], false, '401 invalid_request'],
    ['another reason', {}, [{ ...logged, rule: 'VER-1' }], false, '401 invalid_token, for another reason'],
    ['nothing in the log', {}, [], false, '401 invalid_token, for another reason'],
  ])('%s', async (_what, difference, refusals, ok, got) => {
    expect(await judge(sceneWith(...refusals), expected, { ...answer, ...difference })).toMatchObject({ ok, got });
  });
});

describe('whatever an act does, it has an outcome', () => {
  const never = new Promise<never>(() => undefined);
  const act = (run: Act['run']): Act => ({ id: 'x', title: 'X', expected: 'y', advice: 'try again', run });

  test('it throws', async () => {
    const thrown = act(async () => {
      throw Object.assign(new Error('no'), { code: 'attester_refused' });
    });
    expect(await perform(thrown, sceneWith(), never)).toMatchObject({
      ok: false,
      got: 'attester_refused: no',
      advice: 'try again',
    });
  });

  test('it hangs, and the demo is halted', async () => {
    const halted = Promise.reject(new Halt('a process died', 'look at it'));
    const outcome = await perform(
      act(() => never),
      sceneWith(),
      halted,
    );
    expect(outcome).toMatchObject({ ok: false, got: 'a process died', advice: 'look at it' });
  });

  test('a good one has no advice', async () => {
    const good = act(async () => ({ ok: true, got: 'y' }));
    const outcome = await perform(good, sceneWith(), never);
    expect(outcome).toMatchObject({ ok: true, got: 'y', details: [] });
    expect(outcome).not.toHaveProperty('advice');
  });
});

test('nobody there yet: 503', async () => {
  const http = await listen();
  onTestFinished(() => http.close());
  expect((await fetch(http.origin)).status).toBe(503);
});

describe('the processes of the demo', () => {
  const openForTest = () => {
    const processes = openProcesses(() => undefined, 20_000);
    onTestFinished(() => processes.stop());
    return processes;
  };

  test('one that is asked to end is no failure, and the others go on', async () => {
    const processes = openForTest();
    const one = processes.start('attester', 'attester');
    const other = processes.start('attester', 'other attester');
    const origin = await one.listen();
    await processes.end(one);
    await expect(fetch(origin)).rejects.toThrow();
    expect(await other.listen()).toMatch(/^http:/);
    expect(await Promise.race([processes.failed, Promise.resolve('none failed')])).toBe('none failed');
  });

  test('one that ends unasked is', async () => {
    const processes = openForTest();
    const one = processes.start('attester', 'attester');
    await one.listen();
    process.kill(one.pid, 'SIGKILL');
    await expect(processes.failed).rejects.toThrow('the process of the attester ended unasked (SIGKILL)');
  });

  test('none starts after the end: an act that was interrupted may still be running', async () => {
    const processes = openForTest();
    await processes.stop();
    expect(() => processes.start('agent', 'agent')).toThrow('the demo has ended');
  });
});

describe('software TPMs', () => {
  test('a directory whose path is too long for a socket is told', async () => {
    const place = await mkdtemp(join(tmpdir(), 'demo-'));
    onTestFinished(() => rm(place, { recursive: true }));
    const long = join(place, 'x'.repeat(100));
    await mkdir(long);
    const tpms = openSoftwareTpms(long);
    await expect(tpms.start('maker')).rejects.toThrow('too long for a socket');
    await tpms.stop();
    await expect(tpms.start('maker')).rejects.toThrow('the demo has ended');
  });
});

describe('what the report says of the TPM', () => {
  const end = (report: Partial<Report>) => {
    let text = '';
    const out = (part: string) => {
      text += part;
    };
    const io = { out, err: out, stdin: async () => '', colours: false, columns: undefined, now: () => 0 };
    textNarrator(io).end({ ok: true, ms: 1, steps: [], attacks: [], ...report });
    return text;
  };

  test.each<[string, Partial<Report>, RegExp | undefined]>([
    ['files', { keys: 'software', softwareTpm: false }, /^No TPM was used. To see it with one: .*--tpm swtpm$/m],
    ['a keychain', { keys: 'keychain', softwareTpm: false }, /^No TPM was used/m],
    ['a software TPM', { keys: 'tpm', softwareTpm: true }, /proved nothing about hardware/],
    ["the machine's", { keys: 'tpm', softwareTpm: false }, undefined],
    ['a failure', { ok: false, keys: 'software', softwareTpm: false }, undefined],
  ])('%s', (_what, report, line) => {
    const text = end(report);
    if (line === undefined) expect(text).not.toMatch(/TPM/);
    else expect(text).toMatch(line);
  });

  test('keys that stay in the keychain are named', () => {
    expect(end({ keys: 'keychain', softwareTpm: false, directory: '/d', keychainService: 's' })).toMatch(/under s$/m);
  });
});

describe('the report on a narrow terminal', () => {
  const outcome = {
    id: 'a-rather-long-name-for-an-act',
    title: 'A title that is longer than the terminal of this test is wide',
    expected: 'two words',
    got: 'two words',
    ms: 12,
    details: ['first detail, which is long enough to need a second line', `${'x'.repeat(50)} short`],
  };
  const print = (outcomes: Outcome[], columns?: number) => {
    let text = '';
    const out = (part: string) => {
      text += part;
    };
    const io = { out, err: out, stdin: async () => '', colours: false, columns, now: () => 0 };
    const narrator = textNarrator(io);
    for (const each of outcomes) narrator.act(each);
    narrator.end({ ok: false, ms: 1, steps: outcomes, attacks: [] });
    return text.split('\n');
  };

  test('breaks between words and keeps the indentation', () => {
    expect(print([{ ...outcome, ok: true }], 41).slice(0, 6)).toEqual([
      '  ✓ A title that is longer than the',
      '    terminal of this test is wide (12\u00a0ms)',
      '      first detail, which is long enough',
      '      to need a second line',
      `      ${'x'.repeat(50)}`,
      '      short',
    ]);
  });

  test('without a terminal nothing is broken', () => {
    expect(print([{ ...outcome, ok: true }])[1]).toBe(`      ${outcome.details[0]}`);
  });

  test('the table says what was expected where something else came', () => {
    const lines = print([
      { ...outcome, ok: true },
      { ...outcome, ok: false, id: 'bad', got: 'another' },
    ]);
    const table = lines.slice(lines.findIndex((line) => line.includes('step or attack')));
    expect(table.slice(2, 5)).toEqual([
      '✓ a-rather-long-name-for-an-act  two words            12 ms',
      '✗ bad                            another              12 ms',
      '                                 expected: two words',
    ]);
  });
});
