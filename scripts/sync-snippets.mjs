// Fills the code blocks of the documentation from checked files, so that what is shown is what runs.
//
//   <!-- snippet: examples/client.ts#verify -->     the lines between `// #region verify` and `// #endregion`;
//   ```ts                                           without #name, the whole file
//   ```
//
//   node scripts/sync-snippets.mjs [--check]
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const check = process.argv.includes('--check');
const block = /(<!-- snippet: (\S+?)(?:#(\S+))? -->\s*\n```\w*\n)([\s\S]*?)(^```$)/gm;

const isMarker = (line) => /^\s*\/\/ (#region|#endregion|run: yes)\b/.test(line);

function dedent(lines) {
  const indents = lines.filter((line) => line.trim()).map((line) => line.search(/\S/));
  const indent = Math.min(...indents);
  return lines.map((line) => line.slice(indent));
}

/** The lines to show: of one region or of the whole file, without region markers, indentation and empty edges. */
function snippet(path, region) {
  let lines = readFileSync(join(root, path), 'utf8').split('\n');
  if (region) {
    const start = lines.findIndex((line) => line.trim() === `// #region ${region}`);
    const length = lines.slice(start + 1).findIndex((line) => line.trim().startsWith('// #endregion'));
    if (start < 0 || length < 0) throw new Error(`${path} has no closed region ${region}`);
    lines = lines.slice(start + 1, start + 1 + length);
  }
  const shown = dedent(lines.filter((line) => !isMarker(line)));
  return `${shown.join('\n').trim()}\n`;
}

const docs = join(root, 'docs');
const pages = [
  'README.md',
  ...(existsSync(docs) ? readdirSync(docs, { recursive: true }).map((p) => join('docs', p)) : []),
].filter((path) => path.endsWith('.md') && existsSync(join(root, path)));

const stale = [];
for (const page of pages) {
  const text = readFileSync(join(root, page), 'utf8');
  const synced = text.replace(block, (_, head, path, region, _old, fence) => head + snippet(path, region) + fence);
  const asked = text.match(/<!-- snippet: /g)?.length ?? 0;
  const found = text.match(block)?.length ?? 0;
  if (asked !== found) throw new Error(`${page}: ${asked - found} snippet comment(s) without a code block after them`);
  if (synced === text) continue;
  stale.push(page);
  if (!check) writeFileSync(join(root, page), synced);
}
if (stale.length)
  console.error(`${check ? 'out of date, run node scripts/sync-snippets.mjs' : 'updated'}: ${stale.join(', ')}`);
process.exitCode = check && stale.length ? 1 : 0;
