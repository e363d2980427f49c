/** Which evidence an agent brings to its attester. */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import type { Signer } from '../core/signer.ts';
import type { KeyStorage } from '../core/storage.ts';
import { AttestedError } from '../errors.ts';
import type { AttestationRequest } from '../evidence/protocol.ts';
import { proveSoftware } from '../evidence/software/prove.ts';
import { proveActivation, proveTpm } from '../evidence/tpm/prove.ts';
import type { KeyProvider } from '../keys/provider.ts';
import type { PcrSelection, TpmDevice } from '../tpm2/device.ts';
import { readNamedPcrs } from '../tpm2/named-pcrs.ts';

/** What the attester said with its challenge. */
export interface Offer {
  /** Kinds of evidence that it can check. */
  evidence: readonly string[];
  /** PCRs that `tpm` evidence has to quote, and whether the firmware's event log is wanted. */
  quote?: { pcrs: PcrSelection; eventLog: boolean };
}

export interface EvidenceInput {
  /** The attester's issuer URL. */
  attester: string;
  clientId: string;
  /** From the attester, used once. */
  challenge: string;
  enrolmentSigner: Signer;
  instanceSigner: Signer;
  /** What the key provider calls the two keys. */
  enrolmentLabel: string;
  instanceLabel: string;
  storage: KeyStorage;
  offer: Offer;
  /** In a second step: what the attester's answer to the first asks for. */
  next?: JsonObject;
  /** Milliseconds since the epoch. */
  now: () => number;
}

/** Makes the evidence for one request; asked a second time, with `next`, where the attester wants a further step. */
export type ProveEvidence = (input: EvidenceInput) => Promise<AttestationRequest['evidence']>;

/** Proof of possession of both keys: what every key backend can do. */
const softwareEvidence: ProveEvidence = ({ storage, ...input }) =>
  proveSoftware({
    ...input,
    // hardware is never stated on the agent's own word: that takes the TPM's evidence
    storage: storage === 'keychain' ? 'keychain' : 'software',
  }) as Promise<unknown> as Promise<AttestationRequest['evidence']>;

/** Proof by the TPM that both keys are in it. */
const tpmEvidence =
  (tpm: TpmDevice): ProveEvidence =>
  ({ next, offer, ...input }) =>
    next === undefined ? proveTpm({ ...input, tpm, quote: offer.quote }) : proveActivation({ ...input, tpm }, next);

/**
 * @param kind default: `tpm` where the keys are in one and the attester can check it, else `software`
 * @throws AttestedError `invalid_argument` for a kind that these keys do not have
 */
export function chooseEvidence(kind: 'tpm' | 'software' | ProveEvidence | undefined, keys: KeyProvider): ProveEvidence {
  if (typeof kind === 'function') return kind;
  if (kind !== undefined && kind !== 'tpm' && kind !== 'software') {
    throw new AttestedError('invalid_argument', 'evidence must be tpm, software or a function');
  }
  const { tpm } = keys;
  if (kind === 'tpm' && tpm === undefined) {
    throw new AttestedError('invalid_argument', 'evidence tpm needs keys in a TPM, from openKeys("tpm")');
  }
  if (kind === 'software' || tpm === undefined) return softwareEvidence;
  const byTpm = tpmEvidence(tpm);
  if (kind === 'tpm') return byTpm;
  return (input) => (input.offer.evidence.includes('tpm') ? byTpm(input) : softwareEvidence(input));
}

/** Attesters that say nothing check software evidence. */
const NO_OFFER: Offer = { evidence: ['software'] };
const MAX_KINDS = 16;

/** Reads the offer beside a challenge. @throws AttestedError `attester_unavailable` for one that makes no sense */
export function readOffer({ evidence, quote }: JsonObject): Offer {
  if (evidence === undefined) return NO_OFFER;
  if (!Array.isArray(evidence) || evidence.length > MAX_KINDS || !evidence.every((kind) => typeof kind === 'string')) {
    throw senseless();
  }
  const kinds = evidence as string[];
  if (quote === undefined) return { evidence: kinds };
  const pcrs = isJsonObject(quote) ? readNamedPcrs(quote.pcrs) : undefined;
  if (!isJsonObject(quote) || pcrs === undefined) throw senseless();
  return { evidence: kinds, quote: { pcrs, eventLog: quote.event_log === true } };
}

function senseless(): AttestedError {
  return new AttestedError(
    'attester_unavailable',
    'the client attester asks for evidence in a way that makes no sense',
  );
}
