/** Keeps copies of what goes over the wire, as a proxy with a careless log would. The demo's attacks start from them. */
import type { FetchLike } from '../../platform/http.ts';
import type { RecordedRequest } from './protocol.ts';

export interface Recorder {
  fetch: FetchLike;
  /** The last request to a URL that succeeded and had this in its body. */
  last(url: string, containing: string): RecordedRequest | undefined;
}

export function recordingFetch(): Recorder {
  const seen: RecordedRequest[] = [];
  return {
    async fetch(input, init = {}) {
      const response = await fetch(input, init);
      const headers = [...new Headers(init.headers)];
      const body = init.body === undefined || init.body === null ? '' : String(init.body);
      if (response.ok) seen.push({ url: String(input), method: init.method ?? 'GET', headers, body });
      return response;
    },
    last: (url, containing) => seen.findLast((request) => request.url === url && request.body.includes(containing)),
  };
}
