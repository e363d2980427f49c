/** Trust in `jku` URLs from an allow-list (IMPL-5): the header may pick one of them, and only one of them. */
import { AttestedError } from '../../errors.ts';
import { type RemoteJwksOptions, remoteJwks } from './remote-jwks.ts';
import type { TrustSource } from './source.ts';

export interface JkuOptions extends Omit<RemoteJwksOptions, 'attester'> {
  /** Exact URLs of JWK Sets. Nothing is matched by prefix or pattern. */
  allow: readonly string[];
}

/**
 * Trusts attestations whose header names an allow-listed JWK Set (`jku`) and a key in it (`kid`). Other URLs cause no
 * connection.
 */
export function jku({ allow, ...options }: JkuOptions): TrustSource {
  if (!Array.isArray(allow))
    throw new AttestedError('invalid_argument', 'jku takes a list of URLs to allow', { rule: 'IMPL-5' });
  const sources = new Map(allow.map((url) => [url, remoteJwks(url, options)]));
  return {
    find(header, now) {
      if (header.jku === undefined) return [];
      const source = typeof header.jku === 'string' ? sources.get(header.jku) : undefined;
      if (source === undefined) return [];
      if (header.kid === undefined) {
        throw new AttestedError('invalid_client_attestation', 'a jku header needs a kid beside it', { rule: 'IMPL-5' });
      }
      return source.find(header, now);
    },
  };
}
