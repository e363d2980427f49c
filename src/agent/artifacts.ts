/**
 * Which token, code or handle is bound to which identity (BIND-1, BIND-2, IMPL-2). Only hashes are kept. Without this a
 * rotated key, or a scope that is asked for in another way, would break every refresh.
 */

import { decodeBase64url, fromUtf8 } from '../core/bytes.ts';
import type { JsonObject } from '../core/json.ts';
import { isJsonObject, parseJsonObject } from '../core/json.ts';
import { sha256Base64url } from '../platform/crypto.ts';
import type { Artifact, StateStore } from './state.ts';

export interface Artifacts {
  /** What a token, refresh token or handle is bound to. */
  of(value: string): Artifact | undefined;
  /** What a request's parameters are bound to, when they carry something bound. */
  ofRequest(params: URLSearchParams): Artifact | undefined;
  /** Remembers what a request with this identity starts: the code of a pushed authorization request. */
  noteRequest(params: URLSearchParams, label: string, audience: string): void;
  /** Remembers what an answer brings. */
  noteAnswer(answer: JsonObject, label: string, audience: string): void;
  /** Remembers tokens that came another way, if it can be told whose they are. */
  adopt(tokens: { access_token?: unknown; refresh_token?: unknown; token_type?: unknown }): void;
}

/** Request parameters that carry something bound to a key. */
const CARRIERS = ['refresh_token', 'device_code', 'auth_req_id', 'token', 'subject_token'] as const;
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
    ofRequest(params) {
      for (const name of CARRIERS) {
        const value = params.get(name);
        const found = value === null ? undefined : of(value);
        if (found !== undefined) return found;
      }
      // a code is bound through PAR; the verifier leads back to the challenge that was pushed (RFC 7636 §4.2)
      const verifier = params.get('code_verifier');
      return verifier === null ? undefined : of(sha256Base64url(verifier));
    },
    noteRequest(params, label, audience) {
      if (params.has('grant_type')) return;
      note(params.get('code_challenge'), { label, audience, scheme: 'Bearer' });
    },
    noteAnswer(answer, label, audience) {
      const scheme = schemeOf(answer.token_type);
      let noted = false;
      for (const name of BOUND_MEMBERS) {
        if (answer[name] === undefined) continue;
        note(answer[name], { label, audience, scheme });
        noted = true;
      }
      if (noted) void store.save();
    },
    adopt({ access_token, refresh_token, token_type }) {
      if (typeof access_token !== 'string' || of(access_token) !== undefined) return;
      const scheme = schemeOf(token_type);
      if (scheme !== 'DPoP') return; // a bearer token needs no key
      const jkt = confirmedKey(access_token);
      const all = [...identities];
      const owner =
        jkt === undefined ? (all.length === 1 ? all[0] : undefined) : all.find(([, i]) => i.thumbprint === jkt);
      if (owner === undefined) return;
      const [label, { scope }] = owner;
      note(access_token, { label, audience: scope, scheme });
      note(refresh_token, { label, audience: scope, scheme });
      void store.save();
    },
  };
}

function schemeOf(tokenType: unknown): 'Bearer' | 'DPoP' {
  return typeof tokenType === 'string' && tokenType.toLowerCase() === 'dpop' ? 'DPoP' : 'Bearer';
}

/** `cnf.jkt` of an access token that is a JWT (RFC 9449 §6.1). Unverified: it only helps to find our own key. */
function confirmedKey(token: string): string | undefined {
  const bytes = decodeBase64url(token.split('.')[1] ?? '');
  const text = bytes === undefined ? undefined : fromUtf8(bytes);
  const cnf = text === undefined ? undefined : parseJsonObject(text)?.cnf;
  return isJsonObject(cnf) && typeof cnf.jkt === 'string' ? cnf.jkt : undefined;
}
