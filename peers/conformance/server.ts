/**
 * The MCP conformance suite against a server, bare and behind `protect`. The suite does not authenticate, so an attested
 * forwarder stands between: what comes out shows whether gate and `agent.fetch` leave MCP as it is. Fails when a check fails
 * that passes without them.
 *
 *   node peers/conformance/server.ts
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { createAgent } from 'attested/agent';
import { toNodeListener } from 'attested/integrations/node';
import { openKeys } from 'attested/keys';
import { jwtAccessTokens, protect } from 'attested/mcp';
import { createVerifier, remoteJwks } from 'attested/verifier';
import { startWorld } from '../../examples/support/world.ts';

const suite = join(import.meta.dirname, '../node_modules/@modelcontextprotocol/conformance/dist/index.js');
const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const text = { type: 'text' as const, text: 'This is a simple text response for testing.' };
const image = { type: 'image' as const, data: pixel, mimeType: 'image/png' };
const audio = { type: 'audio' as const, data: 'UklGRiQAAABXQVZF', mimeType: 'audio/wav' };
const resource = {
  type: 'resource' as const,
  resource: { uri: 'test://embedded-resource', mimeType: 'text/plain', text: 'This is an embedded resource content.' },
};

/** Tools, resources and prompts by the names that the suite asks for. */
function everything(): McpServer {
  const server = new McpServer({ name: 'everything', version: '1.0.0' });
  const tools = {
    test_simple_text: [text],
    test_image_content: [image],
    test_audio_content: [audio],
    test_embedded_resource: [resource],
    test_multiple_content_types: [text, image, resource],
  };
  for (const [name, content] of Object.entries(tools)) {
    server.registerTool(name, { description: name }, async () => ({ content }));
  }
  server.registerTool('test_error_handling', { description: 'fails' }, async () => ({
    isError: true,
    content: [{ ...text, text: 'This tool intentionally returns an error for testing' }],
  }));
  server.registerTool('test_tool_with_progress', { description: 'reports' }, async (ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of progressToken === undefined ? [] : [0, 50, 100]) {
      await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
    }
    return { content: [text] };
  });
  const { text: content } = text;
  server.registerResource('text', 'test://static-text', { mimeType: 'text/plain' }, async ({ href: uri }) => ({
    contents: [{ uri, mimeType: 'text/plain', text: content }],
  }));
  server.registerResource('binary', 'test://static-binary', { mimeType: 'image/png' }, async ({ href: uri }) => ({
    contents: [{ uri, mimeType: 'image/png', blob: pixel }],
  }));
  const prompts = { test_simple_prompt: [text], test_prompt_with_image: [image, text] };
  for (const [name, parts] of Object.entries(prompts)) {
    const messages = parts.map((part) => ({ role: 'user' as const, content: part }));
    server.registerPrompt(name, { description: name }, async () => ({ messages }));
  }
  return server;
}

const closing: (() => void)[] = [];
async function serve(handlerFor: (url: string) => (request: Request) => Promise<Response>): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
  server.on('request', toNodeListener(handlerFor(url), { url }));
  closing.push(
    () => void server.close(),
    () => server.closeAllConnections(),
  );
  return url;
}

const clientId = 'conformance';
const { attester, issuer, enrolmentToken, close } = await startWorld(clientId);
const keys = await openKeys('software');
const agent = await createAgent({ clientId, keys, attester, enrolmentToken });
const mcp = createMcpHandler(everything);
const bare = await serve(() => async (request) => mcp.fetch(request));
const gated = await serve((audience) => {
  const trust = remoteJwks(`${attester}/jwks`, { clients: [clientId] });
  const verifier = createVerifier({ role: 'rs', audience, trust });
  const verifyAccessToken = jwtAccessTokens({ issuer, audience, jwksUri: `${issuer}/jwks` });
  return protect(mcp, { verifier, authorizationServers: [issuer], verifyAccessToken });
});

await agent.fetch(`${issuer}/.well-known/oauth-authorization-server`); // as a client does before it asks for tokens
const [form, tokenHeaders] = [
  new URLSearchParams({ grant_type: 'client_credentials', resource: gated }),
  new Headers(),
];
await agent.addClientAuthentication(tokenHeaders, form, `${issuer}/token`, { issuer });
const answer = await agent.fetch(`${issuer}/token`, { method: 'POST', headers: tokenHeaders, body: form });
const { access_token: token } = (await answer.json()) as { access_token: string };
const forwarder = await serve(() => async ({ method, headers, body, signal }) => {
  const sent = new Headers(headers);
  for (const name of ['host', 'connection', 'content-length']) sent.delete(name);
  sent.set('authorization', `Bearer ${token}`);
  const text = body === null ? null : await new Response(body).text();
  const response = await agent.fetch(gated, { method, headers: sent, body: text, signal });
  const received = new Headers(response.headers);
  for (const name of ['content-encoding', 'content-length', 'transfer-encoding']) received.delete(name);
  return new Response(response.body, { status: response.status, headers: received });
});

const REVISIONS = ['2025-11-25', '2026-07-28'];

/** Ids of the checks by their outcome, as `scenario: id`. */
async function run(url: string): Promise<Record<'SUCCESS' | 'FAILURE', Set<string>>> {
  const results = mkdtempSync(join(tmpdir(), 'attested-conformance-'));
  for (const revision of REVISIONS) {
    const args = [suite, 'server', '--url', url, '--spec-version', revision, '-o', join(results, revision)];
    const child = spawn(process.execPath, args, { stdio: 'ignore' });
    await new Promise((resolve) => child.once('exit', resolve)); // its exit code only says that something failed
  }
  const found = { SUCCESS: new Set<string>(), FAILURE: new Set<string>() };
  for (const path of readdirSync(results, { recursive: true, encoding: 'utf8' })) {
    const scenario = /^(.+)-\d{4}-\d\d-\d\dT[^/\\]+[/\\]checks\.json$/.exec(path)?.[1];
    if (scenario === undefined) continue;
    const checks = JSON.parse(readFileSync(join(results, path), 'utf8')) as {
      id: string;
      status: 'SUCCESS' | 'FAILURE';
    }[];
    for (const { id, status } of checks) found[status]?.add(`${scenario}: ${id}`);
  }
  rmSync(results, { recursive: true });
  return found;
}

const [without, with_] = [await run(bare), await run(forwarder)];
const regressions = [...without.SUCCESS].filter((check) => !with_.SUCCESS.has(check) || with_.FAILURE.has(check));
console.log(
  `server checks that pass: ${without.SUCCESS.size} bare, ${with_.SUCCESS.size} attested; ${regressions.length} regressions`,
);
for (const each of regressions) console.error(each);
if (process.argv.includes('--verbose')) for (const each of with_.SUCCESS) console.log(each);
const few = without.SUCCESS.size < 20;
for (const end of closing) end();
await agent.close();
await keys.close();
close();
process.exit(few || regressions.length > 0 ? 1 : 0);
