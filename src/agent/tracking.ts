/**
 * The tracking guard (PRIV-1, PRIV-2): before a key or an attestation is shown to a server, is there another server that has
 * seen it, or something in it, so that the two could tell that they serve the same agent?
 *
 * An authorization server and the resource server that its tokens are used at count as one: the token carries the key's
 * thumbprint from the one to the other, so a second key would hide nothing. The second resource server is another matter.
 */
import { AttestedError } from '../errors.ts';
import { sha256Base64url } from '../platform/crypto.ts';
import { haveToken, REMEDIES } from './correlations.ts';
import { type Identity, SHARED_SCOPE } from './identity.ts';
import { type LinkingFact, linkingFacts } from './linking.ts';
import { addTokenPath, type StoredIdentity } from './remembered.ts';
import type { StateStore } from './state.ts';
import type { AgentWarning, TrackingLink, Warnings } from './warnings.ts';

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
  /**
   * Call with the attestation that is about to be sent, after {@link TrackingGuard.show}: what it says may link, too.
   *
   * @throws AttestedError `tracking_refused` in mode `refuse` when another server has seen the same
   */
  attest(identity: Identity, server: string, attestation: string): Promise<void>;
  /** Notes at which authorization server an identity asks for a token, and for whom: a link that nothing can avoid. */
  noteTokens(identity: Identity, issuer: string, audiences: readonly string[]): void;
}

const WHAT = {
  claim: (name: string) => `the attestation's claim ${name}`,
  client_id: (name: string) => `the client_id ${name}`,
  status: (name: string) => `the attestation's entry in the status list ${name}`,
} as const;

export function openTrackingGuard(options: {
  clientId: string;
  mode: TrackingMode;
  store: StateStore;
  warnings: Warnings;
}): TrackingGuard {
  const { clientId, mode, store, warnings } = options;
  /** Attestation by label, and the servers for which it has been judged: nearly all requests end here. */
  const judged = new Map<string, { attestation: string; facts: LinkingFact[]; servers: Set<string> }>();

  function refuseOrWarn(warning: Omit<AgentWarning, 'message'> & { what: string; remedy: string }): void {
    const { what, ...rest } = warning;
    const message = `${what}. To keep them apart: ${rest.remedy}`;
    if (mode === 'refuse') throw new AttestedError('tracking_refused', message, { rule: 'PRIV-2' });
    warnings.emit({ ...rest, message });
  }

  /** In one turn of the state, so that two first requests at once cannot both find an empty ledger. */
  function decide(identity: Identity, server: string, issuedBy: string | undefined): void {
    const seen = store.identities.get(identity.label);
    if (seen === undefined || isKnown(seen, server)) return;
    const other = seen.seenBy.find((name) => name !== server);
    const joins = issuedBy !== undefined && issuedBy !== server && !seen.joined.has(issuedBy);
    if (joins && seen.seenBy.every((name) => name === issuedBy)) {
      seen.joined.set(issuedBy, server);
      return;
    }
    if (other !== undefined) {
      const first = seen.joined.get(other) ?? other;
      const { thumbprint } = identity.signer;
      refuseOrWarn({
        code: 'tracking',
        servers: [first, server],
        thumbprint,
        what: `${server} is about to see the client key that ${first} has seen (thumbprint ${thumbprint}): by it and its attestation the two can tell that they serve the same agent`,
        links: keyLinks(seen),
        remedy: identity.scope === SHARED_SCOPE ? REMEDIES.shared : REMEDIES.token,
      });
    }
    seen.seenBy.push(server);
  }

  function judge(identity: Identity, server: string, facts: readonly LinkingFact[]): void {
    const news = facts.filter(({ digest }) => store.links.get(digest)?.seenBy.includes(server) !== true);
    for (const { kind, name, digest, unique } of news) {
      const known = store.links.get(digest);
      const other = known?.seenBy.find((seenBy) => !areLinkedAnyway(identity, seenBy, server));
      if (other !== undefined) {
        refuseOrWarn({
          code: kind === 'status' ? 'status_reused' : 'tracking',
          servers: [other, server],
          thumbprint: identity.signer.thumbprint,
          what: `${server} is about to see ${WHAT[kind](name)} as ${other} has seen it: by it the two can tell that they serve the same agent, whatever its key`,
          links: [{ kind, name }],
          remedy: REMEDIES[kind],
        });
      } else if (
        unique &&
        kind !== 'status' &&
        ![...store.links.values()].some((l) => l.kind === kind && l.name === name)
      ) {
        const remedy = REMEDIES[kind];
        warnings.emit({
          code: kind === 'claim' ? 'identifying_claim' : 'identifying_client_id',
          servers: [server],
          links: [{ kind, name }],
          message: `${server} is about to see ${WHAT[kind](name)}, which looks unique to this device, instance or user: all servers that see it can tell that they serve the same agent. To keep them apart: ${remedy}`,
          remedy,
        });
      }
    }
    // after the last of them could have been refused: what is refused is not sent, and nobody sees it
    for (const { kind, name, digest } of news) {
      store.links.set(digest, { kind, name, seenBy: [...(store.links.get(digest)?.seenBy ?? []), server] });
    }
  }

  /** By the key of this identity, of which {@link decide} has spoken, or by a token. */
  function areLinkedAnyway(identity: Identity, one: string, other: string): boolean {
    const seen = store.identities.get(identity.label);
    if (seen !== undefined && isKnown(seen, one)) return true;
    return [...store.identities.values()].some(
      (stored) => haveToken(stored, one, other) || haveToken(stored, other, one),
    );
  }

  return {
    async show(identity, server, issuedBy) {
      const seen = store.identities.get(identity.label);
      if (seen !== undefined && isKnown(seen, server)) return;
      await store.update(() => decide(identity, server, issuedBy));
    },
    async attest(identity, server, attestation) {
      let mine = judged.get(identity.label);
      if (mine?.attestation !== attestation) {
        mine = { attestation, facts: linkingFacts(clientId, attestation), servers: new Set() };
        judged.set(identity.label, mine);
      }
      const { facts, servers } = mine;
      if (servers.has(server)) return;
      if (facts.some(({ digest }) => store.links.get(digest)?.seenBy.includes(server) !== true)) {
        await store.update(() => judge(identity, server, facts));
      }
      servers.add(server);
    },
    noteTokens(identity, issuer, audiences) {
      const seen = store.identities.get(identity.label);
      if (seen === undefined) return;
      const added = audiences.filter((audience) => addTokenPath(seen, issuer, audience));
      if (added.length > 0) void store.save();
    },
  };
}

function keyLinks({ thumbprint, attestation }: StoredIdentity): TrackingLink[] {
  const links: TrackingLink[] = [{ kind: 'key', name: thumbprint }];
  if (attestation !== undefined) links.push({ kind: 'attestation', name: sha256Base64url(attestation) });
  return links;
}

function isKnown(seen: { seenBy: string[]; joined: Map<string, string> }, server: string): boolean {
  return seen.seenBy.includes(server) || [...seen.joined.values()].includes(server);
}
