/** What an agent knows from one run to the next. */
import { BoundedMap } from './bounded.ts';

export interface StoredIdentity {
  scope: string;
  generation: number;
  thumbprint: string;
  attestation?: string;
  /** Seconds since the epoch by this machine's clock. */
  receivedAt?: number;
  /** Seconds from `receivedAt` for which the attestation is good. */
  lifetime?: number;
  /** Servers that have seen the key (PRIV-2). */
  seenBy: string[];
  /** Authorization servers that it has authenticated at, each with the server that a token was asked for. */
  tokens: TokenPath[];
  /** Authorization server → the one resource server that its token was used at, and which counts as one with it. */
  joined: Map<string, string>;
}

/** From the authorization server to the server that the token is for; the same one, where no resource was named. */
export type TokenPath = readonly [issuer: string, audience: string];

/** Something besides key and attestation by which servers can tell that they serve the same agent. */
export interface IdentityLink {
  kind: 'claim' | 'client_id' | 'status';
  /** The claim's path; the client_id; the status list's place. */
  name: string;
  /** Servers that have seen this very value. */
  seenBy: string[];
}

export interface Artifact {
  label: string;
  scheme: 'Bearer' | 'DPoP';
  /** The server for which it was asked: the resource, or else the issuer. */
  audience: string;
  /** The authorization server that it came from; empty where that is not known. */
  issuer: string;
}

/** What is known, without the means to change it on the disk. */
export interface AgentState {
  readonly clientId: string;
  /** By key label. */
  readonly identities: Map<string, StoredIdentity>;
  /** Scope → generation in use. */
  readonly current: Map<string, number>;
  /** Hash of a token or other bound artifact → label of the identity that it is bound to, and the token's scheme. */
  readonly artifacts: BoundedMap<string, Artifact>;
  /** Hash of a linking value → who has seen it. Bounded, since an attester decides what stands in an attestation. */
  readonly links: BoundedMap<string, IdentityLink>;
  /** The attester knows this instance: no enrolment token is needed any more. */
  enrolled: boolean;
}

const MAX_ARTIFACTS = 512;
const MAX_LINKS = 1024;

export function emptyState(clientId: string): AgentState {
  return {
    clientId,
    identities: new Map(),
    current: new Map(),
    artifacts: new BoundedMap(MAX_ARTIFACTS),
    links: new BoundedMap(MAX_LINKS),
    enrolled: false,
  };
}

/** False when it was there already. */
export function addTokenPath({ tokens }: StoredIdentity, issuer: string, audience: string): boolean {
  if (tokens.some(([from, to]) => from === issuer && to === audience)) return false;
  tokens.push([issuer, audience]);
  return true;
}
