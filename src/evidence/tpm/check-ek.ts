/** Check 2: does the operator believe in this endorsement key? */

import type { EndorsementKey } from '../../tpm2/device.ts';
import { verifyEkCertificateUnder } from '../../tpm2/ek-certificate.ts';
import { ekHash } from '../../tpm2/ek-hash.ts';
import type { EkQuirk } from '../../tpm2/ek-quirks.ts';
import { parsePublic } from '../../tpm2/public.ts';
import { soundKey } from '../../tpm2/refusal.ts';
import type { EvidenceContext } from '../protocol.ts';
import { judged, refuse } from './refusal.ts';
import type { TpmTrust } from './trust.ts';

/** Each is tolerated in a real certificate; all together are no EK certificate. */
const SAYS_NOTHING: readonly EkQuirk[] = ['no-eku', 'no-key-usage', 'no-san'];

/**
 * An EK counts when it is on the operator's list, or when its certificate leads to one of the operator's roots and is of this
 * very key; and in both cases only if the inventory, where there is one, has it. Made anew at each renewal, so that a key or
 * root that is taken off a list gets no further attestation.
 *
 * @returns the EK's hash
 */
export async function checkEndorsementKey(
  { publicArea, certificate, chain }: EndorsementKey,
  { clientId, now }: EvidenceContext,
  { anchors, allowEk, isInventoried }: TpmTrust,
): Promise<string> {
  const hash = judged(2, () => ekHash(soundKey(parsePublic(publicArea).publicJwk, 2).jwk));
  if (!allowEk.has(hash)) {
    if (certificate === undefined) {
      throw refuse('access_denied', 2, 'there is no EK certificate, and the EK is not on the list of those without');
    }
    const { quirks } = judged(2, () =>
      verifyEkCertificateUnder(anchors, certificate, { intermediates: chain, now: now(), ek: publicArea }),
    );
    // a maker's authority may sign other things too; with a key of such a one anybody can play a TPM
    if (SAYS_NOTHING.every((quirk) => quirks.includes(quirk))) {
      throw refuse('invalid_client_attestation', 2, 'the EK certificate says nowhere that it is one');
    }
  }
  if ((await isInventoried(hash, clientId)) !== true)
    throw refuse('access_denied', 2, 'the EK is not in the inventory');
  return hash;
}
