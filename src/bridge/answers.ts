/** Which requests have not been answered yet. */
import type { JsonObject } from '../core/json.ts';
import { keyOf, type MessageId, type Request } from './message.ts';

export interface Waiting {
  method: string;
  /** Takes the response to a request of the bridge's own. */
  resolve?: ((response: JsonObject) => void) | undefined;
  /** Of protocol version 2026-07-28 or newer. */
  modern: boolean;
  /** Ends the exchange that the request is in. */
  stop?: AbortController | undefined;
}

export interface Answers {
  expect(request: Request, waiting: Omit<Waiting, 'method'>): void;
  has(id: MessageId): boolean;
  /** Who waits for it, and does no longer. */
  take(id: MessageId): Waiting | undefined;
}

export function openAnswers(): Answers {
  const open = new Map<string, Waiting>();
  return {
    expect({ id, method }, waiting) {
      open.set(keyOf(id), { method, ...waiting });
    },
    has: (id) => open.has(keyOf(id)),
    take(id) {
      const waiting = open.get(keyOf(id));
      open.delete(keyOf(id));
      return waiting;
    },
  };
}
