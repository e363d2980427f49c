/** Puts an identity's attestation and fresh proofs on a request. */
import { ATTESTATION_HEADER, DPOP_HEADER, POP_HEADER } from '../core/headers.ts';
import { parseSegment } from '../core/jwt.ts';
import type { PopMethod, ServerNeeds } from '../core/metadata.ts';
import { AttestedError } from '../errors.ts';
import type { Attestations } from './attestations.ts';
import type { Identity } from './identity.ts';
import type { Proofs } from './proofs.ts';
import type { Server, Servers } from './servers.ts';
import type { TrackingGuard } from './tracking.ts';

export interface Presentation {
  identity: Identity;
  /** Server name as the tracking guard knows it. */
  audience: string;
  /** Who asks for client attestation, and how it is proved. Absent: a DPoP-bound token at a server that does not ask. */
  demand: { server: Server; method: PopMethod } | undefined;
  /** A DPoP proof of its own goes along: the token is bound to the key, or shall be. */
  dpop: boolean;
  accessToken: string | undefined;
}

export interface Target {
  method: string;
  url: URL;
}

/**
 * Sets the headers. Everything that this takes of the network (an attestation, a challenge) happens before they are set.
 *
 * @param challenge the one to use, where an answer has just named it
 * @throws AttestedError `attester_*` when there is no attestation, `server_unsupported` when the server would refuse its
 *   algorithm (META-4), `tracking_refused` when what it says would link two servers (PRIV-2)
 */
export async function present(
  headers: Headers,
  { identity, audience, demand, dpop, accessToken }: Presentation,
  { method, url }: Target,
  parts: { attestations: Attestations; proofs: Proofs; servers: Servers; guard: TrackingGuard },
  challenge?: string,
): Promise<void> {
  const { attestations, proofs, servers, guard } = parts;
  const target = (nonce: string | undefined) => ({ method, url: url.href, nonce, accessToken });
  if (demand === undefined) {
    headers.set(DPOP_HEADER, await proofs.dpop(identity, target(servers.nonceAt(url))));
    return;
  }
  const { server } = demand;
  const combined = demand.method === 'dpop_combined';
  const attestation = await attestations.usable(identity);
  assertAccepted(attestation, server.needs);
  await guard.attest(identity, audience, attestation);
  await servers.prepare(server, {
    challenge: !combined || proofs.combinedByChallenge,
    nonce: dpop || (combined && !proofs.combinedByChallenge),
  });
  if (combined) {
    headers.delete(POP_HEADER);
    headers.set(DPOP_HEADER, await proofs.dpop(identity, target(server.nonce), server, audience));
  } else {
    headers.set(POP_HEADER, await proofs.pop(identity, server, challenge ?? server.challenge, audience));
    if (dpop) headers.set(DPOP_HEADER, await proofs.dpop(identity, target(server.nonce)));
  }
  headers.set(ATTESTATION_HEADER, attestation);
}

function assertAccepted(attestation: string, { attestationAlgorithms }: ServerNeeds): void {
  if (attestationAlgorithms === undefined) return;
  const alg = parseSegment(attestation.slice(0, attestation.indexOf('.')))?.alg;
  if (typeof alg !== 'string' || attestationAlgorithms.includes(alg)) return;
  throw new AttestedError('server_unsupported', `the server does not accept attestations signed with ${alg}`, {
    rule: 'META-4',
  });
}
