/** The attester's status list: random places for attestations, and the signed list of those that were revoked. */
import { randomInt } from 'node:crypto';
import { deflateSync } from 'node:zlib';
import { encodeBase64url } from '../core/bytes.ts';
import { signJwt } from '../core/jwt.ts';
import { STATUS_LIST_TYP } from '../core/status-list.ts';
import { AttestedError } from '../errors.ts';
import type { SignerSet } from './signers.ts';
import type { AttesterStore } from './store.ts';

export interface StatusListOptions {
  /** Entries: a multiple of 8 from 1024 to 2^24. The more there are, the less an index says. Default 2^17. */
  size?: number;
  /** How long a server may keep the list before it asks again, seconds. Default 60. */
  ttl?: number;
}

export interface StatusLists {
  uri: string;
  /** Half of the list's ttl, seconds: how long any cache of ours, or between us and a server, may keep it. */
  maxAge: number;
  /** Random places to try for a new attestation. */
  candidates(): number[];
  /** The Status List Token. */
  token(): Promise<string>;
  /** Forgets the cached token, after a revocation or a change of signers. */
  renew(): void;
}

const CANDIDATES = 64;
/** The token outlives its ttl by far, so that servers survive a short outage of the attester, but not for ever. */
const LIFETIMES_OF_TTL = 5;

export interface StatusListParts {
  uri: string;
  store: AttesterStore;
  signers: SignerSet;
  /** Milliseconds since the epoch. */
  now: () => number;
}

/** @throws AttestedError `invalid_argument` */
export function createStatusLists(
  { uri, store, signers, now }: StatusListParts,
  { size = 2 ** 17, ttl = 60 }: StatusListOptions = {},
): StatusLists {
  if (!Number.isInteger(size) || size % 8 !== 0 || size < 1024 || size > 2 ** 24) {
    throw new AttestedError('invalid_argument', 'a status list has a multiple of 8 entries, from 1024 to 2^24');
  }
  if (!Number.isInteger(ttl) || ttl < 2 || ttl > 86400) {
    throw new AttestedError('invalid_argument', 'the ttl of a status list is 2 to 86400 seconds');
  }
  const maxAge = Math.floor(ttl / 2);
  let cached: { token: Promise<string>; createdAt: number } | undefined;

  const create = async (at: number): Promise<string> => {
    const list = new Uint8Array(size / 8);
    for (const index of await store.revokedIndexes(at)) {
      const byte = index >> 3;
      // an index beyond the end is of a list that was larger before the operator made it smaller
      if (byte < list.length) list[byte] = (list[byte] as number) | (1 << (index & 7));
    }
    const lst = encodeBase64url(deflateSync(list, { level: 9 }));
    const signer = signers.signing();
    return signJwt(
      { typ: STATUS_LIST_TYP, kid: signer.publicJwk.kid ?? signer.thumbprint },
      { sub: uri, iat: at, exp: at + LIFETIMES_OF_TTL * ttl, ttl, status_list: { bits: 1, lst } },
      signer,
    );
  };

  return {
    uri,
    maxAge,
    candidates: () => Array.from({ length: CANDIDATES }, () => randomInt(size)),
    token: async () => {
      const at = Math.floor(now() / 1000);
      if (cached === undefined || at >= cached.createdAt + maxAge || at < cached.createdAt) {
        cached = { token: create(at), createdAt: at };
      }
      const mine = cached;
      try {
        return await mine.token;
      } catch (error) {
        if (cached === mine) cached = undefined;
        throw error;
      }
    },
    renew: () => {
      cached = undefined;
    },
  };
}
