/** What the agent has to say to its operator without failing. */
import { openListeners } from './listeners.ts';

export type AgentWarningCode =
  /** One key, attestation, or other thing that links is about to be seen by a second server (PRIV-2). */
  | 'tracking'
  /** A claim of the attestation looks unique to this device, instance or user, and is about to be shown. Once per claim. */
  | 'identifying_claim'
  /** The client_id looks unique to this instance, and is about to be shown. Once. */
  | 'identifying_client_id'
  /** Attestations of two identities have one status entry, and the second is about to be shown. */
  | 'status_reused'
  /** The attestation headers are larger than the budget (IMPL-3). */
  | 'header_budget'
  /** A server answered 431 (IMPL-3). */
  | 'header_refused'
  /** An MCP client authenticates through the agent, but its requests do not go through the agent's fetch. */
  | 'fetch_unused'
  /** An attestation could not be renewed ahead of time; the old one is still good. */
  | 'renewal_failed'
  /** The state file was unreadable and has been set aside, or could not be written. */
  | 'state';

/** By what servers could tell that they serve the same agent. */
export interface TrackingLink {
  kind: 'key' | 'attestation' | 'claim' | 'client_id' | 'status';
  /** The key's thumbprint, the attestation's SHA-256, the claim's path, the client_id, the status list's place. */
  name: string;
}

export interface AgentWarning {
  code: AgentWarningCode;
  /** For people. Names servers, never tokens or keys. */
  message: string;
  /** The servers concerned, if any. */
  servers?: readonly string[];
  /** RFC 7638 thumbprint of the key concerned, if any: public, and the thing that links. */
  thumbprint?: string;
  /** What links the servers. */
  links?: readonly TrackingLink[];
  /** What would keep them apart: the option to set, or whom to ask. */
  remedy?: string;
}

export type WarningListener = (warning: AgentWarning) => void;

export interface Warnings {
  emit(warning: AgentWarning): void;
  /** @returns a function that takes the listener away again */
  on(listener: WarningListener): () => void;
}

/** Warnings go to every listener, and to the process's own warnings while nobody listens. */
export function openWarnings(first?: WarningListener): Warnings {
  const listeners = openListeners<AgentWarning>(first);
  return {
    emit(warning) {
      if (listeners.size() === 0) process.emitWarning(warning.message, { type: 'AttestedWarning', code: warning.code });
      listeners.emit(warning);
    },
    on: listeners.on,
  };
}
