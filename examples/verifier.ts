// The verifier by itself, on several nodes. Not run, since it needs a Valkey or Redis; its types are checked.

import {
  type AttestedClient,
  createVerifier,
  redisReplay,
  sealedChallenges,
  type Verifier,
  x5c,
} from 'attested/verifier';
import type { Redis } from 'ioredis';

// #region verifier
export async function handle(request: Request, verifier: Verifier): Promise<Response> {
  try {
    const { headers, method, url } = request; // url as the client sees it
    const client = await verifier.verify({ headers, method, url });
    return Response.json(greeting(client), { headers: await verifier.freshHeaders() });
  } catch (error) {
    return verifier.respond(error); // what the draft asks for in your role; an unknown error is a 503
  }
}
// #endregion

function greeting({ clientId, thumbprint, keyStorage, keyEvidence, attester, status, claims }: AttestedClient): object {
  return { clientId, thumbprint, keyStorage, keyEvidence, attester, status, claims };
}

export function verifierOf(redis: Redis, anchors: string[]): Verifier {
  // #region nodes
  return createVerifier({
    role: 'rs',
    audience: 'https://mcp.example/mcp',
    trust: x5c({ anchors, clients: ['weather-agent'] }),
    challenges: sealedChallenges({ keys: [process.env.CHALLENGE_KEY ?? ''] }), // 32 bytes or more, the same on every node
    replay: redisReplay(redis), // an ioredis or node-redis client; server with maxmemory-policy noeviction
  });
  // #endregion
}
