import { describe, expect, onTestFinished, test } from 'vitest';
import { type Act, type Outcome, perform } from '../../src/cli/demo/act.ts';
import { Halt } from '../../src/cli/demo/halt.ts';
import { judge } from '../../src/cli/demo/judge.ts';
import type { LoggedRefusal } from '../../src/cli/demo/protocol.ts';
import { textNarrator } from '../../src/cli/demo/report.ts';
import type { Scene } from '../../src/cli/demo/scene.ts';
import { listen } from '../../src/cli/demo/serve.ts';

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
