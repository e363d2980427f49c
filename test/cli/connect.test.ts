import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { type Arguments, readArguments } from '../../src/cli/command.ts';
import { connect } from '../../src/cli/connect/command.ts';
import { readSettings } from '../../src/cli/connect/settings.ts';
import { attested, spawned } from './harness.ts';

const SERVER = 'https://mcp.example/mcp';
const ENOUGH = ['--client-id', 'c', '--attester', 'https://attester.example'];
const read = (argv: string[], env: Record<string, string> = {}) =>
  readSettings(readArguments(connect, argv) as Arguments, env);

async function file(content: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'attested-connect-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  const path = join(directory, 'file');
  await writeFile(path, content);
  return path;
}

describe('settings', () => {
  test('the least that is needed, and what is then meant', async () => {
    expect(await read([SERVER, ...ENOUGH])).toEqual({
      server: new URL(SERVER),
      clientId: 'c',
      attester: { url: 'https://attester.example' },
      enrolmentToken: undefined,
      keys: 'auto',
      directory: undefined,
      passphrase: undefined,
      method: undefined,
      grant: 'auto',
      scope: undefined,
      issuer: undefined,
      redirectPort: undefined,
      loginTimeout: 300_000,
      browser: true,
    });
  });

  test('the command line goes before the environment, and that before the file', async () => {
    const config = await file(
      JSON.stringify({
        server: 'https://file.example/mcp',
        'client-id': 'from-file',
        attester: 'https://file.example',
        scope: 'from-file',
        'login-timeout': 7,
        'no-browser': true,
      }),
    );
    const env = { ATTESTED_CONFIG: config, ATTESTED_CLIENT_ID: 'from-env', ATTESTED_ATTESTER: 'https://env.example' };
    expect(await read(['--attester', 'https://line.example'], env)).toMatchObject({
      server: new URL('https://file.example/mcp'),
      clientId: 'from-env',
      attester: { url: 'https://line.example' },
      scope: 'from-file',
      loginTimeout: 7000,
      browser: false,
    });
  });

  test('secrets come from the environment or from the first line of a file', async () => {
    const path = await file('  the-token \nsecond line\n');
    const fromFile = await read([SERVER, ...ENOUGH, '--enrolment-file', path, '--passphrase-file', path]);
    expect([fromFile.enrolmentToken, fromFile.passphrase]).toEqual(['the-token', 'the-token']);
    const fromEnv = await read([SERVER, ...ENOUGH, '--enrolment-file', path], { ATTESTED_ENROLMENT_TOKEN: 'other' });
    expect(fromEnv.enrolmentToken).toBe('other');
  });
});

