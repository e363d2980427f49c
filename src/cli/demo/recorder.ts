/** Keeps copies of what goes over the wire, as a proxy with a careless log would. The demo's attacks start from them. */
import { decodeJwt } from 'jose';
import { ATTESTER_PATHS, type AttestationRequest } from '../../evidence/protocol.ts';
import type { FetchLike } from '../../platform/http.ts';
import type { AttesterExchange, RecordedRequest } from './protocol.ts';

export interface Recorder {
  fetch: FetchLike;
  /** The last request to a URL that succeeded and had this in its body. */
  last(url: string, containing: string): RecordedRequest | undefined;
}

export function recordingFetch(): Recorder {
  const seen: RecordedRequest[] = [];
  return {
    async fetch(input, init = {}) {
      const response = await fetch(input, init);
      const headers = [...new Headers(init.headers)];
      const body = init.body === undefined || init.body === null ? '' : String(init.body);
      if (response.ok) seen.push({ url: String(input), method: init.method ?? 'GET', headers, body });
      return response;
    },
    last: (url, containing) => seen.findLast((request) => request.url === url && request.body.includes(containing)),
  };
}

export interface Exchanges {
  fetch: FetchLike;
  /** Those since the last time. */
  take(): AttesterExchange[];
}

/** Notes what evidence an agent sends to its attester, and what comes back; not the evidence itself. */
export function exchangesFetch(): Exchanges {
  let seen: AttesterExchange[] = [];
  return {
    async fetch(input, init = {}) {
      const response = await fetch(input, init);
      if (new URL(String(input)).pathname.endsWith(ATTESTER_PATHS.attestation)) {
        seen.push(exchangeOf(String(init.body), response.status, (await response.clone().json()) as AttesterAnswer));
      }
      return response;
    },
    take() {
      const taken = seen;
      seen = [];
      return taken;
    },
  };
}

interface AttesterAnswer {
  next?: unknown;
  attestation?: string;
}

function exchangeOf(body: string, status: number, answer: AttesterAnswer): AttesterExchange {
  const { evidence, enrolment_token } = JSON.parse(body) as AttestationRequest;
  const ek = evidence.ek as { certificate?: unknown } | undefined;
  const claims = answer.attestation === undefined ? undefined : decodeJwt(answer.attestation);
  return {
    status,
    evidence: evidence.kind,
    withToken: enrolment_token !== undefined,
    withCertificate: ek?.certificate !== undefined,
    asksActivation: answer.next !== undefined,
    bringsActivation: evidence.activation !== undefined,
    ...(claims && { keyStorage: String(claims.key_storage), keyEvidence: String(claims.key_evidence) }),
  };
}
