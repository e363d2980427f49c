/** Concatenated serialization (ABCA -04 to -07 §6): both tokens in one text, for channels without HTTP headers. Pure. */
import { AttestedError } from '../errors.ts';

const JWT = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;

/** `<Client Attestation>~<PoP>`. @throws AttestedError `invalid_argument` (CAT-1) */
export function joinAttestation(attestation: string, pop: string): string {
  if (!JWT.test(attestation) || !JWT.test(pop)) {
    throw new AttestedError('invalid_argument', 'the concatenated form joins two compact JWTs', { rule: 'CAT-1' });
  }
  return `${attestation}~${pop}`;
}

/** The two tokens of the concatenated form, not verified. @throws AttestedError `invalid_client_attestation` (CAT-1) */
export function splitAttestation(text: string): { attestation: string; pop: string } {
  const parts = typeof text === 'string' ? text.split('~', 3) : [];
  const [attestation, pop] = parts;
  if (parts.length !== 2 || !JWT.test(attestation as string) || !JWT.test(pop as string)) {
    throw new AttestedError(
      'invalid_client_attestation',
      'the concatenated form is one attestation and one PoP with exactly one tilde between them',
      { rule: 'CAT-1' },
    );
  }
  return { attestation: attestation as string, pop: pop as string };
}
