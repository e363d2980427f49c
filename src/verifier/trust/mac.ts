/** Trust in secrets shared with an attester (ATT-7): opt-in, for deployments where AS and attester are one party. */
import { createSecretKey } from 'node:crypto';
import { algorithms, type MacAlgorithm, macAlgorithms } from '../../core/algorithms.ts';
import { decodeBase64url } from '../../core/bytes.ts';
import { AttestedError } from '../../errors.ts';
import { clientSet, type TrustedKey, type TrustOptions, type TrustSource } from './source.ts';

export interface MacKey {
  /** At least as long as the hash. A string is base64url, as in a JWK's `k`. */
  secret: Uint8Array | string;
  alg?: MacAlgorithm;
  kid?: string;
}

/** The same as a JWK (RFC 7518 §6.4). */
export interface OctJwk {
  kty: 'oct';
  k: string;
  alg?: MacAlgorithm;
  kid?: string;
}

/** Trusts MAC-protected attestations made with the given secrets. @throws AttestedError `invalid_argument` */
export function mac({
  keys,
  clients,
  attester = 'mac',
}: TrustOptions & { keys: readonly (MacKey | OctJwk)[] }): TrustSource {
  const entries = keys.map((given) => {
    const { alg = 'HS256', kid } = given;
    const secret = 'kty' in given ? given.k : given.secret;
    const bytes = typeof secret === 'string' ? decodeBase64url(secret) : secret;
    if (
      bytes === undefined ||
      !macAlgorithms.includes(alg) ||
      bytes.length < (algorithms[alg].signatureBytes as number)
    ) {
      throw new AttestedError(
        'invalid_argument',
        'a MAC secret must be at least as long as the hash of its algorithm',
        {
          rule: 'ATT-7',
        },
      );
    }
    const trusted: TrustedKey = {
      key: createSecretKey(bytes),
      attester,
      clients: clientSet(clients),
      validUntil: Number.POSITIVE_INFINITY,
      statusOrigins: [],
    };
    return { alg, kid, trusted };
  });
  return {
    macAlgorithms: [...new Set(entries.map(({ alg }) => alg))],
    find: (header) =>
      entries
        .filter(
          ({ alg, kid }) => alg === header.alg && (kid === undefined || header.kid === undefined || kid === header.kid),
        )
        .map(({ trusted }) => trusted),
  };
}
