/**
 * The MCP conformance suite against a client with and without attestation, SDK v1 and v2. Fails when a check that the bare
 * client passes fails with attestation; says so when docs/conformance.md holds something else than what came out.
 *
 *   node peers/conformance/client.ts [--write]
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const here = import.meta.dirname;
const suite = join(here, '../node_modules/@modelcontextprotocol/conformance/dist/index.js');
const program = join(here, '../../test/e2e/support/conformance-client.ts');
const page = join(here, '../../docs/conformance.md');

type Sdk = 'v1' | 'v2';
/** Ids of the checks that failed, by scenario. */
type Failures = Map<string, Set<string>>;

async function run(sdk: Sdk, attested: boolean): Promise<Failures> {
  const results = mkdtempSync(join(tmpdir(), 'attested-conformance-'));
  const args = [suite, 'client', '--suite', 'all', '--command', `${process.execPath} ${program}`, '-o', results];
  const env = { ...process.env, CONFORMANCE_SDK: sdk, CONFORMANCE_ATTESTED: attested ? '1' : '0' };
  const child = spawn(process.execPath, args, { env, stdio: 'ignore' });
  await new Promise((resolve) => child.once('exit', resolve)); // its exit code only says that something failed
  const failures: Failures = new Map();
  for (const path of readdirSync(results, { recursive: true, encoding: 'utf8' })) {
    const scenario = /^(auth[/\\].+)-\d{4}-\d\d-\d\dT[^/\\]+[/\\]checks\.json$/.exec(path)?.[1]?.replace('\\', '/');
    if (scenario === undefined) continue;
    const checks = JSON.parse(readFileSync(join(results, path), 'utf8')) as { id: string; status: string }[];
    failures.set(scenario, new Set(checks.filter(({ status }) => status === 'FAILURE').map(({ id }) => id)));
  }
  rmSync(results, { recursive: true });
  if (failures.size < 30) throw new Error(`only ${failures.size} scenarios ran`);
  return failures;
}

const sdks: Sdk[] = ['v2', 'v1'];
const runs: Record<string, Failures> = {};
for (const sdk of sdks) {
  for (const attested of [false, true]) runs[`${sdk} ${attested}`] = await run(sdk, attested);
}

const scenarios = [...(runs['v2 false'] as Failures).keys()].sort();
const regressions = sdks.flatMap((sdk) =>
  scenarios.flatMap((scenario) => {
    const [bare, attested] = [false, true].map((with_) => runs[`${sdk} ${with_}`]?.get(scenario));
    if (attested === undefined) return [`${sdk} ${scenario} did not run`];
    return [...attested].filter((id) => !bare?.has(id)).map((id) => `${sdk} ${scenario}: ${id}`);
  }),
);

const cell = (failed: Set<string> | undefined) => (failed?.size === 0 ? 'passes' : 'fails');
const table = [
  '| scenario | v2 | v2, attested | v1 | v1, attested |',
  '|---|---|---|---|---|',
  ...scenarios.map((scenario) => {
    const cells = sdks.flatMap((sdk) => [false, true].map((with_) => cell(runs[`${sdk} ${with_}`]?.get(scenario))));
    return `| ${[`\`${scenario}\``, ...cells].join(' | ')} |`;
  }),
].join('\n');
const text = readFileSync(page, 'utf8');
const updated = text.replace(/(<!-- client scenarios -->\n)[\s\S]*?(\n<!-- end -->)/, `$1${table}$2`);
if (process.argv.includes('--write')) writeFileSync(page, updated);
// a scenario that the bare client fails may do so now and then only, so this alone is no failure
else if (updated !== text) console.error('docs/conformance.md says something else: run this with --write');

const passed = scenarios.filter((scenario) => runs['v2 true']?.get(scenario)?.size === 0).length;
console.log(
  `${scenarios.length} authorization scenarios: ${passed} pass with SDK v2 and attestation, ${regressions.length} regressions`,
);
for (const each of regressions) console.error(each);
process.exitCode = regressions.length > 0 ? 1 : 0;
