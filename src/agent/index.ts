/** `attested/agent`: the client instance. */
export type { PopMethod } from '../core/metadata.ts';
export type { RetryCode } from '../core/oauth-errors.ts';
export type { AttestationRequest } from '../evidence/protocol.ts';
export type { FetchLike } from '../platform/http.ts';
export {
  type Agent,
  type AgentFetch,
  type AgentNews,
  type AgentOptions,
  createAgent,
  type DpopSession,
  type IdentityInfo,
} from './agent.ts';
export type { ForeignTokens } from './artifacts.ts';
export type { AttesterLocation } from './attester-client.ts';
export type { Correlation, Correlations } from './correlations.ts';
export type { AgentEvent, EventListener } from './events.ts';
export type { EvidenceInput, Offer, ProveEvidence } from './evidence.ts';
export type { Presenter } from './presenter.ts';
export type { TrackingMode } from './tracking.ts';
export type { AgentWarning, AgentWarningCode, TrackingLink, WarningListener } from './warnings.ts';
