import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { requirements } from './requirements.ts';
import { idsOf, titlesOf } from './titles.ts';

const root = join(import.meta.dirname, '..');
const proofs = globSync('**/*.test.ts', { cwd: root })
  .sort()
  .flatMap((file) => titlesOf(readFileSync(join(root, file), 'utf8')).map((title) => ({ file, ...title })))
  .flatMap(({ file, line, title }) => idsOf(title).map((id) => ({ id, where: `${file}:${line}` })));

describe('every requirement', () => {
  it('is proved by at least one test', () => {
    const proved = new Set(proofs.map(({ id }) => id));
    const open = Object.entries(requirements).filter(([id]) => !proved.has(id));
    expect(open.map(([id, text]) => `${id}: ${text}`)).toEqual([]);
  });

  it('that a test names exists', () => {
    expect(proofs.filter(({ id }) => !Object.hasOwn(requirements, id))).toEqual([]);
  });

  it('is in the list with the ids of the checklist, without gaps', () => {
    const last = {
      ATT: 9,
      POP: 9,
      DPOP: 8,
      CHA: 8,
      VER: 8,
      ERR: 5,
      BIND: 2,
      META: 6,
      PROF: 1,
      IMPL: 5,
      PRIV: 3,
      CAT: 3,
    };
    const ids = Object.entries(last).flatMap(([group, count]) =>
      Array.from({ length: count }, (_, i) => `${group}-${i + 1}`),
    );
    expect(Object.keys(requirements).sort()).toEqual(ids.sort());
  });
});

describe('the scan for titles', () => {
  const titles = (source: string) => titlesOf(source).map(({ title }) => title);

  it('finds the titles of tests that run', () => {
    const source = `
      import { it } from 'vitest';
      it('A-1: plain', () => {});
      test("A-2: it's quoted", async () => { await it; });
      it(\`A-3: template \${it('not this')}\`, () => {});
      it.each([['it("not this")', 1], [')', 2]])('A-4: table %s', () => {});
      it.each\`a | b \${1} | \${'it("nor this")'}\`('A-5: tagged', () => {});
      test.concurrent.each(rows)(
        // it('not this')
        'A-6: on a line of its own',
        () => {},
      );
      it.skipIf(process.platform === 'win32')('A-7: where it can', () => {});
      describe('suite', () => { describe.each([1])('inner', () => { it('A-8: inside', () => {}); }); });
      const x = text.replace(/it\\('(["'\`])/g, '') / 2; it('A-9: after a pattern', () => {});
      describe.skipIf(skip)('suite', () => { it('A-10: escaped \\' quote', () => {}); });
    `;
    expect(titles(source)).toEqual([
      'A-1: plain',
      "A-2: it's quoted",
      `A-3: template $\{it('not this')}`,
      'A-4: table %s',
      'A-5: tagged',
      'A-6: on a line of its own',
      'A-7: where it can',
      'A-8: inside',
      'A-9: after a pattern',
      "A-10: escaped ' quote",
    ]);
    expect(titlesOf(source)[0]?.line).toBe(3);
  });

  it.each([
    "it.skip('A-1: x', () => {});",
    "it.todo('A-1: x');",
    "test.skip.each([1])('A-1: x', () => {});",
    "it.each.skip([1])('A-1: x', () => {});",
    "describe('A-1: x', () => {});",
    "describe.skip('x', () => { it('A-1: x', () => {}); });",
    "describe.todo('x', () => { describe('y', () => { it('A-1: x', () => {}); }); });",
    "// it('A-1: x', () => {});",
    "/* it('A-1: x', () => {}); */",
    'const text = "it(\'A-1: x\', () => {})";',
    "const text = `it('A-1: x', () => {})`;",
    "const pattern = /it('A-1: x')/;",
    "row.it('A-1: x', () => {});",
    "exit('A-1: x'); itself('A-1: x'); it;",
    "it(name, () => { it('A-1: x', () => {}); });",
    "rows = [{ name: 'A-1: x' }]; it.each(rows)('$name', () => {});",
  ])('does not count %s', (source) => {
    expect(titles(source).flatMap(idsOf)).toEqual([]);
  });

  it.each([
    ['ATT-1: x', ['ATT-1']],
    ['POP-2, POP-9: x', ['POP-2', 'POP-9']],
    ['ATT-1 x', []],
    ['ATT-1:x', []],
    ['ATT-1, x: y', []],
    ['about ATT-1: x', []],
    ['att-1: x', []],
    ['ATT-1: ', []],
  ])('reads the ids of %j', (title, ids) => {
    expect(idsOf(title)).toEqual(ids);
  });
});
