/** `attested/integrations/hono`: Hono 4 on any runtime, with MCP SDK v1 or v2 behind it. Structural types, no import. */
import { type ResourceEndpointOptions, resourceEndpoints } from '../mcp/endpoints.ts';
import {
  type AuthInfo,
  type GateRequest,
  nextHeaders,
  type RequireAttestedAgentOptions,
  requireAttestedAgent as requireAgent,
} from '../mcp/server.ts';

/** What is used of Hono's `Context`. */
export interface HonoContext {
  req: { raw: Request };
  /** On `@hono/node-server` it holds Node's own request. */
  env?: unknown;
  header(name: string, value: string): void;
  set(name: 'auth', value: AuthInfo | undefined): void;
}

export type HonoMiddleware = (context: HonoContext, next: () => Promise<void>) => Promise<Response | undefined>;

/** For the type argument of `new Hono<AttestedEnv>()`, so that `c.get('auth')` has a type. */
export interface AttestedEnv {
  Variables: { auth: AuthInfo };
}

/** Middleware that admits attested agents only: `c.get('auth')` is the `AuthInfo` for the MCP handler. */
export function requireAttestedAgent(options: RequireAttestedAgentOptions): HonoMiddleware {
  const gate = requireAgent(options);
  return async (context, next) => {
    context.set('auth', undefined); // nobody else's word counts
    const { raw } = context.req;
    const auth = await gate(asCame(raw, context.env));
    if (auth instanceof Response) return auth;
    context.set('auth', auth);
    await next();
    for (const [name, value] of Object.entries(nextHeaders(auth))) context.header(name, value);
    return undefined;
  };
}

/** Serves the RFC 9728 metadata document and the challenge endpoint, for `app.use`. */
export function attestedResource(options: ResourceEndpointOptions): HonoMiddleware & { metadataUrl: string } {
  const endpoints = resourceEndpoints(options);
  const middleware: HonoMiddleware = async ({ req: { raw } }, next) => {
    const answer = await endpoints.serve(raw);
    if (answer !== undefined) return answer;
    await next();
    return undefined;
  };
  return Object.assign(middleware, { metadataUrl: endpoints.metadataUrl });
}

/** With Node's rawHeaders where there are any: they show repeated fields as they came. */
function asCame(raw: Request, env: unknown): GateRequest & Pick<Request, 'clone' | 'bodyUsed'> {
  const rawHeaders = (env as { incoming?: { rawHeaders?: unknown } } | null | undefined)?.incoming?.rawHeaders;
  if (!Array.isArray(rawHeaders)) return raw;
  const { method, url, bodyUsed } = raw;
  return { method, url, bodyUsed, headers: rawHeaders as string[], clone: () => raw.clone() };
}
