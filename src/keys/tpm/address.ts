/** What a helper is told of its TPM. */
import { srkTemplate } from '../../tpm2/templates.ts';
import type { TpmAddress } from './protocol.ts';
import type { Tcti } from './tcti.ts';

export function addressOf({ tcti, managed }: Tcti): TpmAddress {
  const [ecc, rsa] = [srkTemplate('ecc'), srkTemplate('rsa')];
  // at the end of the template stands `unique`: a point of two sized coordinates, or a sized modulus
  const srkPrefixes = [ecc.slice(0, -2 * (2 + 32)), rsa.slice(0, -(2 + 256))];
  return { tcti, managed, srkTemplate: ecc, srkPrefixes };
}
