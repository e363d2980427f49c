/** Event streams of the server: read, resumed where they broke off, and the one that it may use at any time. */
import { AttestedError } from '../errors.ts';
import { type Exchanges, MAX_TRIES } from './exchange.ts';
import { backOff, discard, mediaTypeOf, pause } from './http.ts';
import { readEvents, type ServerEvent } from './sse.ts';

export interface Streams {
  /** Reads an answer's stream. One that ends while `isOpen` is resumed where it stopped, if the server numbered its events. */
  follow(first: Response, isOpen: () => boolean, signal: AbortSignal): Promise<void>;
  /** Holds the server's own stream open, where it has one. */
  listen(signal: AbortSignal): Promise<void>;
}

/** How far a stream came: from where, and after how many milliseconds, it can be resumed, and whether it said anything. */
interface Progress {
  lastId: string | undefined;
  retry: number;
  any: boolean;
}

/** Bounds for the pause that a server asks for, milliseconds. */
const RETRY = { usual: 1000, least: 100, most: 60_000 } as const;

export function openStreams(options: {
  exchange: Exchanges['exchange'];
  /** Takes one message. */
  receive: (bytes: Uint8Array) => Promise<void>;
  /** The server has forgotten this session. */
  renewSession: (lost: string) => Promise<void>;
  /** Largest event, bytes. */
  maxBytes: number;
  /** Milliseconds. */
  firstPause: number;
  /** Nothing is resumed any more. */
  isOver: () => boolean;
}): Streams {
  const { exchange, receive, renewSession, maxBytes, firstPause, isOver } = options;

  async function read(response: Response): Promise<Progress> {
    let lastId: string | undefined;
    let any = false;
    let delivered: Promise<void> | undefined;
    const reader = readEvents(maxBytes, (event: ServerEvent) => {
      any = true;
      lastId = event.id ?? lastId;
      if (event.type !== 'message' || event.data.length === 0) return;
      delivered = receive(event.data);
    });
    try {
      for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
        reader.push(chunk);
        await delivered; // a host that does not read must not make us hold what the server sends
      }
    } catch (error) {
      if (isOver() || lastId === undefined || error instanceof AttestedError) throw error;
    }
    const retry = Math.min(Math.max(reader.retry ?? RETRY.usual, RETRY.least), RETRY.most);
    return { lastId, retry, any };
  }

  /** Until the next try: what the server asks for, or longer after failures. False when the signal came first. */
  const wait = (asked: number, failures: number, signal: AbortSignal): Promise<boolean> =>
    pause(Math.max(asked, failures === 0 ? 0 : backOff(failures, firstPause)), signal);

  return {
    async follow(first, isOpen, signal) {
      let response = first;
      let lastId: string | undefined;
      for (let failures = 0; failures < MAX_TRIES; failures++) {
        const progress = await read(response);
        lastId = progress.lastId ?? lastId;
        if (!isOpen() || lastId === undefined) return;
        if (progress.any) failures = 0;
        if (!(await wait(progress.retry, failures, signal))) return;
        ({ response } = await exchange('GET', undefined, signal, lastId));
        if (!response.ok || mediaTypeOf(response) !== 'text/event-stream') return discard(response);
      }
    },

    async listen(signal) {
      let lastId: string | undefined;
      for (let failures = 0; !signal.aborted; failures++) {
        let asked: number = RETRY.usual;
        try {
          const { response, used } = await exchange('GET', undefined, signal, lastId);
          if (response.ok && mediaTypeOf(response) === 'text/event-stream') {
            const progress = await read(response);
            lastId = progress.lastId ?? lastId;
            asked = progress.retry;
            if (progress.any) failures = 0;
          } else {
            await discard(response);
            if (response.status === 404 && used !== null) return await renewSession(used);
            if (response.status < 500) return; // there is none (405), or none for us
          }
        } catch (error) {
          if (signal.aborted) return;
          if (error instanceof AttestedError && !error.code.startsWith('http_')) throw error;
        }
        await wait(asked, failures, signal);
      }
    },
  };
}
