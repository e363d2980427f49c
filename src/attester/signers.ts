/** The keys an attester signs with: the first signs, all are published, so that a new key can be known before its use. */
import { readPublicJwk } from '../core/jwk.ts';
import type { JsonWebKey, Signer } from '../core/signer.ts';
import { AttestedError } from '../errors.ts';

export interface SignerSet {
  signing(): Signer;
  jwks(): { keys: JsonWebKey[] };
  use(signers: Signer | readonly Signer[]): void;
}

/** @throws AttestedError `invalid_argument`, also from `use`: no signer, one that is not asymmetric, or two of one kid */
export function signerSet(initial: Signer | readonly Signer[]): SignerSet {
  let current = readSigners(initial);
  return {
    signing: () => current[0],
    jwks: () => ({ keys: current.map(publishedKey) }),
    use: (signers) => {
      current = readSigners(signers);
    },
  };
}

function readSigners(given: Signer | readonly Signer[]): [Signer, ...Signer[]] {
  const [first, ...others] = Array.isArray(given) ? (given as readonly Signer[]) : [given as Signer];
  if (first === undefined) throw new AttestedError('invalid_argument', 'an attester needs a signer');
  if ([first, ...others].some((signer) => typeof signer.sign !== 'function')) {
    throw new AttestedError(
      'invalid_argument',
      'a signer has alg, publicJwk and sign, as importSigner makes one of a key',
    );
  }
  const kids = [first, ...others].map((signer) => publishedKey(signer).kid);
  if (new Set(kids).size !== kids.length) throw new AttestedError('invalid_argument', 'two signers have the same kid');
  return [first, ...others];
}

function publishedKey(signer: Signer): JsonWebKey {
  const jwk = readPublicJwk(signer.publicJwk, 'invalid_argument');
  return { ...jwk, kid: signer.publicJwk.kid ?? signer.thumbprint, alg: signer.alg, use: 'sig' };
}
