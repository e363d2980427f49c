/** What a key may be called and made for, the same for every backend. */
import { algorithmRow, type SignatureAlgorithm, signatureAlgorithms } from '../core/algorithms.ts';
import { AttestedError } from '../errors.ts';

const LABEL = /^[\x20-\x7e]{1,256}$/;
export const MAX_SECRET = 65_536;

export function isLabel(label: unknown): label is string {
  return typeof label === 'string' && LABEL.test(label);
}

/** @throws AttestedError `invalid_argument` unless the label is 1 to 256 printable ASCII characters */
export function assertLabel(label: unknown): asserts label is string {
  if (!isLabel(label)) {
    throw new AttestedError('invalid_argument', 'a key label is 1 to 256 printable ASCII characters');
  }
}

/** @throws AttestedError `invalid_argument` unless the name of a secret is 1 to 256 printable ASCII characters */
export function assertSecretName(name: unknown): asserts name is string {
  if (!isLabel(name)) {
    throw new AttestedError('invalid_argument', 'the name of a secret is 1 to 256 printable ASCII characters');
  }
}

/** @throws AttestedError `invalid_argument` unless the secret is at most 65536 bytes */
export function assertSecret(secret: unknown): asserts secret is Uint8Array {
  if (!(secret instanceof Uint8Array) || secret.length > MAX_SECRET) {
    throw new AttestedError('invalid_argument', `a secret is a Uint8Array of at most ${MAX_SECRET} bytes`);
  }
}

/** @throws AttestedError `invalid_argument` for `none`, MACs and everything else that is no signature algorithm */
export function assertSignatureAlgorithm(alg: unknown): asserts alg is SignatureAlgorithm {
  if (algorithmRow(alg) === undefined || !signatureAlgorithms.includes(alg as SignatureAlgorithm)) {
    throw new AttestedError('invalid_argument', 'the algorithm is not one of the signature algorithms');
  }
}

/** One label, one key: a request for another algorithm is a mistake of the caller's. @throws AttestedError `invalid_argument` */
export function assertSameAlgorithm(existing: SignatureAlgorithm, wanted: SignatureAlgorithm): void {
  if (existing !== wanted) {
    throw new AttestedError('invalid_argument', `the label already names a key for ${existing}, not for ${wanted}`);
  }
}
