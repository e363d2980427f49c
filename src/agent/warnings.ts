/** What the agent has to say to its operator without failing. */

export type AgentWarningCode =
  /** One key or attestation is about to be seen by a second server (PRIV-2). */
  | 'tracking'
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

export interface AgentWarning {
  code: AgentWarningCode;
  /** For people. Names servers, never tokens or keys. */
  message: string;
  /** The servers concerned, if any. */
  servers?: readonly string[];
  /** RFC 7638 thumbprint of the key concerned, if any: public, and the thing that links. */
  thumbprint?: string;
}

export type WarningListener = (warning: AgentWarning) => void;

export interface Warnings {
  emit(warning: AgentWarning): void;
  /** @returns a function that takes the listener away again */
  on(listener: WarningListener): () => void;
}

/** Warnings go to every listener, and to the process's own warnings while nobody listens. A listener's fault stays its own. */
export function openWarnings(first?: WarningListener): Warnings {
  const listeners = new Set<WarningListener>(first === undefined ? [] : [first]);
  return {
    emit(warning) {
      if (listeners.size === 0) process.emitWarning(warning.message, { type: 'AttestedWarning', code: warning.code });
      for (const listener of listeners) {
        try {
          listener(warning);
        } catch {
          // a broken log must not break a request
        }
      }
    },
    on(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
