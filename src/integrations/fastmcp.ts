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
 * `httpStream: { stateless: true }` every request stands for itself.
 *
 * FastMCP leaves no way to put headers on an answer: a challenge that has become old is renewed by one refusal and retry.
 * `tools` is not for here, where the body cannot be seen: ask inside the tools, with `requireForTool`.
 */
export function attestedAuthenticate(
  options: Omit<RequireAttestedAgentOptions, 'tools'>,
): (request: FastMcpRequest) => Promise<FastMcpSession> {
  const gate = requireAgent(options);
  const { origin, pathname: mcpPath } = new URL(options.verifier.audience);
  // some versions ask twice for one request, and a proof is good for once
  const asked = new WeakMap<FastMcpRequest, Promise<FastMcpSession>>();

  async function authenticate(request: FastMcpRequest): Promise<FastMcpSession> {
    const { method = 'GET', url = '', rawHeaders: headers } = request;
    if (urlUnder(origin, url)?.pathname !== mcpPath) throw new Response(null, { status: 404 });
    const auth = await gate({ method, url, headers });
    if (auth instanceof Response) throw auth; // FastMCP answers with what is thrown
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
