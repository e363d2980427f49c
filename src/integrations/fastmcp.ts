/** `attested/integrations/fastmcp`: FastMCP for TypeScript, over its `httpStream` transport. Structural types, no import. */

import { urlUnder } from '../mcp/request-target.ts';
import type { AuthInfo, RequireAttestedAgentOptions } from '../mcp/server.ts';
import { requireAttestedAgent as requireAgent } from '../mcp/server.ts';

export { attestedResource } from './hono.ts';

/** The Node request that FastMCP gives to `authenticate`. */
export interface FastMcpRequest {
  method?: string | undefined;
  url?: string | undefined;
  rawHeaders: string[];
}

/** What tools find as `context.session`. */
export type FastMcpSession = AuthInfo & Record<string, unknown>;

/**
 * FastMCP's `authenticate`: attested agents only. Serve metadata and challenges beside it by
 * `server.getApp().use(attestedResource(options))`; FastMCP's own `oauth` option would serve a document without our parameters.
 *
 * Only the path of the verifier's audience is let in, so FastMCP's older `/sse` endpoint, whose messages come without any
 * authentication of their own, is closed. A FastMCP session follows whoever authenticated last in it; with
 * `httpStream: { stateless: true }` every request stands for itself. An MCP session is held to the instance that was seen first
 * in it.
 *
 * FastMCP leaves no way to put headers on an answer: a challenge that has become old is renewed by one refusal and retry.
 * `tools` is not for here, where the body cannot be seen: ask inside the tools, with `requireForTool`.
 */
export function attestedAuthenticate(
  options: Omit<RequireAttestedAgentOptions, 'tools'>,
): (request: FastMcpRequest) => Promise<FastMcpSession> {
  const gate = requireAgent(options);
  const { origin, pathname: mcpPath } = new URL(options.verifier.audience);
  const sessions = openSessions();
  // some versions ask twice for one request, and a proof is good for once
  const asked = new WeakMap<FastMcpRequest, Promise<FastMcpSession>>();

  async function authenticate(request: FastMcpRequest): Promise<FastMcpSession> {
    const { method = 'GET', url = '', rawHeaders: headers } = request;
    if (urlUnder(origin, url)?.pathname !== mcpPath) throw new Response(null, { status: 404 });
    const auth = await gate({ method, url, headers });
    if (auth instanceof Response) throw auth; // FastMCP answers with what is thrown
    const { thumbprint } = auth.extra.attestation ?? {};
    // to others the session does not exist, in MCP's words
    if (!sessions.belongsTo(sessionOf(headers), thumbprint)) throw new Response(null, { status: 404 });
    return { ...auth };
  }

  return (request) => {
    const known = asked.get(request);
    if (known !== undefined) return known;
    const answer = authenticate(request);
    asked.set(request, answer);
    return answer;
  };
}

const MAX_SESSIONS = 10_000;

/** Which instance was seen first in an MCP session: the one that began it, who alone was told its random name. */
function openSessions(): { belongsTo(session: string | undefined, thumbprint: string | undefined): boolean } {
  const owners = new Map<string, string | undefined>();
  return {
    belongsTo(session, thumbprint) {
      if (session === undefined) return true;
      if (!owners.has(session)) {
        const [oldest] = owners.keys();
        if (owners.size >= MAX_SESSIONS && oldest !== undefined) owners.delete(oldest);
        owners.set(session, thumbprint);
      }
      return owners.get(session) === thumbprint;
    },
  };
}

function sessionOf(rawHeaders: readonly string[]): string | undefined {
  const at = rawHeaders.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === 'mcp-session-id');
  return at < 0 ? undefined : rawHeaders[at + 1];
}
