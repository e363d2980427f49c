/** Attestation and proof as one text (CAT-1), for channels that have no HTTP headers. */
import { joinAttestation } from '../core/concatenated.ts';
import { createPop } from '../core/pop.ts';
import { type RevisionNumber, revisionOf } from '../core/revisions.ts';
import { randomId } from '../platform/crypto.ts';
import type { AgentParts } from './client-auth.ts';
import { type Identity, SHARED_SCOPE, scopeOf } from './identity.ts';

/** Speaks for one identity of the agent to one server, for as long as a connection lasts. */
export interface Presenter {
  /**
   * A new `<Client Attestation>~<PoP>`, good for one request.
   *
   * @param challenge the latest of the server, if it gave one
   * @throws AttestedError `attester_*` when there is no attestation
   */
  present(challenge?: string): Promise<string>;
  /** After `use_fresh_attestation`: whether there is a fresher attestation now. */
  renew(): Promise<boolean>;
}

/** @param server the server's identifier: the proofs' audience, and the scope of the identity (PRIV-1) */
export function openPresenter(
  server: string,
  options: {
    parts: Pick<AgentParts, 'clientId' | 'tracking' | 'identities' | 'attestations' | 'guard'>;
    revision: RevisionNumber | undefined;
    now: () => number;
  },
): Presenter {
  const { clientId, tracking, identities, attestations, guard } = options.parts;
  const revision = revisionOf(options.revision);
  let mine: Promise<Identity> | undefined;

  // the same for the whole connection: a server may hold it to the instance that began it, also when the key is rotated
  function identity(): Promise<Identity> {
    mine ??= identities.current(tracking === 'separate' ? scopeOf(server) : SHARED_SCOPE);
    mine.catch(() => {
      mine = undefined; // one failure is not for ever
    });
    return mine;
  }

  return {
    async present(challenge) {
      const chosen = await identity();
      await guard.show(chosen, scopeOf(server));
      const attestation = await attestations.usable(chosen);
      await guard.attest(chosen, scopeOf(server), attestation);
      const issuedAt = Math.floor(options.now() / 1000);
      const input = { audience: server, challenge, jti: randomId(), issuedAt, clientId, revision };
      const pop = createPop(input, chosen.signer);
      pop.catch(() => {
        mine = undefined; // its key may be gone for good
      });
      return joinAttestation(attestation, await pop);
    },
    async renew() {
      return (await attestations.fresh(await identity())) !== undefined;
    },
  };
}
