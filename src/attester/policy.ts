/** What an attester grants to each client. Nothing is granted that is not written here. */
import type { JsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import { evidenceKinds } from '../evidence/index.ts';
import { type PcrPins, type ReadPins, readPcrPins, type TpmTrust } from '../evidence/tpm/trust.ts';

export interface ClientPolicy {
  /** Lifetime of an attestation in seconds, 1 to 604800. Default 3600. */
  lifetime?: number;
  /**
   * Kinds of evidence that are accepted, `software` and `tpm`. Default: all that the attester can check, so `tpm` where it
   * has `tpm` configured. An instance that has proved a TPM once is never again accepted with less.
   */
  evidence?: readonly string[];
  /**
   * PCR values that a quote must show, from among `createAttester({ tpm: { quote: { pcrs } } })`: bank → PCR → accepted
   * values, hexadecimal. They change with updates of the firmware; judging the event log (`quote.check`) lasts longer.
   */
  pcrs?: PcrPins;
  /** Further claims of this client's attestations, the same in all of them. None that the attester itself writes. */
  claims?: JsonObject;
  /** How an instance of this client may enrol. Default: not at all. */
  enrolment?: {
    /** By a one-time token from `createEnrolmentToken`. Instances stay enrolled when this is switched off. */
    tokens?: boolean;
    /**
     * By being listed: thumbprints of enrolment keys. An instance that enrolled this way is refused once it is taken off.
     * `'any'` lets everybody in who can reach the attester: for an attester inside the agent's own process.
     */
    allow?: readonly string[] | 'any';
  };
  /** Most instance keys with an unexpired attestation, so about the number of servers at once. Default 100. */
  maxKeysPerInstance?: number;
  /** Most unexpired attestations of one instance; each takes an entry of the status list. Default 1000. */
  maxAttestationsPerInstance?: number;
}

/** By client_id: a table, or a function that gives undefined for a client it does not know. */
export type AttesterPolicy =
  | { clients: Readonly<Record<string, ClientPolicy>> }
  | ((clientId: string) => ClientPolicy | undefined | Promise<ClientPolicy | undefined>);

export interface GrantedPolicy {
  lifetime: number;
  evidence: readonly string[];
  pcrs: ReadPins | undefined;
  claims: JsonObject;
  tokens: boolean;
  isAllowed: (enrolmentThumbprint: string) => boolean;
  maxKeys: number;
  maxAttestations: number;
}

export type PolicyReader = (clientId: string) => Promise<GrantedPolicy | undefined>;

const MAX_LIFETIME = 7 * 24 * 3600;

/** Claims with a meaning in the protocol, or by which two servers could tell that they talk to one instance (PRIV-1). */
const RESERVED_CLAIMS = [
  'iss',
  'sub',
  'aud',
  'exp',
  'nbf',
  'iat',
  'jti',
  'cnf',
  'status',
  'key_storage',
  'key_evidence',
];

/**
 * Makes the policy a look-up, and judges a table as a whole now.
 *
 * @param tpm what the attester believes of TPMs, so what a policy can ask for
 * @throws AttestedError `invalid_argument`
 */
export function readPolicy(policy: AttesterPolicy, tpm?: TpmTrust): PolicyReader {
  if (typeof policy === 'function') {
    return async (clientId) => {
      const found = await policy(clientId);
      return found && grant(found, tpm);
    };
  }
  if (typeof policy?.clients !== 'object' || Array.isArray(policy.clients))
    throw invalid('it is a table { clients: { … } } or a function');
  const clients = new Map(Object.entries(policy.clients).map(([clientId, client]) => [clientId, grant(client, tpm)]));
  return async (clientId) => clients.get(clientId);
}

const MEMBERS: readonly string[] = [
  'lifetime',
  'evidence',
  'pcrs',
  'claims',
  'enrolment',
  'maxKeysPerInstance',
  'maxAttestationsPerInstance',
] satisfies (keyof ClientPolicy)[];

function grant(policy: ClientPolicy, tpm: TpmTrust | undefined): GrantedPolicy {
  // a limit that is misspelt must not be no limit
  if (!Object.keys(policy).every((name) => MEMBERS.includes(name))) {
    throw invalid(`a client has the members ${MEMBERS.join(', ')}, and no others`);
  }
  const kinds = evidenceKinds(tpm);
  const { lifetime = 3600, evidence = kinds, claims = {}, enrolment = {} } = policy;
  const { maxKeysPerInstance = 100, maxAttestationsPerInstance = 1000 } = policy;
  const { tokens = false, allow = [] } = enrolment;
  if (!isCount(lifetime) || lifetime > MAX_LIFETIME) throw invalid(`a lifetime is 1 to ${MAX_LIFETIME} seconds`);
  if (!isCount(maxKeysPerInstance) || !isCount(maxAttestationsPerInstance))
    throw invalid('a maximum is a whole number from 1');
  if (!evidence.every((kind) => kinds.includes(kind))) {
    throw invalid(`evidence names a kind that this attester cannot check: it has ${kinds.join(', ')}`);
  }
  const pcrs = policy.pcrs && readPcrPins(policy.pcrs, tpm?.quote?.pcrs);
  // software evidence has no PCRs to be judged by
  if (pcrs !== undefined && (policy.evidence === undefined || evidence.some((kind) => kind !== 'tpm'))) {
    throw invalid("pcrs needs evidence: ['tpm'], or software evidence would pass without them");
  }
  if (Object.keys(claims).some((name) => RESERVED_CLAIMS.includes(name))) {
    throw invalid(`claims may not contain ${RESERVED_CLAIMS.join(', ')}`);
  }
  const listed = new Set(allow === 'any' ? [] : allow);
  return {
    lifetime,
    evidence,
    pcrs,
    claims: structuredClone(claims),
    tokens,
    isAllowed: (thumbprint) => allow === 'any' || listed.has(thumbprint),
    maxKeys: maxKeysPerInstance,
    maxAttestations: maxAttestationsPerInstance,
  };
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1;
}

function invalid(why: string): AttestedError {
  return new AttestedError('invalid_argument', `attester policy: ${why}`);
}
