/**
 * Which token, code or handle is bound to which identity (BIND-1, BIND-2, IMPL-2). Only hashes are kept. Without this a
 * rotated key, or a scope that is asked for in another way, would break every refresh.
 */

import type { JsonObject } from '../core/json.ts';
import { isJsonObject } from '../core/json.ts';
import { parseSegment } from '../core/jwt.ts';
import { sha256Base64url } from '../platform/crypto.ts';
import type { Artifact } from './remembered.ts';
import type { StateStore } from './state.ts';

export interface Artifacts {
  /** What a token, refresh token or handle is bound to. */
  of(value: string): Artifact | undefined;
  /**
   * What a request's parameters are bound to, when they carry something bound that came from this issuer. Another issuer
   * must not get to see a key by being handed something of its peer's.
   */
  ofRequest(params: URLSearchParams, issuer: string): Artifact | undefined;
  /** Remembers what a request with this identity starts: the code of a pushed authorization request. */
  noteRequest(params: URLSearchParams, owner: Owner): void;
  /**
   * Remembers what an answer brings.
   *
   * @param proofOf whose key signed the DPoP proof, if there was one: tokens bound to the caller's own key take its proofs
   */
  noteAnswer(answer: JsonObject, owner: Owner, proofOf: 'instance' | 'caller'): void;
  /** Remembers tokens that came another way, if it can be told whose they are. */
  adopt(tokens: ForeignTokens): void;
}

/** To what an artifact is bound. */
export type Owner = Omit<Artifact, 'scheme'>;

/** Tokens as an OAuth library keeps them; the MCP SDKs add the issuer. */
export interface ForeignTokens {
  access_token?: unknown;
  refresh_token?: unknown;
  token_type?: unknown;
  issuer?: unknown;
}

/** Request parameters that carry something bound to a key. */
const CARRIERS = ['refresh_token', 'device_code', 'auth_req_id', 'token'] as const;
/** Members of an answer that are bound to the key of the request. */
const BOUND_MEMBERS = ['access_token', 'refresh_token', 'device_code', 'auth_req_id'] as const;

export function openArtifacts(store: StateStore): Artifacts {
  const { artifacts, identities } = store;
  const of = (value: string) => artifacts.get(sha256Base64url(value));

  function note(value: unknown, artifact: Artifact): void {
    if (typeof value !== 'string' || value === '') return;
    artifacts.set(sha256Base64url(value), artifact);
  }

  return {
    of,
    ofRequest(params, issuer) {
      const carried = CARRIERS.map((name) => params.get(name));
      // a code is bound through PAR; the verifier leads back to the challenge that was pushed (RFC 7636 §4.2)
      const verifier = params.get('code_verifier');
      if (verifier !== null) carried.push(sha256Base64url(verifier));
      return carried.map((value) => (value === null ? undefined : of(value))).find((found) => found?.issuer === issuer);
    },
    noteRequest(params, owner) {
      if (!params.has('grant_type')) note(params.get('code_challenge'), { ...owner, scheme: 'Bearer' });
    },
    noteAnswer(answer, owner, proofOf) {
      const bound = BOUND_MEMBERS.filter((name) => typeof answer[name] === 'string');
      const scheme = proofOf === 'caller' ? 'Bearer' : schemeOf(answer.token_type);
      for (const name of bound) note(answer[name], { ...owner, scheme });
      if (bound.length > 0) void store.save();
    },
    adopt({ access_token, refresh_token, token_type, issuer }) {
      if (typeof access_token !== 'string' || of(access_token) !== undefined) return;
      const scheme = schemeOf(token_type);
      if (scheme !== 'DPoP') return; // a bearer token needs no key
      const jkt = confirmedKey(access_token);
      const all = [...identities];
      const owner =
        jkt === undefined ? (all.length === 1 ? all[0] : undefined) : all.find(([, i]) => i.thumbprint === jkt);
      if (owner === undefined) return;
      const [label, { scope }] = owner;
      const artifact = { label, audience: scope, issuer: typeof issuer === 'string' ? issuer : '', scheme };
      note(access_token, artifact);
      note(refresh_token, artifact);
      void store.save();
    },
  };
}

function schemeOf(tokenType: unknown): 'Bearer' | 'DPoP' {
  return typeof tokenType === 'string' && tokenType.toLowerCase() === 'dpop' ? 'DPoP' : 'Bearer';
}

/** `cnf.jkt` of an access token that is a JWT (RFC 9449 §6.1). Unverified: it only helps to find our own key. */
function confirmedKey(token: string): string | undefined {
  const cnf = parseSegment(token.split('.')[1] ?? '')?.cnf;
  return isJsonObject(cnf) && typeof cnf.jkt === 'string' ? cnf.jkt : undefined;
}
