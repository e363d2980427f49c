/** `attested/integrations/fastify`: Fastify 5, with MCP SDK v1 or v2 behind it. Structural types, no import. */
import { type ResourceEndpointOptions, resourceEndpoints } from '../mcp/endpoints.ts';
import {
  type AuthInfo,
  nextHeaders,
  type RequireAttestedAgentOptions,
  requireAttestedAgent as requireAgent,
} from '../mcp/server.ts';

export interface FastifyRequestLike {
  method: string;
  /** The target as the client sent it, also below a prefix. */
  originalUrl: string;
  /** Undefined until Fastify has parsed it, so in an `onRequest` hook. */
  body?: unknown;
  raw: { rawHeaders: string[]; auth?: AuthInfo };
}

export interface FastifyReplyLike {
  code(status: number): unknown;
  header(name: string, value: string): unknown;
  send(body?: unknown): unknown;
  raw: { setHeader(name: string, value: string): unknown };
}

/** A hook of Fastify's asynchronous kind. */
export type FastifyHook = (request: FastifyRequestLike, reply: FastifyReplyLike) => Promise<unknown>;

/**
 * A hook that admits attested agents only and puts the `AuthInfo` on `request.raw.auth`, where both SDKs' Node transports look
 * for it. Use it as a route's `onRequest` or, where `tools` demand something, as its `preHandler`: there the body is parsed.
 */
export function requireAttestedAgent(options: RequireAttestedAgentOptions): FastifyHook {
  const gate = requireAgent(options);
  return async (request, reply) => {
    const { method, originalUrl: url, body: parsedBody, raw } = request;
    delete raw.auth; // nobody else's word counts
    // rawHeaders, since request.headers drops or joins repeated fields
    const auth = await gate({ method, url, headers: raw.rawHeaders, parsedBody });
    if (auth instanceof Response) return send(auth, reply);
    // on Node's own reply, because a transport that takes it over (`reply.hijack()`) leaves Fastify's headers behind
    for (const [name, value] of Object.entries(nextHeaders(auth))) reply.raw.setHeader(name, value);
    raw.auth = auth;
    return undefined;
  };
}

/** Serves the RFC 9728 metadata document and the challenge endpoint: `app.addHook('onRequest', attestedResource(options))`. */
export function attestedResource(options: ResourceEndpointOptions): FastifyHook & { metadataUrl: string } {
  const endpoints = resourceEndpoints(options);
  const hook: FastifyHook = async ({ method, originalUrl: url }, reply) => {
    const answer = await endpoints.serve({ method, url });
    return answer === undefined ? undefined : send(answer, reply);
  };
  return Object.assign(hook, { metadataUrl: endpoints.metadataUrl });
}

async function send(answer: Response, reply: FastifyReplyLike): Promise<FastifyReplyLike> {
  reply.code(answer.status);
  for (const [name, value] of answer.headers) reply.header(name, value);
  reply.send(Buffer.from(await answer.arrayBuffer()));
  return reply; // which tells Fastify that the request is answered
}
