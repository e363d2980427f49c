// Runs every program of a folder (default: examples and peers/examples) whose first line is `// run: yes`, against the built package.
// `// run: yes, with tpm` needs a part of scripts/parts.mjs, which is installed as for npm test.
//
//   node scripts/examples.mjs [folder]
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { installParts, testParts } from './parts.mjs';
import { build, env, fail, prepare, preparePeers, root, runNode, say } from './prepare.mjs';

const folders = process.argv[2] ? [process.argv[2]] : ['examples', 'peers/examples'];
const inFolder = (folder) => (existsSync(join(root, folder)) ? readdirSync(join(root, folder)).sort() : []);
const MARK = /^\/\/ run: yes(?:, with (\w+))?$/;
const marked = folders
  .flatMap((folder) => inFolder(folder).map((name) => join(folder, name)))
  .filter((path) => path.endsWith('.ts'))
  .map((path) => ({ path, mark: MARK.exec(readFileSync(join(root, path), 'utf8').split('\n', 1)[0].trim()) }))
  .filter(({ mark }) => mark !== null);

prepare();
if (process.argv[2] === undefined) preparePeers();
build();
const needed = testParts.filter(({ name }) => marked.some(({ mark }) => mark[1] === name));
const missing = installParts(needed).map(({ name }) => name);
if (missing.length > 0 && env.CI === 'true')
  fail(`missing, and with CI=true nothing may be skipped: ${missing.join(', ')}`);
const isRunnable = ({ mark }) => !missing.includes(mark[1]);
for (const { path, mark } of marked.filter((one) => !isRunnable(one))) say(`skipping ${path}: it needs ${mark[1]}`);
const programs = marked.filter(isRunnable).map(({ path }) => path);
const failed = [];
for (const path of programs) {
  say(`running ${path}`);
  if ((await runNode([path])) !== 0) failed.push(path);
}
say(`${programs.length} run from ${folders.join(' and ')}${failed.length ? `, failed: ${failed.join(', ')}` : ''}`);
process.exitCode = failed.length ? 1 : 0;
