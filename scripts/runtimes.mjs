// Runs the examples for agent runtimes, each against servers of its own, after a check of their types against the built package.
// The runtimes are 450 MB, so they are installed for this only.
//
//   node scripts/runtimes.mjs
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { build, fail, node, prepare, prepareFolder, root, runNode, say, succeeds } from './prepare.mjs';

const folder = 'examples/runtimes';
const programs = readdirSync(join(root, folder))
  .filter((name) => name.endsWith('.ts'))
  .map((name) => join(folder, name))
  .filter((path) => readFileSync(join(root, path), 'utf8').startsWith('// run: yes\n'))
  .sort();

prepare();
prepareFolder(folder, 'agent runtimes');
build();
if (!succeeds(node, ['node_modules/.bin/tsc', '-p', folder])) fail(`${folder} has wrong types`);

const waiting = [...programs];
const failed = [];
async function worker() {
  for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
    say(`running ${path}`);
    if ((await runNode([path])) !== 0) failed.push(path);
  }
}
await Promise.all(Array.from({ length: availableParallelism() }, worker));
say(`${programs.length} run from ${folder}${failed.length ? `, failed: ${failed.sort().join(', ')}` : ''}`);
process.exitCode = failed.length ? 1 : 0;
