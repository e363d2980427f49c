/** `attested/attester`: the Client Attester. */

export type { KeyEvidence, KeyStorage } from '../core/storage.ts';
export type { DeviceStatement } from '../evidence/protocol.ts';
export type { ClockAfterReset, TpmClock } from '../evidence/tpm/clock.ts';
export type { PcrPins, ProvedLog, TpmTrustOptions } from '../evidence/tpm/trust.ts';
export { readCertificateFiles } from '../platform/certificate-files.ts';
export {
  type Attester,
  type AttesterOptions,
  createAttester,
  type EnrolmentTokenRequest,
} from './attester.ts';
export type { AttesterEvent, AttesterLog } from './events.ts';
export { memoryStore } from './memory-store.ts';
export type { AttesterPolicy, ClientPolicy } from './policy.ts';
export { type SelfAttesterOptions, selfAttester } from './self.ts';
export { type SqliteStoreOptions, sqliteStore } from './sqlite-store.ts';
export type { StatusListOptions } from './status.ts';
export type {
  AttesterStore,
  Instance,
  IssueOutcome,
  IssueRefusal,
  IssueRequest,
  NewToken,
  RevocationTarget,
} from './store.ts';
