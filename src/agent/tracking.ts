/**
 * The tracking guard (PRIV-1, PRIV-2): before a key is shown to a server, is this the first server to see it?
 *
 * An authorization server and the resource server that its tokens are used at count as one: the token carries the key's
 * thumbprint from the one to the other, so a second key would hide nothing. The second resource server is another matter.
 */
import { AttestedError } from '../errors.ts';
import type { Identity } from './identity.ts';
import type { StateStore } from './state.ts';
import type { Warnings } from './warnings.ts';

/** `separate`: a key per server. `warn` and `refuse`: one key for all, and that on the second server. */
export type TrackingMode = 'separate' | 'warn' | 'refuse';

export interface TrackingGuard {
  /**
   * Call before an identity is shown to a server.
   *
   * @param issuedBy the scope for which the token in the request was asked, where that was not this server
   * @throws AttestedError `tracking_refused` in mode `refuse` when another server has seen the identity
   */
  show(identity: Identity, server: string, issuedBy?: string): Promise<void>;
}

export function openTrackingGuard(options: {
  mode: TrackingMode;
  store: StateStore;
  warnings: Warnings;
}): TrackingGuard {
  const { mode, store, warnings } = options;
  // nothing is awaited between looking and writing: two first requests at once cannot both find an empty ledger
  async function decide(identity: Identity, server: string, issuedBy: string | undefined): Promise<void> {
    await store.refresh(); // another process may have shown the same key
    const seen = store.identities.get(identity.label);
    if (seen === undefined || isKnown(seen, server)) return;
    const other = seen.seenBy.find((name) => name !== server);
    const joins = issuedBy !== undefined && issuedBy !== server && !seen.joined.has(issuedBy);
    if (joins && seen.seenBy.every((name) => name === issuedBy)) {
      seen.joined.set(issuedBy, server);
    } else if (other === undefined) {
      seen.seenBy.push(server);
    } else {
      const first = seen.joined.get(other) ?? other;
      const message = `${server} is about to see the client key that ${first} has seen: by its thumbprint and its attestation the two can tell that they serve the same agent`;
      if (mode === 'refuse') {
        throw new AttestedError('tracking_refused', message, { rule: 'PRIV-2' });
      }
      const { thumbprint } = identity.signer;
      warnings.emit({ code: 'tracking', message, servers: [first, server], thumbprint });
      seen.seenBy.push(server);
    }
    await store.save();
  }

  return {
    show(identity, server, issuedBy) {
      const seen = store.identities.get(identity.label);
      if (seen !== undefined && isKnown(seen, server)) return Promise.resolve();
      return decide(identity, server, issuedBy);
    },
  };
}

function isKnown(seen: { seenBy: string[]; joined: Map<string, string> }, server: string): boolean {
  return seen.seenBy.includes(server) || [...seen.joined.values()].includes(server);
}
