/** What ties a TPM's statements, and the answer to its activation, to one request: digests over all that the request is about. */
import { createHash } from 'node:crypto';
import { utf8 } from '../../core/bytes.ts';

/** The request that a statement is for. */
export interface Bound {
  /** The attester's issuer. */
  attester: string;
  clientId: string;
  /** The attester's, fresh. */
  challenge: string;
  enrolmentThumbprint: string;
  instanceThumbprint: string;
}

/** One name per use, so that no statement can stand where another is asked for. */
const DOMAINS = {
  enrolment: 'attested tpm certify enrolment key v1',
  instance: 'attested tpm certify instance key v1',
  quote: 'attested tpm quote v1',
  activation: 'attested tpm activation v1',
} as const;

/** `extraData` of the statement: SHA-256 over the domain and what is bound, each part behind its length. */
export function extraDataFor(purpose: 'enrolment' | 'instance' | 'quote', bound: Bound): Uint8Array {
  const { challenge, attester, clientId, enrolmentThumbprint, instanceThumbprint } = bound;
  const texts = [DOMAINS[purpose], challenge, attester, clientId, enrolmentThumbprint, instanceThumbprint];
  return digestOf(texts.map(utf8));
}

/**
 * What the agent returns for a secret that its TPM has released. Not the secret itself: an attester that passes on another's
 * credential as its own would otherwise have the agent open it.
 */
export function activationFor(secret: Uint8Array, bound: Omit<Bound, 'challenge'>): Uint8Array {
  const { attester, clientId, enrolmentThumbprint, instanceThumbprint } = bound;
  const texts = [DOMAINS.activation, attester, clientId, enrolmentThumbprint, instanceThumbprint];
  return digestOf([...texts.map(utf8), secret]);
}

/** Without the lengths, two lists of parts could run into the same bytes. */
function digestOf(parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha256');
  for (const part of parts) {
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, part.length);
    hash.update(length).update(part);
  }
  return new Uint8Array(hash.digest());
}
