import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { commands } from '../../src/cli/commands.ts';
import { generatePrivateKey } from '../../src/platform/crypto.ts';
import { attested, spawned, TERMINAL_CONTROL, withoutLineFeeds } from './harness.ts';

const names = commands.map(({ name }) => name);

describe('help and version', () => {
  test.each([['--help'], ['-h'], ['help']])('%s lists every command', async (argument) => {
    const { code, out, err } = await attested([argument]);
    expect(code).toBe(0);
    expect(err).toBe('');
    for (const name of names) expect(out).toContain(`  ${name} `);
  });

  test.each(names.flatMap((name) => [[[name, '--help']], [[name, '-h']], [['help', name]]]))(
    '%j explains every option',
    async (argv) => {
      const { code, out } = await attested(argv);
      const command = commands.find(({ name }) => argv.includes(name))!;
      expect(code).toBe(0);
      expect(out).toContain(`Usage: attested ${command.name} `);
      for (const option of Object.keys(command.options)) expect(out).toContain(`--${option}`);
    },
  );

  test('--version is the version of package.json', async () => {
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8'));
    expect(await attested(['--version'])).toEqual({ code: 0, out: `${version}\n`, err: '' });
  });

  test('without a command: the overview on stderr and exit code 2', async () => {
    const { code, out, err } = await attested([]);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain('Usage: attested <command>');
  });
});

describe('wrong calls have exit code 2 and say what is wrong', () => {
  test.each<[string[], string]>([
    [['inspct'], 'unknown command inspct; did you mean inspect?'],
    [['frobnicate'], 'unknown command frobnicate\n'],
    [['--verion'], 'unknown option --verion; did you mean --version?'],
    [['help', 'inspct'], 'did you mean inspect?'],
    [['inspect', '--jsno', 'x'], 'inspect has no option --jsno; did you mean --json?'],
    [['inspect', '-x', 'y'], 'inspect has no option -x'],
    [['inspect'], 'needs something to look at'],
    [['inspect', '   '], 'nothing to look at'],
    [['inspect', 'a', '--revision', '3'], '--revision must be one of 4, 5'],
    [['inspect', 'a', '--revision', 'x'], '--revision must be one of'],
    [['inspect', 'a', '--at', 'tomorrow'], '--at must be'],
    [['inspect', 'a', '--jwks', '/no/such/file'], '/no/such/file cannot be read (ENOENT)'],
    [['inspect', 'a', '--jwks', import.meta.filename], 'neither a JWK Set nor a JWK'],
    [['inspect', 'a', '--json=1'], 'does not take an argument'],
    [['inspect', 'a', '--audience='], '--audience needs a value'],
    [['keygen', 'x'], 'keygen takes options only'],
    [['keygen', '--keys', 'cloud'], '--keys must be one of auto, tpm, keychain, software'],
    [['keygen', '--kind', 'cloud'], '--keys must be one of auto, tpm, keychain, software'],
    [['keygen', '--keys', 'software', '--kind', 'software'], 'give --keys or --kind, not both'],
    [['verify'], 'verify needs --audience'],
    [['verify', '--audience', 'a'], 'either --jwks or --jwks-url'],
    [['verify', '--audience', 'a', '--jwks', 'a', '--jwks-url', 'b'], 'either --jwks or --jwks-url'],
    [['verify', '--audience', 'a', '--jwks-url', 'http://example.com/'], 'a URL must be https'],
    [['verify', '--audience', 'a', '--jwks-url', 'https://a.example/', '--role', 'x'], '--role must be as or rs'],
    [['verify', '--audience', 'a', '--jwks-url', 'https://a.example/'], 'verify needs --header-file'],
    [['demo', 'x'], 'demo takes no arguments'],
  ])('%j', async (argv, message) => {
    const { code, out, err } = await attested(argv);
    expect(err).toContain(message);
    expect([code, out]).toEqual([2, '']);
  });

  test('a private key is no key to trust, and is not shown', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'attested-usage-'));
    const path = join(directory, 'private.json');
    const jwk = generatePrivateKey('ES256').export({ format: 'jwk' });
    await writeFile(path, JSON.stringify(jwk));
    for (const argv of [
      ['inspect', 'a'],
      ['verify', '--audience', 'a', '--pop', 'b'],
    ]) {
      const { code, out, err } = await attested([...argv, '--jwks', path]);
      expect([code, out]).toEqual([2, '']);
      expect(err).toContain('the key carries a private or symmetric member');
      expect(err).not.toContain(jwk.d);
    }
    await rm(directory, { recursive: true });
  });

  test('what is quoted of a wrong call cannot steer the terminal', async () => {
    const { err } = await attested(['in\u001b]0;owned\u0007\u202espect']);
    expect(withoutLineFeeds(err)).not.toMatch(TERMINAL_CONTROL);
  });
});

describe('as a process', () => {
  test('exit code, streams, no colours without a terminal', async () => {
    const [help, wrong] = await Promise.all([spawned(['--help']), spawned(['inspct'])]);
    expect([help.code, help.err]).toEqual([0, '']);
    expect([wrong.code, wrong.out]).toEqual([2, '']);
    expect(withoutLineFeeds(help.out + wrong.err)).not.toMatch(TERMINAL_CONTROL);
  });

  test('a role of the demo cannot be started by hand', async () => {
    const { code, err } = await spawned(['__demo-role', 'attester']);
    expect(code).toBe(1);
    expect(err).toContain('started by `attested demo` only');
  });
});
