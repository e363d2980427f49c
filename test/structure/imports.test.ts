import { globSync, readFileSync } from 'node:fs';
import { join, sep } from 'node:path';
import { describe, expect, test } from 'vitest';
import { brokenImports, importsOf } from './imports.ts';

const src = join(import.meta.dirname, '../../src');

describe('imports point only downwards', () => {
  test('in src/', () => {
    const files = globSync('**/*.ts', { cwd: src }).map((path) => ({
      path: path.split(sep).join('/'),
      text: readFileSync(join(src, path), 'utf8'),
    }));
    expect(files.length).toBeGreaterThan(0);
    expect(brokenImports(files)).toEqual([]);
  });

  test.each([
    ['core/pop.ts', "import { verify } from '../verifier/index.ts';"],
    ['core/pop.ts', "import { now } from '../platform/clock.ts';"],
    ['core/pop.ts', "import { createHash } from 'node:crypto';"],
    ['core/pop.ts', "import * as jose from 'jose';"],
    ['errors.ts', "export type { X } from './keys/index.ts';"],
    ['platform/fetch.ts', "export * from '../verifier/trust.ts';"],
    ['keys/software.ts', "import type { Agent } from '../agent/index.ts';"],
    ['verifier/verify.ts', "import type {\n  Agent,\n  Other,\n} from '../agent/index.ts';"],
    ['verifier/verify.ts', "const x = await import('../attester/index.ts');"],
    ['verifier/verify.ts', "let x: import('../attester/index.ts').Attester;"],
    ['attester/issue.ts', "import '../agent/index.ts';"],
    ['agent/index.ts', "import { check } from '../../attester/index.ts';"],
    ['agent/index.ts', "import { check } from 'attested/attester';"],
    ['mcp/server.ts', "import { x } from '../integrations/express.ts';"],
    ['mcp/server.ts', "import type { AuthInfo } from '@modelcontextprotocol/server';"],
    ['integrations/express.ts', "import type { Request } from 'express';"],
    ['integrations/oidc-provider.ts', "const load = () => import('oidc-provider');"],
    ['integrations/express.ts', 'const load = (name) => import(name);'],
    ['index.ts', "export * from './verifier/index.ts';"],
    ['helpers/text.ts', "import { x } from '../core/x.ts';"],
  ])('%s is refused: %s', (path, text) => {
    expect(brokenImports([{ path, text }])).toHaveLength(1);
  });

  test.each([
    ['core/pop.ts', "import { AttestedError } from '../errors.ts';\nimport { bytes } from './bytes.ts';"],
    ['index.ts', "export { createPop } from './core/pop.ts';"],
    ['platform/digest.ts', "import { createHash } from 'node:crypto';"],
    [
      'agent/index.ts',
      "import { openKeys } from '../keys/index.ts';\nimport { prove } from '../evidence/tpm/prove.ts';",
    ],
    ['integrations/express.ts', "import type { Verifier } from '../verifier/index.ts';"],
    [
      'cli/demo.ts',
      "const { Provider } = await import('oidc-provider');\nimport { createAgent } from '../agent/index.ts';",
    ],
    ['verifier/index.ts', "/**\n * @example\n * import express from 'express';\n */\n// import '../agent/index.ts'"],
    [
      'verifier/index.ts',
      "import { jwks } from './jwks.ts'; const url = 'https://a.example//*'; // from '../agent/index.ts'",
    ],
  ])('%s is allowed: %s', (path, text) => {
    expect(brokenImports([{ path, text }])).toEqual([]);
  });

  test('every way to import is seen', () => {
    const text = `import a from 'a'; import type { B } from "b"; export * from 'c'; export type { D } from 'd'; import 'e';
      await import('f'); type G = import('g').G; await import(\`h\`); require('i'); import { j } from 'j' with { type: 'json' };`;
    expect(importsOf(text).sort()).toEqual(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']);
  });
});