describe('wrong calls have exit code 2 and say what is wrong', () => {
  test.each<[string[], string]>([
    [['connect'], 'URL of one MCP server'],
    [['connect', SERVER, SERVER, ...ENOUGH], 'URL of one MCP server'],
    [['connect', SERVER], '--client-id'],
    [['connect', SERVER, '--client-id', 'c'], 'either --attester'],
    [['connect', SERVER, ...ENOUGH, '--self-attester-key', 'k'], 'either --attester'],
    [['connect', 'http://mcp.example/mcp', ...ENOUGH], 'must be https'],
    [['connect', 'mcp.example', ...ENOUGH], 'must be https'],
    [
      ['connect', SERVER, '--client-id', 'c', '--attester', 'http://attester.example'],
      '--attester: a URL must be https',
    ],
    [['connect', SERVER, ...ENOUGH, '--keys', 'cloud'], '--keys must be one of'],
    [['connect', SERVER, ...ENOUGH, '--grant', 'password'], '--grant must be one of'],
    [['connect', SERVER, ...ENOUGH, '--method', 'none'], '--method must be one of'],
    [['connect', SERVER, ...ENOUGH, '--redirect-port', '0'], '--redirect-port must be'],
    [['connect', SERVER, ...ENOUGH, '--login-timeout', 'soon'], '--login-timeout must be'],
    [['connect', SERVER, ...ENOUGH, '--config', '/no/such/file'], 'cannot be read (ENOENT)'],
    [['connect', SERVER, ...ENOUGH, '--config', import.meta.filename], 'not one JSON object'],
    [['proxy', SERVER, ...ENOUGH], 'proxy needs --listen'],
    [['proxy', SERVER, ...ENOUGH, '--listen', 'here'], '--listen must be [HOST:]PORT'],
    [['proxy', SERVER, ...ENOUGH, '--listen', 'localhost'], "Run 'attested proxy --help'"],
    [['proxy', SERVER, ...ENOUGH, '--listen', '0', '--allow-origin', 'https://app.example/'], 'without a slash'],
    [['proxy', SERVER, ...ENOUGH, '--listen', '0', '--allow-origin', '*'], '--allow-origin takes origins'],
    [['proxy', SERVER, ...ENOUGH, '--listen', '0', '--allow-origin', 'null'], '--allow-origin takes origins'],
    [['proxy', SERVER, ...ENOUGH, '--listen', '0', '--allow-origin', 'https://a.example,app'], '--allow-origin takes'],
    [['proxy', SERVER, ...ENOUGH, '--listen', '127.0.0.1:70000'], '--listen must be'],
  ])('%j', async (argv, said) => {
    const { code, out, err } = await attested(argv);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain(said);
  });

  test('an unknown member of the configuration file', async () => {
    const { code, err } = await attested(['connect', '--config', await file('{"clientid":"x"}')]);
    expect(code).toBe(2);
    expect(err).toContain('unknown member');
  });

  test('a key of one’s own that is not there', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'attested-connect-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const argv = [
      'connect',
      SERVER,
      '--client-id',
      'c',
      '--self-attester-key',
      'k',
      '--keys',
      'software',
      '--dir',
      directory,
    ];
    const { code, out, err } = await spawned(argv);
    expect([code, out]).toEqual([2, '']);
    expect(err).toContain('attested keygen');
  });
});

describe('proxy', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'attested-proxy-'));
    return () => rm(directory, { recursive: true });
  });
  const argv = (...more: string[]) => ['proxy', SERVER, ...ENOUGH, '--keys', 'software', '--dir', directory, ...more];

  test.each(['0.0.0.0:0', '[::]:0', '192.0.2.1:0', 'example.com:0'])('--listen %s is refused', async (listen) => {
    const { code, out, err } = await spawned(argv('--listen', listen));
    expect([code, out]).toEqual([1, '']);
    expect(err).toContain('addresses of this machine only');
  });

  test('origins of web pages, and of programs that are browsers within', async () => {
    const origins = 'https://app.example,http://localhost:3000,tauri://localhost,chrome-extension://abcdefgh';
    const { code, err } = await spawned(argv('--listen', '192.0.2.1:0', '--allow-origin', origins));
    expect(code).toBe(1); // no more than the address is wrong
    expect(err).not.toContain('--allow-origin');
  });

  test.skipIf(process.platform === 'win32')('a secret that others can read is refused', async () => {
    const path = join(directory, 'open');
    await writeFile(path, 'a-secret-that-nobody-could-guess\n');
    await chmod(path, 0o644);
    const { code, err } = await attested(argv('--listen', '0', '--secret-file', path));
    expect(code).toBe(2);
    expect(err).toContain('can be read by others');
    expect(err).not.toContain('a-secret-that');
  });

  test.skipIf(process.platform === 'win32')('a secret of somebody else is refused', async () => {
    const path = join(directory, 'planted');
    await writeFile(path, 'a-secret-that-somebody-knows\n', { mode: 0o600 });
    const { uid } = await stat(path);
    const somebodyElse = vi.spyOn(process, 'getuid').mockReturnValue(uid + 1);
    onTestFinished(() => somebodyElse.mockRestore());
    const { code, err } = await attested(argv('--listen', '0', '--secret-file', path));
    expect(code).toBe(2);
    expect(err).toContain('belongs to another user');
  });

  test('a secret file is made, for its owner only, and of enough length', async () => {
    const path = join(directory, 'secret');
    await attested(argv('--listen', '192.0.2.1:0', '--secret-file', path));
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await readFile(path, 'utf8')).trim()).toMatch(/^[\w-]{43}$/);
  });
});
