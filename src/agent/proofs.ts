/** Proofs of possession, each for one request and one target (POP-9), and the memory of what was made for whom. */
import { createDpopProof } from '../core/dpop.ts';
import type { PopMethod } from '../core/metadata.ts';
import { createPop } from '../core/pop.ts';
import { type RevisionNumber, revisionOf } from '../core/revisions.ts';
import { randomId, sha256Base64url } from '../platform/crypto.ts';
import { BoundedMap } from './bounded.ts';
import type { Identity } from './identity.ts';
import type { Server } from './servers.ts';

/** For whom a proof was made. */
export interface Minted {
  identity: Identity;
  /** Set where the proof authenticates the client; absent for a DPoP proof on its own. */
  server: Server | undefined;
  method: PopMethod | undefined;
  /** The server name shown in the tracking guard, kept with what the answer brings. */
  audience: string | undefined;
  /** DPoP only. */
  target: { method: string; url: string } | undefined;
  /** The proof has been sent: it must not be sent again. */
  sent: boolean;
}

export interface DpopTarget {
  method: string;
  url: string;
  nonce: string | undefined;
  accessToken?: string | undefined;
}

export interface Proofs {
  /** Combined mode proves its freshness by the attestation challenge (-09, -10), not by a DPoP nonce. */
  readonly combinedByChallenge: boolean;
  pop(identity: Identity, server: Server, challenge: string | undefined, audience?: string): Promise<string>;
  dpop(identity: Identity, target: DpopTarget, server?: Server, audience?: string): Promise<string>;
  /** What is known of a proof's text; undefined when it is not ours. */
  recall(proof: string | null): Minted | undefined;
}

const MAX_REMEMBERED = 1024;

export function openProofs(options: {
  clientId: string;
  revision: RevisionNumber | undefined;
  now: () => number;
}): Proofs {
  const { clientId, now } = options;
  const revision = revisionOf(options.revision);
  const minted = new BoundedMap<string, Minted>(MAX_REMEMBERED);
  const seconds = () => Math.floor(now() / 1000);

  return {
    combinedByChallenge: revision.combined === 'challenge-in-nonce',
    async pop(identity, server, challenge, audience) {
      const input = { audience: server.id, challenge, jti: randomId(), issuedAt: seconds(), clientId, revision };
      const proof = await createPop(input, identity.signer);
      const method = 'attestation_pop_jwt';
      minted.set(proof, { identity, server, method, audience, target: undefined, sent: false });
      return proof;
    },
    async dpop(identity, { method, url, nonce, accessToken }, server, audience) {
      // in -09 and -10 the combined mode carries the attestation challenge in the nonce
      const fresh = server !== undefined && revision.combined === 'challenge-in-nonce' ? server.challenge : nonce;
      const proof = await createDpopProof(
        {
          method,
          url,
          nonce: fresh,
          ath: accessToken === undefined ? undefined : sha256Base64url(accessToken),
          jti: randomId(),
          issuedAt: seconds(),
        },
        identity.signer,
      );
      const combined = server === undefined ? undefined : 'dpop_combined';
      minted.set(proof, { identity, server, method: combined, audience, target: { method, url }, sent: false });
      return proof;
    },
    recall: (proof) => (proof === null ? undefined : minted.get(proof)),
  };
}
