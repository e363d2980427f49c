/** What happens to an agent's identities in its ordinary life, for runtimes that show or count it. */
import type { RetryCode } from '../core/oauth-errors.ts';
import { type Listeners, openListeners } from './listeners.ts';

export type AgentEvent =
  /** An identity that the state did not know: new, or found again after the state was lost. */
  | { type: 'identity'; server: string; thumbprint: string; generation: number }
  /** A new attestation. */
  | {
      type: 'attestation';
      server: string;
      thumbprint: string;
      /** Seconds from now for which it is good. */
      lifetime: number;
      /** Milliseconds that getting it took. */
      duration: number;
    }
  /** A server's identity has a new key and attestation. */
  | { type: 'rotation'; server: string; thumbprint: string; generation: number }
  /** A server refused a request for want of this, and it was sent once more. */
  | { type: 'retry'; server: string; thumbprint: string; reason: RetryCode };

export type EventListener = (event: AgentEvent) => void;

export type Events = Listeners<AgentEvent>;

export function openEvents(): Events {
  return openListeners<AgentEvent>();
}
