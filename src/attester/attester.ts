/** The Client Attester: checks evidence, applies a policy, issues Client Attestations and revokes them. */
import type { JsonWebKey, Signer } from '../core/signer.ts';
import { AttestedError } from '../errors.ts';
import { evidenceCheck } from '../evidence/index.ts';
import { ATTESTER_PATHS } from '../evidence/protocol.ts';
import { readTpmTrust, type TpmTrustOptions } from '../evidence/tpm/trust.ts';
import { sha256Base64url } from '../platform/crypto.ts';
import { assertSafeUrl } from '../platform/http.ts';
import { createChallenges, randomSecret } from './challenges.ts';
import { type AttesterLog, safeLog } from './events.ts';
import { createHandler, STATUS_LIST } from './handler.ts';
import { memoryStore } from './memory-store.ts';
import { type AttesterPolicy, readPolicy } from './policy.ts';
import { signerSet } from './signers.ts';
import { createStatusLists, type StatusListOptions } from './status.ts';
import type { AttesterStore, Instance, RevocationTarget } from './store.ts';

export interface AttesterOptions {
  /** URL under which agents and servers reach this attester; no trailing slash, query or fragment. */
  issuer: string;
  /** The attester's keys: the first signs, all are published at `<issuer>/jwks`. */
  signer: Signer | readonly Signer[];
  policy: AttesterPolicy;
  /** Whom TPM evidence is believed from. Default: nobody, so that no attestation says `hardware`. */
  tpm?: TpmTrustOptions;
  /** Default: memory, which a restart empties. */
  store?: AttesterStore;
  /** `false`: attestations carry no status and end only by `exp`. */
  statusList?: StatusListOptions | false;
  challenges?: {
    /** Seconds. Default 60. */
    ttl?: number;
    /** Most outstanding at once. Default 100000. */
    max?: number;
  };
  log?: AttesterLog;
  /** Milliseconds since the epoch. Default `Date.now`. */
  now?: () => number;
}

export interface EnrolmentTokenRequest {
  clientId: string;
  /** Seconds, to 30 days. Default 3600. */
  ttl?: number;
  /** The operator's name for the instance. Servers never see it. */
  instanceName?: string;
}

export interface Attester {
  readonly issuer: string;
  /** Serves the paths of `evidence/protocol.ts` below the issuer's own path. Never rejects. */
  handler(this: void, request: Request): Promise<Response>;
  /**
   * A secret that lets one instance enrol, once. Only its hash is kept.
   * @throws AttestedError `invalid_argument` when the client has no policy, or one that does not let tokens enrol; `store_unavailable`
   */
  createEnrolmentToken(request: EnrolmentTokenRequest): Promise<string>;
  /**
   * Revokes an instance for good: it gets no further attestation, and all its unexpired ones are marked in the status
   * list. A thumbprint may be that of its enrolment key or of any of its instance keys, as a server's log has it.
   *
   * @returns false when there is no such instance
   * @throws AttestedError `store_unavailable`
   */
  revoke(target: RevocationTarget): Promise<boolean>;
  /** All instances that ever enrolled. @throws AttestedError `store_unavailable` */
  instances(): Promise<Instance[]>;
  /** The public keys, as published. */
  jwks(): { keys: JsonWebKey[] };
  /**
   * Changes the keys. For a roll-over without a gap: first `[old, new]`, after the time servers cache the JWK Set
   * (5 minutes) `[new, old]`, and `[new]` when the last attestation by the old key has expired.
   */
  useSigners(signers: Signer | readonly Signer[]): void;
  /** Closes the store. The handler answers 503 from then on. */
  close(): Promise<void>;
}

const MAX_TOKEN_TTL = 30 * 24 * 3600;

/** @throws AttestedError `invalid_argument` */
export function createAttester(options: AttesterOptions): Attester {
  const { issuer, store = memoryStore(), now = Date.now, challenges: { ttl = 60, max = 100_000 } = {} } = options;
  assertIssuer(issuer);
  const signers = signerSet(options.signer);
  const tpm = options.tpm && readTpmTrust(options.tpm);
  const policyOf = readPolicy(options.policy, tpm);
  const log = safeLog(options.log);
  const challenges = createChallenges({ store, now, ttl, max });
  const uri = `${issuer}${ATTESTER_PATHS.status}/${STATUS_LIST}`;
  const statusLists =
    options.statusList === false ? undefined : createStatusLists({ uri, store, signers, now }, options.statusList);
  const seconds = (): number => Math.floor(now() / 1000);

  return {
    issuer,
    handler: createHandler({
      issuer,
      store,
      signers,
      challenges,
      policyOf,
      checkOf: evidenceCheck,
      tpm,
      statusLists,
      log,
      now,
    }),
    async createEnrolmentToken({ clientId, ttl = 3600, instanceName }) {
      const policy = await policyOf(clientId);
      if (policy === undefined) throw new AttestedError('invalid_argument', 'the policy has no entry for this client');
      if (!policy.tokens) {
        throw new AttestedError('invalid_argument', 'the policy of this client lacks enrolment: { tokens: true }');
      }
      if (!Number.isSafeInteger(ttl) || ttl < 1 || ttl > MAX_TOKEN_TTL) {
        throw new AttestedError('invalid_argument', `an enrolment token lasts 1 to ${MAX_TOKEN_TTL} seconds`);
      }
      const token = randomSecret();
      const at = seconds();
      await store.putToken({ hash: sha256Base64url(token), clientId, name: instanceName, expiresAt: at + ttl }, at);
      return token;
    },
    async revoke(target) {
      const instance = await store.revoke(target, seconds());
      if (instance === undefined) return false;
      statusLists?.renew();
      log({ type: 'revoked', instance });
      return true;
    },
    instances: () => store.instances(),
    jwks: signers.jwks,
    useSigners: (next) => {
      signers.use(next);
      statusLists?.renew();
    },
    close: () => store.close(),
  };
}

function assertIssuer(issuer: string): void {
  const { search, hash } = assertSafeUrl(issuer);
  if (search !== '' || hash !== '' || /[/?#]$/.test(issuer)) {
    throw new AttestedError('invalid_argument', 'an issuer has no trailing slash, query or fragment');
  }
}
