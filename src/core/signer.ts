/**
 * A key that can sign, wherever it lives. Every key of every provider is one.
 *
 * `sign` takes the bytes to be signed (not their digest) and gives a JWS signature: for ECDSA r‖s of fixed length
 * (ES256: 64 bytes), for RSA and Ed25519 the signature as it is.
 */
export interface Signer {
  /** JWS algorithm name, from `core/algorithms.ts`. */
  readonly alg: string;
  /** The public key: defining members, and `kid` where the key has a name that servers know. */
  readonly publicJwk: JsonWebKey;
  /** RFC 7638 SHA-256 thumbprint, base64url. */
  readonly thumbprint: string;
  sign(data: Uint8Array): Promise<Uint8Array>;
}

/**
 * A JWK as JSON. Structural, so that neutral code needs no DOM types. A type alias, not an interface, since only then what
 * WebCrypto, `node:crypto` and jose each call a JWK can be given as one, and taken for one.
 */
export type JsonWebKey = {
  kty?: string;
  crv?: string;
  x?: string;
  y?: string;
  n?: string;
  e?: string;
  alg?: string;
  kid?: string;
  use?: string;
  key_ops?: string[];
  /** Private members: where a private or shared key is asked for, and nowhere else. */
  d?: string;
  p?: string;
  q?: string;
  dp?: string;
  dq?: string;
  qi?: string;
  k?: string;
};
