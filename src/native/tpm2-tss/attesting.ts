/** What an attestation key and an endorsement key do: certify, quote, make and activate a credential. */
import { type Context, NONE } from './context.ts';
import { OWN_SCHEME } from './objects.ts';
import type { Esys } from './types.ts';
import { pcrSelection, sized, unsized } from './wire.ts';

const both = { command: true, response: true };

export function attestingCommands({
  exclusively,
}: Context): Pick<Esys, 'certify' | 'quote' | 'activateCredential' | 'makeCredential'> {
  return {
    certify: (object, ak, qualifyingData, { objectAuth, akAuth } = {}) =>
      exclusively(async (io) => {
        const attest = io.result();
        const signature = io.result();
        const auths = [
          { object, auth: objectAuth },
          { object: ak, auth: akAuth },
        ];
        await io.call(
          'Esys_Certify',
          object,
          ak,
          ...io.sessions(both, auths),
          io.input('TPM2B_DATA', sized(qualifyingData)),
          io.input('TPMT_SIG_SCHEME', OWN_SCHEME),
          attest,
          signature,
        );
        return {
          attest: unsized(io.output('TPM2B_ATTEST', attest)),
          signature: io.output('TPMT_SIGNATURE', signature),
        };
      }),

    quote: (ak, qualifyingData, selection, { akAuth } = {}) =>
      exclusively(async (io) => {
        const attest = io.result();
        const signature = io.result();
        await io.call(
          'Esys_Quote',
          ak,
          ...io.sessions(both, [{ object: ak, auth: akAuth }]),
          io.input('TPM2B_DATA', sized(qualifyingData)),
          io.input('TPMT_SIG_SCHEME', OWN_SCHEME),
          io.input('TPML_PCR_SELECTION', pcrSelection(selection)),
          attest,
          signature,
        );
        return {
          attest: unsized(io.output('TPM2B_ATTEST', attest)),
          signature: io.output('TPMT_SIGNATURE', signature),
        };
      }),

    activateCredential: (object, key, credentialBlob, secret, { objectAuth, keyAuth } = {}) =>
      exclusively(async (io) => {
        const credential = io.result();
        const auths = [
          { object, auth: objectAuth },
          { object: key, auth: keyAuth },
        ];
        await io.call(
          'Esys_ActivateCredential',
          object,
          key,
          ...io.sessions(both, auths),
          io.input('TPM2B_ID_OBJECT', sized(credentialBlob)),
          io.input('TPM2B_ENCRYPTED_SECRET', sized(secret)),
          credential,
        );
        return unsized(io.output('TPM2B_DIGEST', credential));
      }),

    makeCredential: (key, credential, objectName) =>
      exclusively(async (io) => {
        const blob = io.result();
        const secret = io.result();
        await io.call(
          'Esys_MakeCredential',
          key,
          ...[NONE, NONE, NONE],
          io.input('TPM2B_DIGEST', sized(credential)),
          io.input('TPM2B_NAME', sized(objectName)),
          blob,
          secret,
        );
        return {
          credentialBlob: unsized(io.output('TPM2B_ID_OBJECT', blob)),
          secret: unsized(io.output('TPM2B_ENCRYPTED_SECRET', secret)),
        };
      }),
  };
}
