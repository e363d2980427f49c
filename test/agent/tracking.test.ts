/** One server must not recognise the agent of another. */
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openKeys } from '../../src/keys/index.ts';
import { sha256Base64url } from '../../src/platform/crypto.ts';
import { expectRefusal } from '../support/errors.ts';
import { asked, json, newAgent, newAttester, shown, startFakeAs, startFakeRs, tokenRequest } from './support.ts';

const A = 'https://a.example/mcp';
const B = 'https://b.example/mcp';

async function directory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'attested-agent-'));
  onTestFinished(() => rm(path, { recursive: true, force: true, maxRetries: 5 }));
  return path;
}

const bearer = () => startFakeAs((_request, response) => json(response, { access_token: 'a', token_type: 'Bearer' }));

describe('separate identities', () => {
  test('PRIV-1: each resource has its own key and attestation, also at one authorization server; an issuer has its own', async () => {
    const [as, other] = [await bearer(), await bearer()];
    const { agent, warnings } = await newAgent();
    await tokenRequest(agent, as.issuer, { resource: A });
    await tokenRequest(agent, as.issuer, { resource: B });
    await tokenRequest(agent, as.issuer);
    await tokenRequest(agent, other.issuer);
    await tokenRequest(agent, as.issuer, { resource: A });
    const requests = [...asked(as, '/token'), ...asked(other, '/token')];
    const keys = requests.map((request) => shown(request).key);
    expect(new Set(keys).size).toBe(4);
    expect(keys[3]).toBe(keys[0]);
    expect(new Set(requests.map(({ headers }) => headers['oauth-client-attestation'])).size).toBe(4);
    expect(warnings).toEqual([]);
    expect(agent.identities().map(({ server }) => server)).toEqual([A, B, `${as.issuer}/`, `${other.issuer}/`]);
  });

  test('PRIV-1: an authorization server and the resource of its token see one key: the token links them anyway', async () => {
    const rs = await startFakeRs(() => (_request, response) => json(response, {}));
    const as = await startFakeAs((_request, response) => json(response, { access_token: 'tok', token_type: 'DPoP' }));
    const { agent, warnings } = await newAgent();
    await agent.fetch(rs.metadataUrl);
    await tokenRequest(agent, as.issuer, { resource: rs.resource });
    await agent.fetch(rs.resource, { headers: { authorization: 'Bearer tok' } });
    expect(shown(asked(rs, '/mcp')[0]!).key).toBe(shown(asked(as, '/token')[0]!).key);
    expect(warnings).toEqual([]);
  });

  test('PRIV-2: a token without a resource that is used at two resources links them: a warning names both', async () => {
    const resources = [
      await startFakeRs(() => (_request, response) => json(response, {})),
      await startFakeRs(() => (_request, response) => json(response, {})),
    ];
    const as = await startFakeAs((_request, response) => json(response, { access_token: 'tok', token_type: 'DPoP' }));
    const { agent, warnings } = await newAgent();
    await tokenRequest(agent, as.issuer);
    for (const { metadataUrl, resource } of resources) {
      await agent.fetch(metadataUrl);
      await agent.fetch(resource, { headers: { authorization: 'Bearer tok' } });
    }
    expect(warnings).toMatchObject([{ code: 'tracking', servers: resources.map(({ resource }) => resource) }]);
  });
});

