/** Servers of this process on loopback, closed when the test ends; and a look at the traffic between them. */
import { onTestFinished } from 'vitest';
import { type Listening, listen } from '../../../src/cli/demo/serve.ts';
import type { FetchLike } from '../../../src/platform/http.ts';

export async function listenForTest(): Promise<Listening> {
  const http = await listen();
  onTestFinished(() => http.close());
  return http;
}

export interface Exchange {
  method: string;
  /** Without query. */
  url: string;
  status: number;
  headers: Headers;
  /** Of a form or a JSON text; empty for everything else. */
  body: string;
}

export interface Traffic {
  fetch: FetchLike;
  exchanges: Exchange[];
  /** `POST 200 /token`, for those under the origin, in order. */
  lines(origin: string): string[];
  clear(): void;
}

/** A fetch that remembers what went through it. */
export function recordTraffic(): Traffic {
  const exchanges: Exchange[] = [];
  return {
    exchanges,
    fetch: async (input, init = {}) => {
      const response = await fetch(input, init);
      const { origin, pathname } = new URL(input);
      const body = typeof init.body === 'string' || init.body instanceof URLSearchParams ? String(init.body) : '';
      const { method = 'GET' } = init;
      const headers = new Headers(init.headers);
      exchanges.push({ method, url: origin + pathname, status: response.status, headers, body });
      return response;
    },
    lines: (origin) =>
      exchanges
        .filter(({ url }) => url.startsWith(`${origin}/`))
        .map(({ method, url, status }) => `${method} ${status} ${new URL(url).pathname}`),
    clear: () => {
      exchanges.length = 0;
    },
  };
}
