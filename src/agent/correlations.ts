/**
 * Who could tell that they serve the same agent, by what the agent itself has shown them. Pure.
 *
 * It leaves out what no client can see or prevent: network address, time and kind of the requests, the same user signing in,
 * and what one company's servers tell each other. And the client_id, which all instances of a client share, unless it looks
 * as if it were this one's own.
 */
import type { AgentState, StoredIdentity } from './remembered.ts';

export interface Correlation {
  /** `token`: an authorization server and the server that its token is for. */
  by: 'key' | 'claim' | 'client_id' | 'status' | 'token';
  /** The key's thumbprint, the claim's path, the client_id, the status list's place. */
  name: string;
  /** At least two, each of which could recognise the agent of each other. */
  servers: readonly string[];
  /** What would keep them apart; absent where nothing would. */
  remedy?: string;
}

export interface Correlations {
  clientId: string;
  /** All servers that have seen a key, in the order of their first contact. */
  servers: readonly { name: string; thumbprints: readonly string[] }[];
  links: readonly Correlation[];
}

export const REMEDIES = {
  shared: "leave the option `tracking` of createAgent at 'separate', which gives each server a key of its own",
  token: 'ask for a token for each resource (parameter `resource`, RFC 8707): each then has a key of its own',
  claim: 'have the attester leave the claim out (`claims` in the policy of attested/attester)',
  client_id: 'use one client_id for all instances, such as a client metadata document, and no dynamic registration',
  status: 'have the attester give every attestation a status entry of its own',
} as const;

export function correlationsOf({ clientId, identities, links }: AgentState): Correlations {
  const servers = new Map<string, Set<string>>();
  const found: Correlation[] = [];
  for (const identity of identities.values()) {
    const { thumbprint, tokens, joined, scope } = identity;
    const tokenPaths = [...tokens, ...joined];
    for (const name of new Set([...identity.seenBy, ...tokenPaths.flat()])) {
      servers.set(name, (servers.get(name) ?? new Set()).add(thumbprint));
    }
    const shown = shownTo(identity);
    if (shown.some((one) => shown.some((other) => one !== other && !isTokenPair(identity, one, other)))) {
      found.push({ by: 'key', name: thumbprint, servers: shown, remedy: REMEDIES[scope === '*' ? 'shared' : 'token'] });
    }
    for (const path of tokenPaths) {
      const known = found.some(({ by, servers: [from, to] }) => by === 'token' && from === path[0] && to === path[1]);
      if (path[0] !== path[1] && !known) found.push({ by: 'token', name: thumbprint, servers: path });
    }
  }
  for (const { kind, name, seenBy } of links.values()) {
    const all = [...identities.values()];
    const apart = (one: string, other: string) => one !== other && !all.some((i) => isTokenPair(i, one, other));
    for (const server of seenBy) if (!servers.has(server)) servers.set(server, new Set()); // of a key that is gone
    if (!seenBy.some((one) => seenBy.some((other) => apart(one, other)))) continue;
    // what is of one attestation, and goes where that goes, goes with the key
    const own = kind === 'status' || /(^|\.)jti$/.test(name);
    if (own && all.some((identity) => seenBy.every((server) => shownTo(identity).includes(server)))) continue;
    found.push({ by: kind, name, servers: seenBy, remedy: REMEDIES[kind] });
  }
  return {
    clientId,
    servers: [...servers].map(([name, thumbprints]) => ({ name, thumbprints: [...thumbprints] })),
    // what can be helped comes first
    links: found.sort((a, b) => Number(a.remedy === undefined) - Number(b.remedy === undefined)),
  };
}

/** Did this identity ask the first of them for a token for the other, or use one there? */
export function haveToken({ tokens, joined }: StoredIdentity, issuer: string, audience: string): boolean {
  return joined.get(issuer) === audience || tokens.some(([from, to]) => from === issuer && to === audience);
}

function isTokenPair(identity: StoredIdentity, one: string, other: string): boolean {
  return haveToken(identity, one, other) || haveToken(identity, other, one);
}

/** Whoever the key was shown to on its own account. */
function shownTo({ seenBy, joined }: StoredIdentity): string[] {
  return [...new Set([...seenBy, ...joined.values()])];
}