describe('a shared identity', () => {
  test('PRIV-2: mode warn: before the second server sees the key, a warning names both and the key; once', async () => {
    const as = await bearer();
    const { agent, warnings } = await newAgent({ tracking: 'warn' });
    await tokenRequest(agent, as.issuer, { resource: A });
    await tokenRequest(agent, as.issuer, { resource: A });
    expect(warnings).toEqual([]);
    const before = asked(as, '/token').length;
    agent.onWarning(() => expect(asked(as, '/token')).toHaveLength(before));
    await tokenRequest(agent, as.issuer, { resource: B });
    await tokenRequest(agent, as.issuer, { resource: B });
    const [{ thumbprint } = { thumbprint: '' }, ...others] = agent.identities();
    expect(others).toEqual([]);
    expect(warnings).toEqual([
      {
        code: 'tracking',
        message: expect.stringContaining(A),
        servers: [A, B],
        thumbprint,
        links: [
          { kind: 'key', name: thumbprint },
          { kind: 'attestation', name: sha256Base64url(asked(as, '/token')[0]!.headers['oauth-client-attestation']!) },
        ],
        remedy: expect.stringContaining("`tracking` of createAgent at 'separate'"),
      },
    ]);
    const [{ message, remedy } = { message: '', remedy: '' }] = warnings;
    for (const part of [B, thumbprint, remedy!]) expect(message).toContain(part);
  });

  test('PRIV-2: mode refuse: the second server gets nothing, the first keeps working', async () => {
    const as = await bearer();
    const { agent } = await newAgent({ tracking: 'refuse' });
    await tokenRequest(agent, as.issuer, { resource: A });
    const { message } = await expectRefusal(() => tokenRequest(agent, as.issuer, { resource: B }), {
      code: 'tracking_refused',
      rule: 'PRIV-2',
    });
    expect(message).toContain(A);
    expect(message).toContain(B);
    expect(asked(as, '/token')).toHaveLength(1);
    expect((await tokenRequest(agent, as.issuer, { resource: A })).status).toBe(200);
  });

  test('PRIV-2: one request for two resources is a request by two servers', async () => {
    const as = await bearer();
    const authenticate = async (tracking: 'refuse' | 'separate') => {
      const { agent, warnings } = await newAgent({ tracking });
      const form = new URLSearchParams([
        ['grant_type', 'client_credentials'],
        ['resource', A],
        ['resource', B],
      ]);
      await agent.addClientAuthentication(new Headers(), form, as.issuer, { issuer: as.issuer });
      return warnings;
    };
    await expectRefusal(() => authenticate('refuse'), { code: 'tracking_refused' });
    expect(await authenticate('separate')).toMatchObject([{ code: 'tracking', servers: [A, B] }]);
  });

  test('PRIV-2: of two first requests at once, one is refused', async () => {
    const as = await bearer();
    const { agent } = await newAgent({ tracking: 'refuse' });
    const results = await Promise.allSettled([
      tokenRequest(agent, as.issuer, { resource: A }),
      tokenRequest(agent, as.issuer, { resource: B }),
    ]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });

  test('PRIV-2: the ledger survives a restart, and another process at the same time', async () => {
    const stateDirectory = await directory();
    const as = await bearer();
    const [keys, attester] = [await openKeys('software'), newAttester()];
    const options = { tracking: 'refuse' as const, stateDirectory, keys, attester };
    const first = await newAgent(options);
    const beside = await newAgent(options);
    await tokenRequest(first.agent, as.issuer, { resource: A });
    await first.agent.close();
    for (const { agent } of [beside, await newAgent(options)]) {
      const error = await expectRefusal(() => tokenRequest(agent, as.issuer, { resource: B }), {
        code: 'tracking_refused',
      });
      expect(error.message).toContain(A);
    }
  });

  test.each(['is gone', 'was altered'])(
    'PRIV-2: the ledger %s: a key that anybody may have seen is shown to nobody',
    async (how) => {
      const stateDirectory = await directory();
      const as = await bearer();
      const options = {
        tracking: 'refuse' as const,
        stateDirectory,
        keys: await openKeys('software'),
        attester: newAttester(),
      };
      const first = await newAgent(options);
      await tokenRequest(first.agent, as.issuer, { resource: A });
      await first.agent.close();
      for (const file of (await readdir(stateDirectory)).filter((name) => name.startsWith('agent-'))) {
        if (how === 'is gone') await rm(join(stateDirectory, file), { recursive: true });
        else await writeFile(join(stateDirectory, file), '{}');
      }
      const second = await newAgent(options);
      expect((await tokenRequest(second.agent, as.issuer, { resource: B })).status).toBe(200);
      const [before, after] = [first, second].map(({ agent }) => agent.identities().find(({ current }) => current));
      expect(after?.thumbprint).not.toBe(before?.thumbprint);
      expect(second.warnings.at(-1)).toMatchObject({ code: 'state', message: expect.stringContaining('shared key') });
      // and the new one is remembered
      await second.agent.close();
      const third = await newAgent(options);
      await expectRefusal(() => tokenRequest(third.agent, as.issuer, { resource: A }), { code: 'tracking_refused' });
    },
  );

  test('PRIV-2: of processes that are about to show one key to one server each, one does, and the others name it', async () => {
    const place = await directory();
    const script = join(import.meta.dirname, 'one-showing.ts');
    const servers = ['https://one.example/', 'https://two.example/', 'https://three.example/'];
    const processes = servers.map((server) => {
      const child = spawn(process.execPath, [script, place, server], { stdio: ['pipe', 'pipe', 'inherit'] });
      onTestFinished(() => void child.kill());
      return { server, child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() };
    });
    const next = async (lines: AsyncIterator<string>) => (await lines.next()).value as string;
    for (const { lines } of processes) expect(await next(lines)).toBe('ready');
    for (const { child } of processes) child.stdin.write('go\n');
    const results = await Promise.all(
      processes.map(async ({ server, lines }) => ({ server, said: await next(lines) })),
    );
    const [winner, ...more] = results.filter(({ said }) => said === 'shown');
    expect(more).toEqual([]);
    for (const { server, said } of results.filter((result) => result !== winner)) {
      expect(said).toContain('tracking_refused');
      expect(said).toContain(winner!.server);
      expect(said).toContain(server);
    }
  }, 30_000);
});
