/**
 * The rule of the folders: imports point only downwards. Pure functions over source text, so that the rule itself can be
 * tested on made-up files.
 */
import { posix } from 'node:path';

/** A source file: its path relative to src/ with forward slashes, and its text. */
export interface SourceFile {
  path: string;
  text: string;
}

const below: readonly string[] = ['errors.ts', 'core', 'platform', 'tpm2'];

/** Each folder of src/ (or file directly in it), and what it may import besides itself. */
const layers: Record<string, readonly string[]> = {
  'errors.ts': [],
  core: ['errors.ts'],
  'index.ts': ['errors.ts', 'core', 'platform'],
  platform: ['errors.ts', 'core'],
  native: ['errors.ts', 'core', 'platform'],
  tpm2: ['errors.ts', 'core', 'platform'],
  evidence: ['errors.ts', 'core', 'platform', 'tpm2'],
  keys: ['errors.ts', 'core', 'platform', 'tpm2', 'native'],
  verifier: ['errors.ts', 'core', 'platform'],
  attester: [...below, 'evidence'],
  agent: [...below, 'evidence', 'keys'],
  mcp: [...below, 'evidence', 'keys', 'verifier', 'attester', 'agent'],
  integrations: [...below, 'evidence', 'keys', 'verifier', 'attester', 'agent', 'mcp'],
  bridge: [...below, 'keys', 'agent'],
  cli: [
    'index.ts',
    ...below,
    'native',
    'evidence',
    'keys',
    'verifier',
    'attester',
    'agent',
    'mcp',
    'integrations',
    'bridge',
  ],
};

/** The protocol core runs anywhere: no node: module and no npm package. */
const neutral = ['errors.ts', 'core'];

/** A library that imports a framework makes every user install it; only the command may, where it runs the demo. */
const frameworks = /^(@modelcontextprotocol\/|express($|\/)|@types\/|oidc-provider($|\/))/;

// Strings are matched too, so that a `//` or `/*` inside one is not taken for a comment.
const commentOrString = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/g;
const imports = [
  /\b(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/g, // import … from, import type, export … from
  /\bimport\s*['"]([^'"]+)['"]/g, // import for its effects
  /\bimport\s*\(\s*(?:['"`]([^'"`]+)['"`])?/g, // import('…') as a call or in a type; no group when it is computed
  /\brequire\s*\(\s*(?:['"`]([^'"`]+)['"`])?/g,
];

/** The module names a file imports; '(computed)' for an import whose name is not written there. */
export function importsOf(text: string): string[] {
  const code = text.replace(commentOrString, (match) => (match.startsWith('/') ? ' ' : match));
  return imports.flatMap((pattern) => [...code.matchAll(pattern)].map((match) => match[1] ?? '(computed)'));
}

/** The folder below src/ that a path lies in, or the file's own name directly in src/. */
const layerOf = (path: string): string => path.split('/', 1)[0] ?? path;

function complaint(file: string, from: string, imported: string): string | undefined {
  const allowed = layers[from];
  if (!allowed) return `${from} has no place in the list of layers`;
  if (imported.startsWith('.')) {
    const target = posix.normalize(posix.join(posix.dirname(file), imported));
    const to = layerOf(target);
    if (target.startsWith('..')) return 'it leaves src/';
    if (to !== from && !allowed.includes(to)) return `${from} may not import ${to}`;
    return undefined;
  }
  if (neutral.includes(from)) return `${from} is neutral: no node: module, no package`;
  if (imported === 'attested' || imported.startsWith('attested/')) return 'inside the package, imports are relative';
  if (from === 'cli') return undefined;
  if (imported === '(computed)') return 'a computed import hides what is imported';
  if (frameworks.test(imported)) return 'only cli may import a framework, also for its types';
  return undefined;
}

/** Every import that breaks the rule, as `file -> module: why`. */
export function brokenImports(files: readonly SourceFile[]): string[] {
  return files.flatMap(({ path, text }) =>
    importsOf(text).flatMap((imported) => {
      const why = complaint(path, layerOf(path), imported);
      return why ? `${path} -> ${imported}: ${why}` : [];
    }),
  );
}
