import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import type { Correlations } from '../../src/agent/index.ts';
import { drawCorrelations } from '../../src/cli/privacy/draw.ts';
import { openKeys } from '../../src/keys/index.ts';
import { CLIENT_ID, json, newAgent, startFakeAs, tokenRequest } from '../agent/support.ts';
import { attested, TERMINAL_CONTROL, withoutLineFeeds } from './harness.ts';

const A = 'https://a.example/mcp';
const B = 'https://b.example/mcp';

let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'attested-privacy-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
});

/** An agent that has been at two resources of one authorization server, and is gone. */
async function runAgent(tracking: 'separate' | 'warn', resources = [A, B]): Promise<string> {
  const as = await startFakeAs((_request, response) => json(response, { access_token: 'a', token_type: 'Bearer' }));
  const keys = await openKeys('software', { directory });
  const { agent } = await newAgent({ keys, tracking });
  for (const resource of resources) await tokenRequest(agent, as.issuer, { resource });
  await agent.close();
  await keys.close();
  return `${as.issuer}/`;
}

describe('attested privacy', () => {
  test('PRIV-1: separate identities: nothing avoidable links two servers, the tokens do', async () => {
    const issuer = await runAgent('separate');
    const { code, out, err } = await attested(['privacy', '--dir', directory]);
    expect([code, err]).toEqual([0, '']);
    for (const part of [CLIENT_ID, A, B, issuer, 'Nothing that could be avoided', 'NO CLIENT CAN AVOID']) {
      expect(out).toContain(part);
    }
    expect(out).not.toContain('To keep them apart');
  });

  test('PRIV-2: a shared key is a link, with the servers and the way out', async () => {
    await runAgent('warn');
    const { code, out } = await attested(['privacy', '--dir', directory]);
    expect(code).toBe(0);
    expect(out).toMatch(/key [\w-]{12}… +https:\/\/a\.example\/mcp\n +https:\/\/b\.example\/mcp\n/);
    expect(out.replace(/\s+/g, ' ')).toContain("leave the option `tracking` of createAgent at 'separate'");
  });

  test('PRIV-2: --json says the same, one link for each that there is', async () => {
    const issuer = await runAgent('warn');
    const { out } = await attested(['privacy', '--dir', directory, '--json']);
    const report = JSON.parse(out) as { agents: Correlations[]; unreadable: string[] };
    const [{ clientId, servers, links }] = report.agents as [Correlations];
    const [thumbprint] = servers[0]!.thumbprints;
    expect(clientId).toBe(CLIENT_ID);
    expect(servers.map(({ name }) => name).sort()).toEqual([A, B, issuer].sort());
    expect(links).toEqual([
      { by: 'key', name: thumbprint, servers: [A, B], remedy: expect.stringContaining('separate') },
      { by: 'token', name: thumbprint, servers: [issuer, A] },
      { by: 'token', name: thumbprint, servers: [issuer, B] },
    ]);
    expect(report.unreadable).toEqual([]);
  });

  test('--svg: a private file that stands on its own', async () => {
    await runAgent('warn');
    const file = join(directory, 'picture.svg');
    expect((await attested(['privacy', '--dir', directory, '--svg', file])).code).toBe(0);
    const svg = await readFile(file, 'utf8');
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    for (const part of [A, B, '<title id="title">', '<desc id="desc">', 'role="img"', 'prefers-color-scheme: dark']) {
      expect(svg).toContain(part);
    }
    expect(svg.replace('http://www.w3.org/2000/svg', '')).not.toMatch(
      /<script|href|url\(|@import|<image|<foreignObject/,
    );
    // one line from each of two servers to the key, and of each token to both of its ends
    expect(svg.match(/<path /g)).toHaveLength(6);
  });

  test('a directory without agents: says so, and makes nothing', async () => {
    const { code, out } = await attested(['privacy', '--dir', directory]);
    expect([code, out]).toEqual([0, `No agent keeps its state in ${directory}.\n`]);
    expect(await readdir(directory)).toEqual([]);
  });

  test('a state whose key is lost is named; it stays where it is', async () => {
    await runAgent('separate');
    const [name] = (await readdir(directory)).filter((file) => file.startsWith('agent-'));
    const path = join(directory, name!);
    const damaged = (await readFile(path, 'utf8')).replace(/"key": "[0-9a-f]{8}/, '"key": "00000000');
    await writeFile(path, damaged);
    const { code, err } = await attested(['privacy', '--dir', directory]);
    expect(code).toBe(1);
    expect(err).toContain(name);
    expect(await readFile(path, 'utf8')).toBe(damaged);
  });

  test('a place that cannot be written is a mistake in the call', async () => {
    await runAgent('separate');
    const { code, err } = await attested(['privacy', '--dir', directory, '--svg', join(directory, 'no', 'x.svg')]);
    expect(code).toBe(2);
    expect(err).toContain('ENOENT');
  });

  test('a server’s name does nothing to the terminal', async () => {
    await runAgent('warn', ['urn:\u202eevil', 'urn:\u001b[2Jmore']);
    const { out } = await attested(['privacy', '--dir', directory]);
    expect(withoutLineFeeds(out)).not.toMatch(TERMINAL_CONTROL);
    expect(out).toContain('evil');
  });
});

describe('the drawing', () => {
  const report = (clientId: string, names: readonly string[]): Correlations => ({
    clientId,
    servers: names.map((name) => ({ name, thumbprints: ['t'] })),
    links: [
      { by: 'key', name: 't', servers: names, remedy: 'r' },
      { by: 'claim', name: names[0]!, servers: names, remedy: 'r' },
      { by: 'token', name: 't', servers: names.slice(0, 2) },
    ],
  });
  /** All that is markup: tags with their attributes, and nothing of the text between. */
  const markup = (svg: string) => svg.match(/<[^<>]*>/g);

  test('names are text in it and never markup, whatever they hold', () => {
    const hostile = fc.oneof(
      fc.string({ unit: 'binary', minLength: 1 }),
      fc.constantFrom(
        '<script>alert(1)</script>',
        '"><a href="x">',
        "' onload='x",
        ']]>',
        '<!--',
        '&lt;',
        '\u0000',
        '\ud800',
      ),
    );
    fc.assert(
      fc.property(hostile, fc.uniqueArray(hostile, { minLength: 2, maxLength: 3 }), (clientId, names) => {
        const svg = drawCorrelations([report(clientId, names)]);
        const plain = drawCorrelations([
          report(
            'c',
            names.map((_, i) => `s${i}`),
          ),
        ]);
        expect(markup(svg)).toEqual(markup(plain));
        const between = svg.replace(/<[^<>]*>/g, '');
        expect(between).not.toMatch(/[<>]|&(?!(amp|lt|gt|quot|#39);)/);
        // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what XML refuses
        expect(svg).not.toMatch(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Cs}/u);
      }),
      { numRuns: 60 },
    );
  });
});
