/**
 * Evidence of kind `tpm` as JSON; bytes are base64url. Two key proofs as in software evidence, and what the TPM says:
 *
 *     { kind: 'tpm', enrolment_proof, key_proof,
 *       ek: { public, certificate?, chain? },              the endorsement key: TPMT_PUBLIC, DER
 *       ak: TPMT_PUBLIC,
 *       enrolment: { public, attest, signature },          TPM2_Certify by the AK of each of the two keys:
 *       instance: { public, attest, signature },           TPMT_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE
 *       quote?: { attest, signature, pcrs: { <bank>: { <pcr>: value } }, event_log? } }
 *
 * The first request of an instance is answered with `next`, `{ credential_blob, encrypted_secret }` of TPM2_MakeCredential,
 * and the next request's evidence is
 *
 *     { kind: 'tpm', activation, enrolment_proof }
 *
 * with {@link activationFor} of the secret, and a proof over the new challenge. It repeats nothing, so nothing can change
 * between the steps.
 */
import { decodeBase64url } from '../../core/bytes.ts';
import { isJsonObject, type JsonObject, type JsonValue } from '../../core/json.ts';
import { AttestedError } from '../../errors.ts';
import type { EndorsementKey, PcrBankName, PcrValues, SignedAttest } from '../../tpm2/device.ts';

export interface CertifiedKey extends SignedAttest {
  /** TPMT_PUBLIC. */
  publicArea: Uint8Array;
}

export interface QuotedPcrs extends SignedAttest {
  pcrs: PcrValues;
  eventLog: Uint8Array | undefined;
}

/** What a first request brings. */
export interface TpmEvidence {
  enrolment_proof: string;
  key_proof: string;
  ek: EndorsementKey;
  /** TPMT_PUBLIC. */
  ak: Uint8Array;
  enrolment: CertifiedKey;
  instance: CertifiedKey;
  quote: QuotedPcrs | undefined;
}

export interface ActivationEvidence {
  enrolment_proof: string;
  activation: Uint8Array;
}

/** Most bytes of each part: above what RSA-4096 and SHA-512 need, and what makers put into certificates. */
const MOST = { public: 1024, attest: 1024, signature: 1024, certificate: 8192, chain: 8, activation: 64, value: 64 };
const BANKS: readonly PcrBankName[] = ['sha1', 'sha256', 'sha384', 'sha512'];
const MOST_PCRS = 32;

/** @throws AttestedError `invalid_request` */
export function readTpmEvidence(evidence: JsonObject, maxEventLog: number): TpmEvidence {
  const required = ['kind', 'enrolment_proof', 'key_proof', 'ek', 'ak', 'enrolment', 'instance'];
  const { quote, ...given } = objectOf(evidence, 'evidence', required, ['quote']);
  return {
    enrolment_proof: textOf(given.enrolment_proof, 'enrolment_proof'),
    key_proof: textOf(given.key_proof, 'key_proof'),
    ek: readEk(given.ek),
    ak: bytesOf(given.ak, 'ak', MOST.public),
    enrolment: readCertified(given.enrolment, 'enrolment'),
    instance: readCertified(given.instance, 'instance'),
    quote: quote === undefined ? undefined : readQuoted(quote, maxEventLog),
  };
}

/** @throws AttestedError `invalid_request` */
export function readActivation(evidence: JsonObject): ActivationEvidence {
  const given = objectOf(evidence, 'evidence of the second step', ['kind', 'activation', 'enrolment_proof'], []);
  return {
    enrolment_proof: textOf(given.enrolment_proof, 'enrolment_proof'),
    activation: bytesOf(given.activation, 'activation', MOST.activation),
  };
}

function readEk(value: JsonValue | undefined): EndorsementKey {
  const { public: publicArea, certificate, chain = [] } = objectOf(value, 'ek', ['public'], ['certificate', 'chain']);
  if (!Array.isArray(chain) || chain.length > MOST.chain) {
    throw malformed(`ek.chain must be a list of at most ${MOST.chain} certificates`);
  }
  return {
    publicArea: bytesOf(publicArea, 'ek.public', MOST.public),
    certificate: certificate === undefined ? undefined : bytesOf(certificate, 'ek.certificate', MOST.certificate),
    chain: chain.map((der) => bytesOf(der, 'ek.chain', MOST.certificate)),
  };
}

