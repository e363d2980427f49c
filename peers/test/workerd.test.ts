/** The Cloudflare adapter in the real runtime: workerd, with nodejs_compat. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { build } from 'rolldown';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { callTool } from '../../test/support/adapter-suite.ts';
import { at, type Listening } from '../../test/support/adapters.ts';
import { RESOURCE, TOKEN } from '../../test/support/gate.ts';
import { athOf, CLIENT_ID, createWorld, requestOf, type Sent, type World } from '../../test/support/world.ts';

const skip = (process.env.ATTESTED_SKIP ?? '').split(',').includes('workerd');
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const CONFIG = (bindings: Record<string, string>) => `
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "internet", network = (allow = ["private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const main :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2026-09-01",
  compatibilityFlags = ["nodejs_compat"],
  bindings = [${Object.entries(bindings)
    .map(([name, text]) => `(name = "${name}", text = ${JSON.stringify(text)})`)
    .join(', ')}],
);`;

describe.skipIf(skip)('workerd', () => {
  const world: World = createWorld({ role: 'rs', audience: RESOURCE, startAt: Date.now() });
  const directory = mkdtempSync(join(tmpdir(), 'attested-workerd-'));
  const closing: (() => unknown)[] = [() => rmSync(directory, { recursive: true })];
  let worker: Listening;

  beforeAll(async () => {
    const keys = createServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ keys: [world.attester.publicJwk] }));
    });
    await new Promise<void>((resolve) => keys.listen(0, '127.0.0.1', resolve));
    closing.push(
      () => keys.close(),
      () => keys.closeAllConnections(),
    );
    await build({
      input: here('worker.ts'),
      platform: 'neutral',
      external: /^(node|cloudflare):/,
      resolve: {
        tsconfigFilename: here('../../tsconfig.json'),
        conditionNames: ['workerd', 'worker', 'import'],
        mainFields: ['module', 'main'],
      } as never,
      logLevel: 'silent',
      output: { file: join(directory, 'worker.js'), format: 'esm', codeSplitting: false } as never,
    });
    const token = {
      token: TOKEN,
      clientId: CLIENT_ID,
      scopes: [],
      expiresAt: world.seconds() + 3600,
      instance: world.instance.thumbprint,
    };
    const bindings = {
      RESOURCE,
      JWKS_URL: `http://127.0.0.1:${(keys.address() as AddressInfo).port}/jwks`,
      CHALLENGE_KEY: 'a secret of this test alone, 32 bytes and more',
      TOKEN: JSON.stringify(token),
    };
    writeFileSync(join(directory, 'config.capnp'), CONFIG(bindings));
    const binary = createRequire(import.meta.url).resolve(
      `@cloudflare/workerd-linux-${process.arch === 'arm64' ? 'arm64' : '64'}/bin/workerd`,
    );
    const child = spawn(binary, ['serve', '--control-fd=3', join(directory, 'config.capnp')], {
      stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
    });
    closing.unshift(() => child.kill('SIGKILL'));
    const port = await new Promise<number>((resolve, reject) => {
      child.on('exit', (code) => reject(new Error(`workerd ended with ${code}`)));
      createInterface(child.stdio[3] as Readable).on('line', (line) => {
        const said = JSON.parse(line) as { event: string; port?: number };
        if (said.event === 'listen' && said.port !== undefined) resolve(said.port);
      });
    });
    worker = at(port);
  }, 60_000);

  afterAll(async () => {
    for (const close of closing) await close();
  });

  const challenge = async (): Promise<string> => {
    const { text } = await worker.raw('/mcp/attestation-challenge', [['Host', 'mcp.example']]);
    return (JSON.parse(text) as { attestation_challenge: string }).attestation_challenge;
  };
  const sentPop = async (parts: Partial<Sent> = {}): Promise<Sent> =>
    world.sent({
      authorization: `Bearer ${TOKEN}`,
      pop: await world.pop({ payload: { challenge: await challenge() } }),
      ...parts,
    });
  const post = (sent: Sent, body: unknown = callTool('whoami')) =>
    worker.raw(
      '/mcp',
      [
        ['Host', 'mcp.example'],
        ['Content-Type', 'application/json'],
        ['Accept', 'application/json, text/event-stream'],
        ...requestOf(sent).headers.filter(([name]) => name !== 'Accept'),
      ],
      'POST',
      JSON.stringify(body),
    );

  test('POP-2, VER-3: the instance gets in, and the tool knows it; once', async () => {
    const sent = await sentPop();
    const answer = await post(sent);
    expect(answer.status, answer.text).toBe(200);
    expect(answer.text).toContain(world.instance.thumbprint);
    expect((await post(sent)).status).toBe(401);
  });

  test('DPOP-1: combined mode', async () => {
    const { kid: _, ...jwk } = world.instance.publicJwk;
    const refused = await post(await sentPop({ pop: null, attestation: await world.attestation() }));
    const nonce = refused.headers.get('dpop-nonce') ?? '';
    const dpop = await world.dpop({
      header: { jwk: jwk as never },
      payload: { htu: RESOURCE, ath: athOf(TOKEN), nonce },
    });
    const answer = await post(await sentPop({ pop: null, dpop, authorization: `DPoP ${TOKEN}` }));
    // the token is not bound to a key, so it is not a DPoP token: but the proof itself was good
    expect(answer.text).toContain('is not bound to the key of the DPoP proof');
  });

  test('refusals, metadata and the challenge endpoint are as everywhere', async () => {
    const bare = await post(await sentPop({ attestation: null }));
    expect(bare.status).toBe(401);
    expect(bare.headers.get('www-authenticate')).toContain('error="invalid_client_attestation"');
    const attestation = await world.attestation();
    expect((await post(await sentPop({ attestation: [attestation, attestation] }))).status).toBe(401);
    const document = await worker.raw('/.well-known/oauth-protected-resource/mcp', [['Host', 'mcp.example']], 'GET');
    expect(JSON.parse(document.text)).toMatchObject({ resource: RESOURCE, challenge_endpoint: expect.any(String) });
    const wrong = await worker.raw('/mcp/attestation-challenge', [['Host', 'mcp.example']], 'GET');
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST']);
  });

  test('demands of tools', async () => {
    const software = await world.attestation({ payload: { key_storage: ['software'] } });
    expect((await post(await sentPop({ attestation: software }), callTool('deploy'))).status).toBe(403);
    const hardware = await world.attestation({ payload: { key_storage: ['hardware'] } });
    expect((await post(await sentPop({ attestation: hardware }), callTool('deploy'))).status).toBe(200);
  });
});
