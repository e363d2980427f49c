// Tests what a user installs: the packed tarball. Its metadata and types, its file list, and that an empty project
// can import every public subpath without development dependencies and without install scripts.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, env, fail, node, prepare, root, say, succeeds } from './prepare.mjs';

const tool = (name) => join(root, 'node_modules', '.bin', name);
const npm = (args, cwd) =>
  execFileSync('npm', args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
const allowed = /^(dist\/.+\.(js|d\.ts|js\.map)|package\.json|README\.md|LICENSE|CHANGELOG\.md|SECURITY\.md)$/;

function pack(folder) {
  const answer = JSON.parse(npm(['pack', '--json', '--ignore-scripts', '--pack-destination', folder], root));
  const [packed] = Array.isArray(answer) ? answer : Object.values(answer);
  const paths = packed.files.map((file) => file.path);
  const strange = paths.filter((path) => !allowed.test(path) || /(^|\/)test\/|\.test\./.test(path));
  if (strange.length) fail(`the tarball holds what it should not: ${strange.join(', ')}`);
  say(`packed ${paths.length} files, ${Math.round(packed.size / 1024)} kB`);
  return join(folder, packed.filename);
}

function checkMetadata(tarball) {
  if (!succeeds(node, [tool('publint'), 'run', tarball, '--strict'])) fail('publint found a fault');
  if (!succeeds(node, [tool('attw'), tarball, '--profile', 'esm-only', '--no-emoji'])) fail('attw found wrong types');
}

function installInto(folder, tarball) {
  const project = join(folder, 'project');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "name": "empty", "private": true, "type": "module" }');
  npm(['install', '--ignore-scripts', '--omit=dev', '--no-audit', '--no-fund', '--loglevel=error', tarball], project);
  return project;
}

function importEverySubpath(project, manifest) {
  const subpaths = Object.keys(manifest.exports).filter((name) => name !== './package.json');
  const names = subpaths.map((name) => `attested${name.slice(1)}`);
  const program = `for (const name of ${JSON.stringify(names)}) {
    const exported = Object.keys(await import(name));
    if (exported.length === 0) throw new Error(name + ' exports nothing');
  }`;
  if (!succeeds(node, ['--input-type=module', '--eval', program], { cwd: project }))
    fail('a subpath cannot be imported');
  say(`imported ${names.join(', ')}`);
}

function runCommand(project, manifest) {
  for (const command of Object.keys(manifest.bin ?? {})) {
    const answer = succeeds(join(project, 'node_modules', '.bin', command), ['--help'], {
      cwd: project,
      stdio: 'ignore',
    });
    if (!answer) fail(`the installed command ${command} --help failed`);
    say(`ran ${command} --help`);
  }
}

prepare();
build();
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const folder = mkdtempSync(join(tmpdir(), 'attested-packed-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const tarball = pack(folder);
checkMetadata(tarball);
const project = installInto(folder, tarball);
importEverySubpath(project, manifest);
runCommand(project, manifest);
