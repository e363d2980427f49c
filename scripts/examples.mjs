// Runs every program of a folder (default: examples and peers/examples) whose first line is `// run: yes`, against the built package.
//
//   node scripts/examples.mjs [folder]
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, prepare, preparePeers, root, runNode, say } from './prepare.mjs';

const folders = process.argv[2] ? [process.argv[2]] : ['examples', 'peers/examples'];
const inFolder = (folder) => (existsSync(join(root, folder)) ? readdirSync(join(root, folder)).sort() : []);
const programs = folders
  .flatMap((folder) => inFolder(folder).map((name) => join(folder, name)))
  .filter((path) => path.endsWith('.ts'))
  .filter((path) => readFileSync(join(root, path), 'utf8').split('\n', 1)[0].trim() === '// run: yes');

prepare();
if (process.argv[2] === undefined) preparePeers();
build();
const failed = [];
for (const path of programs) {
  say(`running ${path}`);
  if ((await runNode([path])) !== 0) failed.push(path);
}
say(`${programs.length} run from ${folders.join(' and ')}${failed.length ? `, failed: ${failed.join(', ')}` : ''}`);
process.exitCode = failed.length ? 1 : 0;
