/** Which of the JWS algorithms a TPM has, and the refusal of the others. */
import { type SignatureAlgorithm, signatureAlgorithms } from '../../core/algorithms.ts';
import { AttestedError } from '../../errors.ts';
import { curves, hashes, objectTypes, signatureSchemes } from '../../tpm2/algorithms.ts';
import type { InstanceKeyAlgorithm } from '../../tpm2/templates.ts';
import type { Opened } from './protocol.ts';

type Needs = { algorithms: readonly number[]; curve?: number };

const needs: Readonly<Record<InstanceKeyAlgorithm, Needs>> = {
  ES256: { algorithms: [signatureSchemes.ecdsa, hashes.sha256.id], curve: curves['P-256'].id },
  ES384: { algorithms: [signatureSchemes.ecdsa, hashes.sha384.id], curve: curves['P-384'].id },
  PS256: { algorithms: [objectTypes.rsa, signatureSchemes.rsapss, hashes.sha256.id] },
  RS256: { algorithms: [objectTypes.rsa, signatureSchemes.rsassa, hashes.sha256.id] },
};

/** All that a TPM may have, in the order in which we prefer them. */
export const TPM_ALGORITHMS: readonly InstanceKeyAlgorithm[] = signatureAlgorithms.filter(isInstanceKeyAlgorithm);

export function algorithmsOf({
  algorithms,
  curves,
}: Pick<Opened, 'algorithms' | 'curves'>): readonly InstanceKeyAlgorithm[] {
  const has = (needed: Needs) =>
    needed.algorithms.every((id) => algorithms.includes(id)) &&
    (needed.curve === undefined || curves.includes(needed.curve));
  return TPM_ALGORITHMS.filter((alg) => has(needs[alg]));
}

/** @throws AttestedError `invalid_argument`, with the algorithms that there are */
export function assertAvailable(
  alg: SignatureAlgorithm,
  available: readonly InstanceKeyAlgorithm[],
): asserts alg is InstanceKeyAlgorithm {
  if (!available.some((known) => known === alg)) {
    throw new AttestedError('invalid_argument', `this TPM makes keys for ${available.join(', ')} only`);
  }
}

function isInstanceKeyAlgorithm(alg: SignatureAlgorithm): alg is InstanceKeyAlgorithm {
  return Object.hasOwn(needs, alg);
}
