/** The JWS algorithms (RFC 7518 §3.1, RFC 8037, RFC 9864) as one table. */

export type SignatureAlgorithm =
  | 'ES256'
  | 'ES384'
  | 'ES512'
  | 'EdDSA'
  | 'Ed25519'
  | 'RS256'
  | 'RS384'
  | 'RS512'
  | 'PS256'
  | 'PS384'
  | 'PS512';
export type MacAlgorithm = 'HS256' | 'HS384' | 'HS512';
export type Algorithm = SignatureAlgorithm | MacAlgorithm;

export interface AlgorithmRow {
  kty: 'EC' | 'OKP' | 'RSA' | 'oct';
  crv?: 'P-256' | 'P-384' | 'P-521' | 'Ed25519';
  /** Digest, by the name that `node:crypto` and OpenSSL give it; absent for Ed25519, which hashes by itself. */
  hash?: 'sha256' | 'sha384' | 'sha512';
  /** Exact length of a signature in bytes, where the algorithm fixes one (ECDSA: r‖s). */
  signatureBytes?: number;
  /** RSASSA-PSS; the salt is as long as the hash (RFC 7518 §3.5). */
  pss?: true;
}

export const algorithms: Readonly<Record<Algorithm, AlgorithmRow>> = {
  ES256: { kty: 'EC', crv: 'P-256', hash: 'sha256', signatureBytes: 64 },
  ES384: { kty: 'EC', crv: 'P-384', hash: 'sha384', signatureBytes: 96 },
  ES512: { kty: 'EC', crv: 'P-521', hash: 'sha512', signatureBytes: 132 },
  EdDSA: { kty: 'OKP', crv: 'Ed25519', signatureBytes: 64 },
  Ed25519: { kty: 'OKP', crv: 'Ed25519', signatureBytes: 64 },
  RS256: { kty: 'RSA', hash: 'sha256' },
  RS384: { kty: 'RSA', hash: 'sha384' },
  RS512: { kty: 'RSA', hash: 'sha512' },
  PS256: { kty: 'RSA', hash: 'sha256', pss: true },
  PS384: { kty: 'RSA', hash: 'sha384', pss: true },
  PS512: { kty: 'RSA', hash: 'sha512', pss: true },
  HS256: { kty: 'oct', hash: 'sha256', signatureBytes: 32 },
  HS384: { kty: 'oct', hash: 'sha384', signatureBytes: 48 },
  HS512: { kty: 'oct', hash: 'sha512', signatureBytes: 64 },
};

/** The row of an algorithm name from outside; undefined for `none` and everything else that is not in the table. */
export function algorithmRow(alg: unknown): AlgorithmRow | undefined {
  return typeof alg === 'string' && Object.hasOwn(algorithms, alg) ? algorithms[alg as Algorithm] : undefined;
}

/** Asymmetric algorithms, in the order in which we prefer them. The default of every policy. */
export const signatureAlgorithms: readonly SignatureAlgorithm[] = [
  'ES256',
  'ES384',
  'ES512',
  'Ed25519',
  'EdDSA',
  'PS256',
  'PS384',
  'PS512',
  'RS256',
  'RS384',
  'RS512',
];

export const macAlgorithms: readonly MacAlgorithm[] = ['HS256', 'HS384', 'HS512'];

/** Does the key type (and curve) of a JWK fit the algorithm? The JWK's own `alg`, where it has one, must agree too. */
export function keyFits(alg: string, jwk: { kty?: unknown; crv?: unknown; alg?: unknown }): boolean {
  const row = algorithmRow(alg);
  if (row === undefined || jwk.kty !== row.kty) return false;
  if (row.crv !== undefined && jwk.crv !== row.crv) return false;
  return jwk.alg === undefined || jwk.alg === alg || (row.kty === 'OKP' && algorithmRow(jwk.alg)?.kty === 'OKP');
}
