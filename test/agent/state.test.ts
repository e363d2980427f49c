/** What an agent remembers: whole after a restart, shared by processes, and told to nobody who copies the disk. */
import { createHash, createHmac } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Agent } from '../../src/agent/index.ts';
import { readStates } from '../../src/agent/state.ts';
import { type KeyProvider, openKeys } from '../../src/keys/index.ts';
import { sha256Base64url } from '../../src/platform/crypto.ts';
import { expectRefusal } from '../support/errors.ts';
import { json, newAgent, newAttester, startFakeAs, tokenRequest } from './support.ts';

const A = 'https://a.example/mcp';
const B = 'https://b.example/mcp';

async function directory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'attested-agent-'));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

const bearer = () => startFakeAs((_request, response) => json(response, { access_token: 'a', token_type: 'Bearer' }));

/** A file that looks like ours. */
const sealed = (changes: object) =>
  JSON.stringify({
    format: 'attested agent state',
    version: 2,
    key: 'x',
    derivation: { name: 'hkdf-sha256', salt: 'A'.repeat(22) },
    encryption: { name: 'A256GCM', nonce: 'A'.repeat(16), ciphertext: '', tag: 'A'.repeat(22) },
    ...changes,
  });

describe('state', () => {
  const stateFile = async (path: string) => {
    const [name] = (await readdir(path)).filter((file) => /^agent-.*\.json$/.test(file));
    return join(path, name ?? 'none');
  };

  test('is a private file that holds no key and no token', async () => {
    const stateDirectory = await directory();
    const as = await startFakeAs((_request, response) =>
      json(response, { access_token: 'secret-access', refresh_token: 'secret-refresh', token_type: 'DPoP' }),
    );
    const { agent } = await newAgent({ stateDirectory });
    await tokenRequest(agent, as.issuer, { resource: A });
    await agent.close();
    const path = await stateFile(stateDirectory);
    const text = await readFile(path, 'utf8');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(text).not.toMatch(/secret-|"d":/);
  });

  test('PRIV-2: nothing in the directory names a server', async () => {
    const place = await directory();
    const as = await bearer();
    const keys = await openKeys('software', { directory: place, machineSecret: new Uint8Array(32).fill(7) });
    const { agent } = await newAgent({ keys });
    await tokenRequest(agent, as.issuer, { resource: 'https://r.secret.example/' });
    await agent.close();
    await keys.close();
    const files = (await readdir(place, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
    expect(files.length).toBeGreaterThan(2);
    for (const { name, parentPath } of files) {
      const content = `${name} ${await readFile(join(parentPath, name), 'latin1')}`;
      const decoded = content.replace(
        /[\w-]{8,}/g,
        (word) => `${word} ${Buffer.from(word, 'base64url').toString('latin1')}`,
      );
      expect(decoded).not.toMatch(/secret\.example|127\.0\.0\.1/);
    }
  });

  test('PRIV-2: nor can a guess at a server be checked by what is in the directory', async () => {
    const place = await directory();
    const as = await bearer();
    const keys = await openKeys('software', { directory: place, machineSecret: new Uint8Array(32).fill(7) });
    const { agent } = await newAgent({ keys });
    await tokenRequest(agent, as.issuer, { resource: A });
    await agent.close();
    const infos = await keys.listKeys();
    await keys.close();
    // all that stands there in clear, as the key of the hash over the name
    const clear = infos.flatMap(({ label, thumbprint }) => [label, thumbprint, agent.clientId, '']);
    const hashes = clear.flatMap((key) => [
      createHmac('sha256', key).update(A).digest(),
      createHash('sha256')
        .update(key + A)
        .digest(),
    ]);
    expect(infos).toHaveLength(2);
    for (const hash of hashes) {
      const shown = hash.subarray(0, 16).toString('base64url');
      expect(infos.filter(({ label }) => label.includes(shown))).toEqual([]);
    }
  });

  test('lies beside keys in files by default, and both come back after a restart', async () => {
    const place = await directory();
    const as = await bearer();
    const attester = newAttester();
    const thumbprints = [];
    for (let run = 0; run < 2; run++) {
      const keys = await openKeys('software', { directory: place, machineSecret: new Uint8Array(32).fill(7) });
      const { agent, warnings } = await newAgent({ keys, attester });
      expect((await tokenRequest(agent, as.issuer, { resource: A })).status).toBe(200);
      thumbprints.push(...agent.identities().map(({ thumbprint }) => thumbprint));
      expect((await keys.listKeys()).map(({ thumbprint }) => thumbprint)).toContain(thumbprints[0]);
      expect(warnings).toEqual([]);
      await agent.close();
      await keys.close();
    }
    expect(thumbprints).toHaveLength(2);
    expect(new Set(thumbprints).size).toBe(1);
    expect(attester.seen.filter(({ path }) => path === '/attestation')).toHaveLength(1);
  });

  test.each<[string, string]>([
    ['empty', ''],
    ['sealed under a key that is lost', sealed({ key: '00000000-0000-4000-8000-000000000000' })],
    ['sealed by a damaged id', sealed({ key: '../../etc/passwd' })],
    ['sealed in an unknown way', sealed({ encryption: { name: 'none' } })],
    ['truncated', '{"version":1,"identities":[{"label":"att'],
    ['not UTF-8', '\xff\xfe'],
    ['of another version', '{"version":99}'],
    ['an array', '[]'],
    ['hostile', '{"version":1,"__proto__":{"enrolled":true}}'],
  ])('that is %s is set aside, and rebuilt from the keys', async (_name, content) => {
    const stateDirectory = await directory();
    const as = await bearer();
    const [keys, attester] = [await openKeys('software'), newAttester()];
    const first = await newAgent({ stateDirectory, keys, attester });
    await tokenRequest(first.agent, as.issuer, { resource: A });
    await first.agent.rotate();
    await first.agent.close();
    const current = first.agent.identities().find((identity) => identity.current);
    await writeFile(await stateFile(stateDirectory), Buffer.from(content, 'latin1'));

    const second = await newAgent({ stateDirectory, keys, attester });
    expect(second.warnings).toMatchObject([{ code: 'state' }]);
    expect((await tokenRequest(second.agent, as.issuer, { resource: A })).status).toBe(200);
    expect(second.agent.identities()).toMatchObject([{ thumbprint: current?.thumbprint, generation: 2, server: A }]);
    expect((await readdir(stateDirectory)).filter((file) => file.includes('unreadable'))).toHaveLength(1);
  });

  test('whose content was altered is set aside', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const [keys, attester] = [await openKeys('software'), newAttester()];
    const first = await newAgent({ stateDirectory, keys, attester });
    await tokenRequest(first.agent, as.issuer, { resource: A });
    await first.agent.close();
    const path = await stateFile(stateDirectory);
    const file = JSON.parse(await readFile(path, 'utf8'));
    file.encryption.ciphertext = `${file.encryption.ciphertext[0] === 'A' ? 'B' : 'A'}${file.encryption.ciphertext.slice(1)}`;
    await writeFile(path, JSON.stringify(file));
    const second = await newAgent({ stateDirectory, keys, attester });
    expect(second.warnings).toMatchObject([{ code: 'state' }]);
  });

  test('of another client is not taken for ours', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const [keys, attester] = [await openKeys('software'), newAttester()];
    const first = await newAgent({ stateDirectory, keys, attester });
    await tokenRequest(first.agent, as.issuer, { resource: A });
    await first.agent.close();
    const other = `agent-${sha256Base64url('another').slice(0, 22)}.json`;
    await writeFile(join(stateDirectory, other), await readFile(await stateFile(stateDirectory)));
    const second = await newAgent({ stateDirectory, keys, attester, clientId: 'another' });
    expect(second.warnings).toMatchObject([{ code: 'state' }]);
    expect(second.agent.identities()).toEqual([]);
  });

  test('PRIV-2: a state of version 1, in clear, is taken over and sealed; its damaged entries cost only themselves', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const [keys, attester] = [await openKeys('software'), newAttester()];
    const first = await newAgent({ stateDirectory, keys, attester, tracking: 'refuse' });
    await tokenRequest(first.agent, as.issuer, { resource: A });
    await first.agent.close();
    const { states } = await readStates(stateDirectory, keys.secrets);
    const [[label, identity] = ['', undefined]] = states[0]!.identities;
    const { tokens: _new, joined, ...old } = identity!;
    const path = await stateFile(stateDirectory);
    const damaged = [null, 7, { label: 'x' }, { label: 'y', scope: 1, generation: -1, thumbprint: 't' }];
    const clear = {
      version: 1,
      enrolled: true,
      current: [...states[0]!.current, null, ['z'], ['z', -1]],
      identities: [...damaged, { label, ...old, joined: [...joined] }],
      artifacts: ['x', { hash: 1 }],
    };
    await writeFile(path, JSON.stringify(clear));

    const second = await newAgent({ stateDirectory, keys, attester, tracking: 'refuse' });
    expect(await readFile(path, 'utf8')).not.toContain('a.example');
    expect(second.agent.identities()).toEqual(first.agent.identities());
    expect(second.warnings).toEqual([]);
    const error = await expectRefusal(() => tokenRequest(second.agent, as.issuer, { resource: B }), {
      code: 'tracking_refused',
    });
    expect(error.message).toContain(A);
  });

  test('PRIV-2: of two processes that first show one key at once, exactly one does', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const [keys, attester] = [await openKeys('software'), newAttester()];
    for (let round = 0; round < 5; round++) {
      const options = { stateDirectory, keys, attester, tracking: 'refuse' as const };
      const [one, two] = [await newAgent(options), await newAgent(options)];
      const results = await Promise.allSettled([
        tokenRequest(one.agent, as.issuer, { resource: A }),
        tokenRequest(two.agent, as.issuer, { resource: B }),
      ]);
      expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      await one.agent.close();
      await two.agent.close();
      for (const name of await readdir(stateDirectory)) await rm(join(stateDirectory, name), { recursive: true });
    }
  });

  test('two processes that write at once lose nothing of each other', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const [keys, attester] = [await openKeys('software'), newAttester()];
    const agents: Agent[] = [];
    for (let i = 0; i < 3; i++) agents.push((await newAgent({ stateDirectory, keys, attester })).agent);
    const names = Array.from({ length: 12 }, (_, i) => `https://r${i}.example/mcp`);
    await Promise.all(names.map((resource, i) => tokenRequest(agents[i % 3]!, as.issuer, { resource })));
    const { states } = await readStates(stateDirectory, keys.secrets);
    expect([...states[0]!.identities.values()].flatMap(({ seenBy }) => seenBy).sort()).toEqual([...names].sort());
  });

  test('a key provider without secrets: nothing is written, and a warning says so', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const { secrets: _absent, ...rest } = await openKeys('software');
    const { agent, warnings } = await newAgent({ stateDirectory, keys: rest as KeyProvider });
    expect(warnings).toMatchObject([{ code: 'state', message: expect.stringContaining('no secrets') }]);
    expect((await tokenRequest(agent, as.issuer, { resource: A })).status).toBe(200);
    await agent.close();
    expect(await readdir(stateDirectory)).toEqual([]);
  });

  test('secrets that cannot be read now do not cost the state', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const [keys, attester] = [await openKeys('software'), newAttester()];
    const first = await newAgent({ stateDirectory, keys, attester });
    await tokenRequest(first.agent, as.issuer, { resource: A });
    await first.agent.close();
    const before = await readFile(await stateFile(stateDirectory));
    const closed = await openKeys('software');
    await closed.close();
    const locked = { ...keys, secrets: closed.secrets };
    await expectRefusal(() => newAgent({ stateDirectory, keys: locked, attester }), { code: 'key_store_unavailable' });
    expect(await readFile(await stateFile(stateDirectory))).toEqual(before);
    expect((await newAgent({ stateDirectory, keys, attester })).agent.identities()).toHaveLength(1);
  });

  test('that cannot be written is a warning, not a failure', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const { agent, warnings } = await newAgent({ stateDirectory });
    await rm(stateDirectory, { recursive: true });
    expect((await tokenRequest(agent, as.issuer)).status).toBe(200);
    expect(warnings[0]).toMatchObject({ code: 'state' });
  });
});
