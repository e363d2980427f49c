// npm test: prepare, install the real servers the tests talk to, build, run vitest. Arguments go to vitest.
// The last line is `N passed, N failed[, N skipped]`.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { installParts, testParts } from './parts.mjs';
import { build, env, fail, prepare, preparePeers, runNode, say } from './prepare.mjs';

/** Whatever cannot be installed is not tested, and that is said. */
function requireParts() {
  const missing = installParts(testParts).map((part) => part.name);
  if (missing.length === 0) return;
  if (env.CI === 'true') fail(`missing, and with CI=true nothing may be skipped: ${missing.join(', ')}`);
  say(`skipping the tests that need ${missing.join(', ')}: not installed, and no right to install it`);
  env.ATTESTED_SKIP = missing.join(',');
}

/** Counts from vitest's report. A file that could not be loaded, or an error outside any test, is a failure too. */
function summary(report, exitCode) {
  const results = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : { testResults: [] };
  const tests = results.testResults.flatMap((file) => file.assertionResults);
  const count = (...states) => tests.filter((test) => states.includes(test.status)).length;
  const brokenFiles = results.testResults.filter(
    (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
  ).length;
  const failed = count('failed') + brokenFiles || (exitCode === 0 ? 0 : 1);
  const skipped = count('skipped', 'pending', 'todo', 'disabled');
  return `${count('passed')} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`;
}

let line = '0 passed, 1 failed'; // what stands when nothing could be run
process.on('exit', () => console.log(`\n${line}`));
prepare();
preparePeers();
requireParts();
build();
const folder = mkdtempSync(join(tmpdir(), 'attested-test-'));
const report = join(folder, 'report.json');
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
const exitCode = await runNode(['node_modules/.bin/vitest', 'run', ...reporters, ...process.argv.slice(2)]);
line = summary(report, exitCode);
rmSync(folder, { recursive: true });
process.exitCode = exitCode;
