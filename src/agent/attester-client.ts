/** The instance's side of the conversation in evidence/protocol.ts. Nothing that is sent names a server (PRIV-3). */
import { parseAttestation } from '../core/attestation.ts';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { readPublicJwk, sameKey } from '../core/jwk.ts';
import { readErrorCode } from '../core/oauth-errors.ts';
import { type RevisionNumber, revisionOf } from '../core/revisions.ts';
import type { Signer } from '../core/signer.ts';
import type { KeyStorage } from '../core/storage.ts';
import { AttestedError } from '../errors.ts';
import { ATTESTER_PATHS, type AttestationRequest } from '../evidence/protocol.ts';
import { assertSafeUrl, type FetchedJson, type FetchLike, fetchJson } from '../platform/http.ts';
import { type EvidenceInput, type Offer, type ProveEvidence, readOffer } from './evidence.ts';

/** Where the attester is: its issuer URL, that with a fetch of its own, or the attester itself in this process. */
export type AttesterLocation =
  | string
  | { url: string; fetch?: FetchLike }
  | { issuer: string; handler(request: Request): Promise<Response> };

/** A key with the name that its provider knows it by. */
export interface NamedKey {
  label: string;
  signer: Signer;
}

export interface AttesterClient {
  /**
   * Gets one attestation for one instance key.
   *
   * @returns the attestation and the seconds for which it is good from now
   * @throws AttestedError `attester_refused` when the attester says no, `attester_unavailable` when it gives no usable answer
   */
  request(instance: NamedKey, enrolmentToken: string | undefined): Promise<{ attestation: string; lifetime: number }>;
}

export function openAttester(options: {
  attester: AttesterLocation;
  clientId: string;
  enrolment: NamedKey;
  storage: KeyStorage;
  prove: ProveEvidence;
  revision: RevisionNumber | undefined;
  now: () => number;
  /** Milliseconds for each exchange. */
  timeout: number;
}): AttesterClient {
  const { clientId, enrolment, storage, prove, now, timeout } = options;
  const { issuer, fetch } = locate(options.attester);
  const base = issuer.replace(/\/$/, '');
  const revision = revisionOf(options.revision);

  const post = (path: string, body: object): Promise<FetchedJson> =>
    fetchJson(
      base + path,
      { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
      { fetch, timeout },
    ).catch((cause: unknown) => {
      throw new AttestedError('attester_unavailable', 'the client attester could not be reached', { cause });
    });

  async function begin(): Promise<{ challenge: string; offer: Offer }> {
    const answer = await post(ATTESTER_PATHS.challenge, {});
    return { challenge: challengeIn(answer), offer: readOffer(answer.json ?? {}) };
  }

  async function ask(instance: NamedKey, enrolmentToken: string | undefined): Promise<FetchedJson> {
    const input: EvidenceInput = {
      attester: issuer,
      clientId,
      ...(await begin()),
      enrolmentSigner: enrolment.signer,
      enrolmentLabel: enrolment.label,
      instanceSigner: instance.signer,
      instanceLabel: instance.label,
      storage,
      now,
    };
    const send = async (step: EvidenceInput): Promise<FetchedJson> => {
      const evidence = await prove(step);
      const request: AttestationRequest = { client_id: clientId, challenge: step.challenge, evidence };
      if (enrolmentToken !== undefined) request.enrolment_token = enrolmentToken;
      return post(ATTESTER_PATHS.attestation, request);
    };
    const answer = await send(input);
    const next = answer.json?.next;
    // one further step, and no third: an attester must not keep a TPM at work
    if (answer.status !== 200 || !isJsonObject(next)) return answer;
    return send({ ...input, challenge: challengeIn(answer), next });
  }

  return {
    async request(instance, enrolmentToken) {
      let answer = await ask(instance, enrolmentToken);
      // the challenge may have run out while a slow key store was signing: once more, and no oftener
      if (errorCode(answer) === 'use_attestation_challenge') answer = await ask(instance, enrolmentToken);
      const attestation = answer.json?.attestation;
      if (answer.status !== 200 || typeof attestation !== 'string') throw failure(answer);
      return { attestation, lifetime: checkAnswer(attestation) };

      function checkAnswer(text: string): number {
        const seconds = Math.floor(now() / 1000);
        try {
          const parsed = parseAttestation(text, revision);
          const own = readPublicJwk(instance.signer.publicJwk, 'attester_unavailable', 'ATT-4');
          if (parsed.clientId === clientId && sameKey(parsed.instanceKey, own)) {
            // counted from iat where there is one: this machine's clock may differ from the attester's
            const lifetime = parsed.exp - (parsed.iat ?? seconds);
            if (lifetime > 0) return lifetime;
          }
        } catch (cause) {
          throw new AttestedError('attester_unavailable', 'the client attester gave a malformed attestation', {
            cause,
          });
        }
        throw new AttestedError('attester_unavailable', 'the client attester gave an attestation for something else', {
          rule: 'ATT-4',
        });
      }
    },
  };
}

function challengeIn(answer: FetchedJson): string {
  const value = answer.json?.challenge;
  if (answer.status !== 200 || typeof value !== 'string' || value === '') throw failure(answer);
  return value;
}

function locate(attester: AttesterLocation): { issuer: string; fetch: FetchLike | undefined } {
  if (typeof attester === 'string') return { issuer: assertIssuer(attester), fetch: undefined };
  if (typeof attester !== 'object' || attester === null || !('url' in attester || 'handler' in attester)) {
    throw new AttestedError('invalid_argument', 'attester must be a URL as text, { url, fetch }, or an attester');
  }
  if ('url' in attester) return { issuer: assertIssuer(attester.url), fetch: attester.fetch };
  return { issuer: attester.issuer, fetch: (input, init) => attester.handler(new Request(input, init)) };
}

function assertIssuer(url: string): string {
  assertSafeUrl(url);
  return url;
}

/** Errors of the attester that say "not you" rather than "not now"; everything else is worth another try. */
function failure(answer: FetchedJson): AttestedError {
  const { status } = answer;
  const refused = status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429;
  if (!refused) {
    return new AttestedError('attester_unavailable', `the client attester gave no usable answer (status ${status})`);
  }
  const code = errorCode(answer);
  // an OAuth error code is safe to repeat; whatever else the attester wrote is not ours to quote
  const named = code !== undefined && /^[a-z_]{1,40}$/.test(code) ? `: ${code}` : '';
  const hint = HINTS[code ?? ''] ?? 'its log says why';
  const message = `the client attester refused this instance (status ${status}${named}): ${hint}`;
  return new AttestedError('attester_refused', message);
}

/** What is most often wrong. The attester tells the reason to its own log only. */
const HINTS: Readonly<Record<string, string>> = {
  access_denied:
    'it is revoked, or new and its enrolmentToken missing, used or expired, or its clientId not in the policy, or its TPM not on ' +
    'the list of those that are believed',
  device_conflict: 'it is known by another TPM or AK; a new enrolment key and token are needed',
  invalid_client_attestation:
    'its evidence does not count; is the clock of this machine right, and the maker of its TPM on the list there?',
};

function errorCode(answer: { headers: Headers; json: JsonObject | undefined }): string | undefined {
  return readErrorCode(answer.headers.get('www-authenticate'), answer.json);
}
