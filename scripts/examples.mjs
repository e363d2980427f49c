// Runs every program of a folder (default: examples) whose first line is `// run: yes`, against the built package.
//
//   node scripts/examples.mjs [folder]
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, prepare, root, runNode, say } from './prepare.mjs';

const folder = process.argv[2] ?? 'examples';
const inFolder = existsSync(join(root, folder)) ? readdirSync(join(root, folder)).sort() : [];
const programs = inFolder
  .filter((name) => name.endsWith('.ts'))
  .map((name) => join(folder, name))
  .filter((path) => readFileSync(join(root, path), 'utf8').split('\n', 1)[0].trim() === '// run: yes');

prepare();
build();
const failed = [];
for (const path of programs) {
  say(`running ${path}`);
  if ((await runNode([path])) !== 0) failed.push(path);
}
say(`${programs.length} run from ${folder}${failed.length ? `, failed: ${failed.join(', ')}` : ''}`);
process.exitCode = failed.length ? 1 : 0;
