/** Agent side of `tpm` evidence. Nothing in it says which server the instance key is for (PRIV-3). */
import { decodeBase64url } from '../../core/bytes.ts';
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { AttestedError } from '../../errors.ts';
import type { PcrSelection, TpmDevice } from '../../tpm2/device.ts';
import { type KeyProofInput, proveEnrolment, proveKeys } from '../key-proof/prove.ts';
import { activationFor, type Bound, extraDataFor } from './binding.ts';
import { textFrom, writeTpmEvidence } from './wire.ts';

export interface ProveTpmInput extends KeyProofInput {
  tpm: TpmDevice;
  /** Labels of the two keys, both in this TPM. */
  enrolmentLabel: string;
  instanceLabel: string;
  /** What the attester asks to be quoted. */
  quote?: { pcrs: PcrSelection; eventLog: boolean } | undefined;
}

type Evidence = { kind: 'tpm' } & JsonObject;

/**
 * Proves that both keys of an attestation request are in the TPM.
 *
 * @throws AttestedError `key_store_unavailable` while the TPM gives no answer, `key_not_found`, `invalid_argument`
 */
export async function proveTpm(input: ProveTpmInput): Promise<Evidence> {
  const { tpm, enrolmentLabel, instanceLabel, quote } = input;
  const bound = boundOf(input);
  const proofs = await proveKeys(input);
  const ek = await tpm.endorsementKey();
  const ak = await tpm.attestationKey();
  // one after the other: a TPM does one thing at a time, and the attester wants their clock in this order
  const enrolment = await tpm.certify(enrolmentLabel, extraDataFor('enrolment', bound));
  const instance = await tpm.certify(instanceLabel, extraDataFor('instance', bound));
  const quoted = quote && (await tpm.quote(quote.pcrs, extraDataFor('quote', bound)));
  const eventLog = quote?.eventLog ? await tpm.eventLog() : undefined;
  return writeTpmEvidence({
    ...proofs,
    ek,
    ak,
    enrolment,
    instance,
    quote: quoted && { ...quoted, eventLog },
  });
}

/**
 * Answers the attester's second step: has the TPM open the credential, and proves that it did.
 *
 * The TPM opens only what was made for its EK and this AK's Name, under a key derivation that serves nothing else, and what it
 * opened does not leave this function: an attester gets a digest that names itself. So neither this one nor another that
 * passes on its credentials can use the TPM to decrypt anything for it.
 *
 * @throws AttestedError `attester_unavailable` for a step that is not this one, and as {@link proveTpm}
 */
export async function proveActivation(input: ProveTpmInput, next: JsonObject): Promise<Evidence> {
  const credentialBlob = partOf(next, 'credential_blob');
  const encryptedSecret = partOf(next, 'encrypted_secret');
  const secret = await input.tpm.activate(credentialBlob, encryptedSecret);
  const activation = textFrom(activationFor(secret, boundOf(input)));
  return { kind: 'tpm', activation, enrolment_proof: await proveEnrolment(input) };
}

function boundOf({ attester, clientId, challenge, enrolmentSigner, instanceSigner }: ProveTpmInput): Bound {
  return {
    attester,
    clientId,
    challenge,
    enrolmentThumbprint: enrolmentSigner.thumbprint,
    instanceThumbprint: instanceSigner.thumbprint,
  };
}

/** Larger than any credential: RSA-4096 and SHA-512. */
const MAX_PART = 1024;

function partOf(next: JsonObject, name: string): Uint8Array {
  const text = isJsonObject(next) ? next[name] : undefined;
  const bytes = typeof text === 'string' && text.length <= MAX_PART * 2 ? decodeBase64url(text) : undefined;
  if (bytes === undefined || bytes.length === 0 || bytes.length > MAX_PART) {
    throw new AttestedError(
      'attester_unavailable',
      'the client attester asked for a step that is none of tpm evidence',
    );
  }
  return bytes;
}
