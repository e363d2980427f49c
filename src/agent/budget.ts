/** Header size (IMPL-3): typical servers accept 8 kB of header fields in all, and answer 431 to more. */
import { ATTESTATION_HEADER, DPOP_HEADER, POP_HEADER } from '../core/headers.ts';
import type { Warnings } from './warnings.ts';

export interface HeaderBudget {
  /** Warns once per server when what we add to a request is larger than the budget, naming the biggest part. */
  check(server: string, headers: Headers): void;
  /** Explains a 431, once per server. */
  refused(server: string, headers: Headers): void;
}

/** Bytes. */
export const DEFAULT_HEADER_BUDGET = 6144;

const PARTS = [ATTESTATION_HEADER, POP_HEADER, DPOP_HEADER, 'Authorization'] as const;
/** `: ` and the line's end. */
const PUNCTUATION = 4;
const MAX_NAMED = 1024;

export function openHeaderBudget(budget: number, warnings: Warnings): HeaderBudget {
  const named = new Set<string>();
  const once = (key: string): boolean => {
    if (named.has(key) || named.size >= MAX_NAMED) return false;
    named.add(key);
    return true;
  };
  return {
    check(server, headers) {
      const { total, biggest } = measure(headers);
      if (total <= budget || !once(`large ${server}`)) return;
      const message = `the client attestation headers for ${server} take ${total} bytes, over the budget of ${budget}; the biggest part is ${biggest.name} with ${biggest.bytes}`;
      warnings.emit({ code: 'header_budget', message, servers: [server] });
    },
    refused(server, headers) {
      if (!once(`431 ${server}`)) return;
      const { total, biggest } = measure(headers);
      const message = `${server} refused the request's headers as too large (431): client attestation takes ${total} bytes of them, the biggest part is ${biggest.name} with ${biggest.bytes}`;
      warnings.emit({ code: 'header_refused', message, servers: [server] });
    },
  };
}

function measure(headers: Headers): { total: number; biggest: { name: string; bytes: number } } {
  let total = 0;
  let biggest = { name: 'none', bytes: 0 };
  for (const name of PARTS) {
    const value = headers.get(name);
    if (value === null) continue;
    const bytes = name.length + value.length + PUNCTUATION;
    total += bytes;
    if (bytes > biggest.bytes) biggest = { name, bytes };
  }
  return { total, biggest };
}
