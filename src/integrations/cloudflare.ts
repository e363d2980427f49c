/** `attested/integrations/cloudflare`: Workers and other runtimes that call `fetch(request, env, ctx)`. Needs `nodejs_compat`. */
import { guardEach, type ProtectOptions } from '../mcp/endpoints.ts';
import type { AuthInfo } from '../mcp/server.ts';

/** The MCP server: `(request, env, ctx, authInfo) => mcp.fetch(request, { authInfo })`, for one. */
export type WorkerHandler<Env, Context> = (
  request: Request,
  env: Env,
  context: Context,
  authInfo: AuthInfo,
) => Response | Promise<Response>;

export interface AttestedWorker<Env, Context> {
  fetch(request: Request, env: Env, context: Context): Promise<Response>;
}

/**
 * Makes a Worker of an MCP server: gate, RFC 9728 metadata document and challenge endpoint in front of it.
 *
 * An isolate lives as long as Cloudflare likes and shares no memory with the next. So take the key of `sealedChallenges` from
 * `env`, and give the verifier a replay store that all isolates share; `memoryReplay()` notices replays within one isolate.
 *
 * @param configure called with the first request of an isolate, because Workers make no random values before it
 */
export function attestedWorker<Env = unknown, Context = unknown>(
  handler: WorkerHandler<Env, Context>,
  configure: (env: Env) => ProtectOptions,
): AttestedWorker<Env, Context> {
  let guard: ReturnType<typeof guardEach> | undefined;
  return {
    async fetch(request, env, context) {
      guard ??= guardEach(configure(env));
      return guard(request, (authInfo) => handler(request, env, context, authInfo));
    },
  };
}
