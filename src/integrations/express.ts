/** `attested/integrations/express`: Express 4 and 5, with MCP SDK v1 or v2 behind it. Structural types, no import. */
import { type ResourceEndpointOptions, resourceEndpoints } from '../mcp/endpoints.ts';
import {
  type AuthInfo,
  nextHeaders,
  type RequireAttestedAgentOptions,
  requireAttestedAgent as requireAgent,
} from '../mcp/server.ts';

export interface ExpressRequest {
  method: string;
  originalUrl?: string | undefined;
  url: string;
  rawHeaders: string[];
  /** What a body parser made of the body. */
  body?: unknown;
  /** Where both SDKs' transports look for it. */
  auth?: AuthInfo;
}

export interface ExpressResponse {
  status(code: number): unknown;
  setHeader(name: string, value: string): unknown;
  end(body?: string | Uint8Array): unknown;
}

export type ExpressHandler = (
  request: ExpressRequest,
  response: ExpressResponse,
  next: (error?: unknown) => void,
) => Promise<void>;

/**
 * Middleware that admits attested agents only and puts the `AuthInfo` on `req.auth`. Place it where `requireBearerAuth`
 * would stand: before the body is parsed or, where `tools` demand something, right behind `express.json()`.
 */
export function requireAttestedAgent(options: RequireAttestedAgentOptions): ExpressHandler {
  const gate = requireAgent(options);
  return async (request, response, next) => {
    delete request.auth; // nobody else's word counts
    try {
      // rawHeaders, since req.headers drops or joins repeated fields
      const { method, rawHeaders: headers, body: parsedBody } = request;
      const auth = await gate({ method, url: targetOf(request), headers, parsedBody });
      if (auth instanceof Response) return await send(auth, response);
      for (const [name, value] of Object.entries(nextHeaders(auth))) response.setHeader(name, value);
      request.auth = auth;
      next();
    } catch (error) {
      next(error);
    }
  };
}

/** Serves the RFC 9728 metadata document and the challenge endpoint; mount it at the root of the app. */
export function attestedResource(options: ResourceEndpointOptions): ExpressHandler & { metadataUrl: string } {
  const endpoints = resourceEndpoints(options);
  const handler: ExpressHandler = async (request, response, next) => {
    try {
      const answer = await endpoints.serve({ method: request.method, url: targetOf(request) });
      if (answer === undefined) next();
      else await send(answer, response);
    } catch (error) {
      next(error);
    }
  };
  return Object.assign(handler, { metadataUrl: endpoints.metadataUrl });
}

/** The target as the client sent it: `url` alone lacks the path under which a router is mounted. */
function targetOf({ originalUrl, url }: ExpressRequest): string {
  return originalUrl ?? url;
}

async function send(answer: Response, response: ExpressResponse): Promise<void> {
  response.status(answer.status);
  for (const [name, value] of answer.headers) response.setHeader(name, value);
  response.end(new Uint8Array(await answer.arrayBuffer()));
}
