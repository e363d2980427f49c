import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { PRIVATE_MEMBERS, readPublicJwk } from '../../src/core/jwk.ts';
import { openKeys } from '../../src/keys/index.ts';
import { thumbprintOf } from '../../src/platform/crypto.ts';
import { attested } from './harness.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attested-keygen-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe('attested keygen', () => {
  test('prints the public key alone on stdout, and its thumbprint', async () => {
    const { code, out, err } = await attested(['keygen', '--kind', 'software', '--dir', directory]);
    const jwk = JSON.parse(out);
    expect(code).toBe(0);
    expect(err).toContain(`New ES256 key default in software, thumbprint ${thumbprintOf(readPublicJwk(jwk))}`);
    for (const member of PRIVATE_MEMBERS) expect(jwk).not.toHaveProperty(member);
  });

  test('the key is one that the library finds, and is not replaced by a second call', async () => {
    const argv = ['keygen', '--kind', 'software', '--dir', directory, '--label', 'mine', '--json'];
    const first = JSON.parse((await attested(argv)).out);
    const second = JSON.parse((await attested(argv)).out);
    expect([first.created, second.created]).toEqual([true, false]);
    expect(second.thumbprint).toBe(first.thumbprint);
    const keys = await openKeys('software', { directory });
    expect((await keys.getKey('mine'))?.thumbprint).toBe(first.thumbprint);
    await keys.close();
  });

  test('without --dir the key is where the library looks; --keys names the place, as in the other commands', async () => {
    vi.stubEnv('ATTESTED_HOME', directory);
    onTestFinished(() => void vi.unstubAllEnvs());
    const { out } = await attested(['keygen', '--keys', 'software', '--json']);
    const keys = await openKeys('software', { directory });
    expect((await keys.getKey('default'))?.thumbprint).toBe(JSON.parse(out).thumbprint);
    await keys.close();
  });

  test('--alg', async () => {
    const { out } = await attested(['keygen', '--kind', 'software', '--dir', directory, '--alg', 'Ed25519', '--json']);
    expect(JSON.parse(out)).toMatchObject({ alg: 'Ed25519', publicJwk: { kty: 'OKP', crv: 'Ed25519' } });
  });

  test('--passphrase-file: a wrong passphrase is refused, and shown nowhere', async () => {
    const [right, wrong] = [join(directory, 'right'), join(directory, 'wrong')];
    await writeFile(right, 'correct horse battery\nsecond line\n');
    await writeFile(wrong, 'incorrect donkey\n');
    const argv = ['keygen', '--kind', 'software', '--dir', join(directory, 'keys'), '--passphrase-file'];
    expect((await attested([...argv, right])).code).toBe(0);
    const { code, out, err } = await attested([...argv, wrong]);
    expect([code, out]).toEqual([1, '']);
    expect(err).toContain('key_store_wrong_secret');
    expect(err).not.toContain('donkey');
  });

  test.each([
    ['an algorithm that does not exist', ['--alg', 'ES257'], 'invalid_argument'],
    ['a label that could not be one', ['--label', 'a\u0000b'], 'invalid_argument'],
  ])('%s is refused and makes nothing', async (_what, argv, expected) => {
    const { code, out, err } = await attested(['keygen', '--kind', 'software', '--dir', directory, ...argv]);
    expect([code, out]).toEqual([1, '']);
    expect(err).toContain(expected);
    const made = await readdir(directory, { recursive: true });
    expect(made.filter((name) => name.endsWith('.key'))).toEqual([]);
  });
});