function readCertified(value: JsonValue | undefined, name: string): CertifiedKey {
  const { public: publicArea, attest, signature } = objectOf(value, name, ['public', 'attest', 'signature'], []);
  return {
    publicArea: bytesOf(publicArea, `${name}.public`, MOST.public),
    attest: bytesOf(attest, `${name}.attest`, MOST.attest),
    signature: bytesOf(signature, `${name}.signature`, MOST.signature),
  };
}

function readQuoted(value: JsonValue, maxEventLog: number): QuotedPcrs {
  const given = objectOf(value, 'quote', ['attest', 'signature', 'pcrs'], ['event_log']);
  return {
    attest: bytesOf(given.attest, 'quote.attest', MOST.attest),
    signature: bytesOf(given.signature, 'quote.signature', MOST.signature),
    pcrs: readPcrs(given.pcrs),
    eventLog: given.event_log === undefined ? undefined : bytesOf(given.event_log, 'quote.event_log', maxEventLog),
  };
}

function readPcrs(value: JsonValue | undefined): PcrValues {
  const pcrs: PcrValues = {};
  for (const [bank, values] of Object.entries(objectOf(value, 'quote.pcrs', [], BANKS))) {
    if (!isJsonObject(values)) throw malformed('quote.pcrs must be values by bank and PCR');
    const read: Record<number, Uint8Array> = {};
    for (const [pcr, text] of Object.entries(values)) {
      if (!/^(0|[1-9]\d?)$/.test(pcr) || Number(pcr) >= MOST_PCRS) throw malformed('quote.pcrs names what is no PCR');
      read[Number(pcr)] = bytesOf(text, 'quote.pcrs', MOST.value);
    }
    pcrs[bank as PcrBankName] = read;
  }
  return pcrs;
}

/** What a first request says, as JSON. */
export function writeTpmEvidence(evidence: TpmEvidence): { kind: 'tpm' } & JsonObject {
  const { enrolment_proof, key_proof, ek, ak, enrolment, instance, quote } = evidence;
  return {
    kind: 'tpm',
    enrolment_proof,
    key_proof,
    ek: {
      public: textFrom(ek.publicArea),
      ...(ek.certificate && { certificate: textFrom(ek.certificate) }),
      ...(ek.chain.length > 0 && { chain: ek.chain.map(textFrom) }),
    },
    ak: textFrom(ak),
    enrolment: writeCertified(enrolment),
    instance: writeCertified(instance),
    ...(quote && { quote: writeQuoted(quote) }),
  };
}

function writeCertified({ publicArea, attest, signature }: CertifiedKey): JsonObject {
  return { public: textFrom(publicArea), attest: textFrom(attest), signature: textFrom(signature) };
}

function writeQuoted({ attest, signature, pcrs, eventLog }: QuotedPcrs): JsonObject {
  const banks = Object.entries(pcrs).map(([bank, values]) => [
    bank,
    Object.fromEntries(Object.entries(values).map(([pcr, value]) => [pcr, textFrom(value)])),
  ]);
  return {
    attest: textFrom(attest),
    signature: textFrom(signature),
    pcrs: Object.fromEntries(banks),
    ...(eventLog && { event_log: textFrom(eventLog) }),
  };
}

/** The engine's own codec: an event log is long. */
export function textFrom(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64url');
}

/** Exactly the members named: what nobody reads, nobody has checked. */
function objectOf(
  value: JsonValue | undefined,
  name: string,
  required: readonly string[],
  optional: readonly string[],
): JsonObject {
  if (!isJsonObject(value)) throw malformed(`${name} must be an object`);
  const missing = required.find((member) => value[member] === undefined);
  if (missing !== undefined) throw malformed(`${name} needs ${missing}`);
  if (!Object.keys(value).every((member) => required.includes(member) || optional.includes(member))) {
    throw malformed(`${name} has a member that does not belong there`);
  }
  return value;
}

function textOf(value: JsonValue | undefined, name: string): string {
  if (typeof value !== 'string') throw malformed(`${name} must be a string`);
  return value;
}

/** @param most bytes */
export function bytesOf(value: JsonValue | undefined, name: string, most: number): Uint8Array {
  // measured before it is decoded
  if (typeof value !== 'string' || value === '' || value.length > Math.ceil((most * 4) / 3)) {
    throw malformed(`${name} must be base64url of 1 to ${most} bytes`);
  }
  const bytes = decodeBase64url(value);
  if (bytes === undefined) throw malformed(`${name} must be base64url`);
  return bytes;
}

function malformed(why: string): AttestedError {
  return new AttestedError('invalid_request', `tpm evidence: ${why}`, { rule: 'TPM attestation 1' });
}
