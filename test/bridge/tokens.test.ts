import { createHash } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type KeyProvider, openKeys } from 'attested/keys';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openTokenStore } from '../../src/bridge/auth/tokens.ts';

const server = new URL('https://server.example/mcp');
const machineSecret = Buffer.alloc(32, 7);
let directory: string;
const opened: KeyProvider[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attested-tokens-'));
});
afterEach(async () => {
  for (const keys of opened.splice(0)) await keys.close();
  await rm(directory, { recursive: true });
});

async function store(clientId = 'a-client') {
  const keys = await openKeys('software', { directory, machineSecret });
  opened.push(keys);
  return openTokenStore(keys, clientId, server, 5000);
}

test('one process at a time renews the tokens of a server', async () => {
  const [one, other] = [await store(), await store()];
  const log: string[] = [];
  const renew = (name: string) => async () => {
    log.push(`${name} begins`);
    await new Promise((resolve) => setTimeout(resolve, 30));
    log.push(`${name} ends`);
  };
  await Promise.all([one.inTurn(renew('one')), other.inTurn(renew('other'))]);
  expect([log[0]?.split(' ')[0], log[2]?.split(' ')[0]]).toEqual([log[1]?.split(' ')[0], log[3]?.split(' ')[0]]);
});

test('PRIV-1: no name in the directory can be made from the name of the server', async () => {
  const tokens = await store();
  const names = await tokens.inTurn(() => readdir(directory, { recursive: true }));
  expect(names.filter((name) => name.endsWith('.lock'))).toHaveLength(1);
  const guesses = [server.href, server.origin, `a-client\n${server.href}`];
  for (const guess of guesses) {
    for (const encoding of ['hex', 'base64url'] as const) {
      const hash = createHash('sha256').update(guess).digest(encoding);
      expect(names.filter((name) => name.includes(hash.slice(0, 12)))).toEqual([]);
    }
  }
});
