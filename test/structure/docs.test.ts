/** What the documentation says of the repository is still so. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirements } from '../conformance/requirements.ts';

const root = join(import.meta.dirname, '../..');
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const pages = [
  'README.md',
  ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];
const { exports, dependencies, devDependencies } = JSON.parse(read('package.json')) as {
  exports: Record<string, unknown>;
  dependencies: Record<string, string>;
  devDependencies: Record<string, string>;
};
const versions = { ...dependencies, ...devDependencies };

describe.each(pages)('%s', (page) => {
  test('links lead somewhere', () => {
    const targets = [...read(page).matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g)].map(([, target]) => target!);
    expect(targets.filter((target) => !existsSync(join(root, dirname(page), target)))).toEqual([]);
  });

  test('every block of TypeScript is from a checked file', () => {
    const lines = read(page).split('\n');
    const loose = lines.filter((line, i) => line === '```ts' && !lines[i - 1]?.startsWith('<!-- snippet: '));
    expect(loose).toEqual([]);
  });
});

test('the README counts the requirements', () => {
  expect(/a list of (\d+) requirement ids/.exec(read('README.md'))?.[1]).toBe(String(Object.keys(requirements).length));
});

test('the README names the versions that are tested', () => {
  const named: [string, string][] = [
    ['@modelcontextprotocol/client', '`@modelcontextprotocol/client` '],
    ['@modelcontextprotocol/sdk', '`@modelcontextprotocol/sdk` '],
    ['oidc-provider', 'oidc-provider '],
    ['openid-client', 'openid-client '],
    ['oauth4webapi', 'oauth4webapi '],
    ['@openid4vc/oauth2', '@openid4vc/oauth2 '],
  ];
  const table = read('README.md').split('## What works with what')[1]!.split('\n## ')[0]!;
  for (const [name, before] of named) {
    const version = /^[\d.]+/.exec(table.split(before)[1] ?? '')?.[0];
    expect(`${versions[name]}.`.startsWith(`${version}.`), name).toBe(true);
  }
});

test('every subpath is somewhere in the documentation', () => {
  const text = pages.map(read).join('\n');
  const subpaths = Object.keys(exports).filter((name) => !['.', './package.json'].includes(name));
  expect(subpaths.filter((name) => !text.includes(`attested${name.slice(1)}`))).toEqual([]);
});

test('every error code is explained', () => {
  const codes = [...read('src/errors.ts').matchAll(/^ {2}\| '([a-z_]+)'/gm)].map(([, code]) => code!);
  const text = read('docs/errors.md');
  expect(codes.length).toBeGreaterThan(20);
  expect(codes.filter((code) => !text.includes(`\`${code}\``))).toEqual([]);
});
