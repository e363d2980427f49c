/** Public keys as JWK (RFC 7517, RFC 7518 §6, RFC 8037): strict reading and the thumbprint's input (RFC 7638). Pure. */
import { AttestedError, type ErrorCode } from '../errors.ts';
import { decodeBase64url } from './bytes.ts';
import { isJsonObject } from './json.ts';
import { isRocaModulus } from './roca.ts';

export interface EcJwk {
  kty: 'EC';
  crv: 'P-256' | 'P-384' | 'P-521';
  x: string;
  y: string;
}
export interface OkpJwk {
  kty: 'OKP';
  crv: 'Ed25519';
  x: string;
}
export interface RsaJwk {
  kty: 'RSA';
  n: string;
  e: string;
}
/** A public key reduced to the members that define it. */
export type PublicJwk = EcJwk | OkpJwk | RsaJwk;

/** Members that only private or symmetric keys have (VER-4; `priv` is the AKP key type's). */
export const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'] as const;

const COORDINATE_BYTES = { 'P-256': 32, 'P-384': 48, 'P-521': 66 } as const;
const MIN_RSA_BITS = 2048;
const MAX_RSA_BITS = 8192;

/**
 * Reads a public JWK from outside and reduces it to its defining members.
 *
 * Checks: no private or symmetric member (VER-4), a supported key type and curve, coordinates of exact length, RSA of
 * 2048 to 8192 bits with a sane exponent and without the ROCA structure (CVE-2017-15361), no small-order or
 * non-canonical Ed25519 point, `use` and `key_ops` that allow verification. Whether an EC point lies on its curve is
 * checked by the platform when the key is imported.
 *
 * @throws AttestedError with the given `code` (default `invalid_client_attestation`)
 */
export function readPublicJwk(
  value: unknown,
  code: ErrorCode = 'invalid_client_attestation',
  rule = 'VER-4',
): PublicJwk {
  const refuse = (why: string): never => {
    throw new AttestedError(code, why, { rule });
  };
  if (!isJsonObject(value)) return refuse('the key is not a JWK object');
  for (const member of PRIVATE_MEMBERS) {
    if (value[member] !== undefined) return refuse('the key carries a private or symmetric member');
  }
  if (value.use !== undefined && value.use !== 'sig') return refuse('the key is not meant for signatures');
  if (value.key_ops !== undefined && !(Array.isArray(value.key_ops) && value.key_ops.includes('verify'))) {
    return refuse('the key is not meant for verification');
  }
  switch (value.kty) {
    case 'EC': {
      const { crv, x, y } = value;
      if (crv !== 'P-256' && crv !== 'P-384' && crv !== 'P-521') return refuse('unsupported elliptic curve');
      if (bytesOf(x)?.length !== COORDINATE_BYTES[crv] || bytesOf(y)?.length !== COORDINATE_BYTES[crv]) {
        return refuse('elliptic curve coordinates have the wrong length');
      }
      return { kty: 'EC', crv, x: x as string, y: y as string };
    }
    case 'OKP': {
      const { crv, x } = value;
      if (crv !== 'Ed25519') return refuse('unsupported OKP curve');
      const point = bytesOf(x);
      if (point?.length !== 32) return refuse('Ed25519 key has the wrong length');
      if (isWeakEd25519Point(point)) return refuse('Ed25519 key is a small-order or non-canonical point');
      return { kty: 'OKP', crv, x: x as string };
    }
    case 'RSA': {
      const [n, e] = [bytesOf(value.n), bytesOf(value.e)];
      if (n === undefined || e === undefined || n[0] === 0 || e[0] === 0) return refuse('malformed RSA key');
      const bits = n.length * 8 - Math.clz32(n[0] as number) + 24;
      if (bits < MIN_RSA_BITS || bits > MAX_RSA_BITS) return refuse('RSA modulus is not between 2048 and 8192 bits');
      if (((n.at(-1) as number) & 1) === 0) return refuse('RSA modulus is even');
      const exponent = toBigInt(e);
      if (e.length > 8 || exponent < 65537n || exponent % 2n === 0n) return refuse('RSA exponent is not acceptable');
      if (isRocaModulus(n)) return refuse('RSA modulus has the ROCA structure (CVE-2017-15361)');
      return { kty: 'RSA', n: value.n as string, e: value.e as string };
    }
    default:
      return refuse('unsupported key type');
  }
}

/** The JSON text whose SHA-256 is the key's thumbprint: required members only, in lexicographic order (RFC 7638 §3). */
export function thumbprintInput(jwk: PublicJwk): string {
  switch (jwk.kty) {
    case 'EC':
      return `{"crv":"${jwk.crv}","kty":"EC","x":"${jwk.x}","y":"${jwk.y}"}`;
    case 'OKP':
      return `{"crv":"${jwk.crv}","kty":"OKP","x":"${jwk.x}"}`;
    case 'RSA':
      return `{"e":"${jwk.e}","kty":"RSA","n":"${jwk.n}"}`;
  }
}

/** Are two keys the same key? Compares defining members, whose base64url text is unique (DPOP-8). */
export function sameKey(a: PublicJwk, b: PublicJwk): boolean {
  return thumbprintInput(a) === thumbprintInput(b);
}

function bytesOf(value: unknown): Uint8Array | undefined {
  return typeof value === 'string' && value.length > 0 ? decodeBase64url(value) : undefined;
}

function toBigInt(bytes: Uint8Array): bigint {
  let hex = '0x';
  for (const byte of bytes) hex += byte.toString(16).padStart(2, '0');
  return BigInt(hex);
}

const ED25519_P = 2n ** 255n - 19n;
const ED25519_ORDER_8_Y = 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n;
/** y coordinates of the points of order 1, 2, 4 and 8 on edwards25519; the sign of x does not matter. */
const ED25519_SMALL_ORDER_Y: ReadonlySet<bigint> = new Set([
  0n,
  1n,
  ED25519_P - 1n,
  ED25519_ORDER_8_Y,
  ED25519_P - ED25519_ORDER_8_Y,
]);

function isWeakEd25519Point(point: Uint8Array): boolean {
  const bigEndian = Uint8Array.from(point).reverse();
  bigEndian[0] = (bigEndian[0] as number) & 0x7f; // the top bit is the sign of x
  const y = toBigInt(bigEndian);
  return y >= ED25519_P || ED25519_SMALL_ORDER_Y.has(y);
}
