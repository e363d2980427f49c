/** The HTTP fields of ABCA (§4, §5, §6.2) and DPoP, read from whatever shape the server's framework gives. Pure. */
import { AttestedError } from '../errors.ts';

export const ATTESTATION_HEADER = 'OAuth-Client-Attestation';
export const POP_HEADER = 'OAuth-Client-Attestation-PoP';
export const CHALLENGE_HEADER = 'OAuth-Client-Attestation-Challenge';
export const DPOP_HEADER = 'DPoP';
export const DPOP_NONCE_HEADER = 'DPoP-Nonce';

/**
 * Request headers in any usual shape. Repeated fields are seen in each: as two entries, as an array, or joined by a
 * comma, which is how web `Headers` and Node's `req.headers` show them (the fields read here never contain a comma).
 */
export type HeadersInput =
  | Iterable<readonly [string, string]>
  | readonly string[] // Node's flat rawHeaders: name, value, name, value, …
  | Readonly<Record<string, string | readonly string[] | undefined>>;

export interface AttestationFields {
  attestation: string | undefined;
  pop: string | undefined;
  dpop: string | undefined;
  authorization: string | undefined;
}

/** The fields by the length of their names, which all differ: most fields of a request are so passed over at once. */
const WANTED: Readonly<Record<number, { name: string; field: keyof AttestationFields }>> = Object.fromEntries(
  (
    [
      [ATTESTATION_HEADER, 'attestation'],
      [POP_HEADER, 'pop'],
      [DPOP_HEADER, 'dpop'],
      ['Authorization', 'authorization'],
    ] as const
  ).map(([name, field]) => [name.length, { name: name.toLowerCase(), field }]),
);

/**
 * Reads the fields that concern client attestation; each may be there once at most.
 *
 * @throws AttestedError `invalid_client_attestation` (VER-1, ATT-9, POP-8) or `invalid_dpop_proof` (RFC 9449 §4.3 step 1)
 *   when a field is empty, repeated or comma-joined; `invalid_argument` for what is no headers at all
 */
export function readAttestationFields(headers: HeadersInput): AttestationFields {
  if (typeof headers !== 'object' || headers === null) throw notHeaders();
  const found: AttestationFields = {
    attestation: undefined,
    pop: undefined,
    dpop: undefined,
    authorization: undefined,
  };
  if (Array.isArray(headers) && typeof headers[0] === 'string') {
    for (let i = 0; i + 1 < headers.length; i += 2) take(headers[i] as string, headers[i + 1] as string, found);
  } else if (Symbol.iterator in headers) {
    for (const pair of headers as Iterable<readonly [string, string]>) {
      if (!Array.isArray(pair)) throw notHeaders();
      take(pair[0], pair[1], found);
    }
  } else {
    for (const name of Object.keys(headers)) {
      const value = (headers as Record<string, string | readonly string[] | undefined>)[name];
      if (typeof value === 'string') take(name, value, found);
      else if (value !== undefined && value !== null) for (const item of [value].flat()) take(name, item, found);
    }
  }
  return found;
}

function take(name: string, value: string, found: AttestationFields): void {
  const wanted = typeof name === 'string' ? WANTED[name.length] : undefined;
  if (wanted === undefined || name.toLowerCase() !== wanted.name) return;
  const { field } = wanted;
  if (found[field] !== undefined) throw repeated(field);
  // some frameworks' values are not what their types say
  if (typeof value !== 'string') throw repeated(field);
  // an Authorization value may hold commas; the others are one token68 each
  if (field !== 'authorization' && (value === '' || value.includes(','))) throw repeated(field);
  found[field] = value;
}

function notHeaders(): AttestedError {
  return new AttestedError('invalid_argument', 'request headers are Headers, pairs, rawHeaders or a record');
}

function repeated(field: keyof AttestationFields): AttestedError {
  const why = 'must be sent exactly once, with one value';
  switch (field) {
    case 'attestation':
      return new AttestedError('invalid_client_attestation', `${ATTESTATION_HEADER} ${why}`, { rule: 'VER-1' });
    case 'pop':
      return new AttestedError('invalid_client_attestation', `${POP_HEADER} ${why}`, { rule: 'POP-8' });
    case 'dpop':
      return new AttestedError('invalid_dpop_proof', `${DPOP_HEADER} ${why}`, { rule: 'DPOP-1' });
    case 'authorization':
      return new AttestedError('invalid_request', `Authorization ${why}`, { rule: 'RFC 9110 §11.6.2' });
  }
}
