/** Replay memory shared by a cluster, in Valkey or Redis. */
import { AttestedError } from '../errors.ts';
import { sha256Base64url } from '../platform/crypto.ts';
import type { ReplayStore } from './replay.ts';

/** The one command that is used, as ioredis (positional) and node-redis (options) spell it. */
export interface RedisClient {
  set(key: string, value: string, ...args: never[]): Promise<unknown>;
}

export interface RedisReplayOptions {
  /** Start of every key. Default `attested:jti:`. */
  prefix?: string;
  /** Milliseconds to wait for an answer before the request is refused. Default 1000. */
  timeout?: number;
}

/** Seconds past the window: a node whose clock is behind ours accepts the proof for so much longer. */
const CLOCKS_APART = 30;

/**
 * `SET key 1 NX PX …`: atomic on the server, so of two nodes that race exactly one wins. Works with an ioredis or a
 * node-redis client. Run the server with `noeviction`: an evicted entry is a replay let through.
 */
export function redisReplay(client: RedisClient, options: RedisReplayOptions = {}): ReplayStore {
  const { prefix = 'attested:jti:', timeout = 1000 } = options;
  const positional = !('isOpen' in client); // node-redis clients have it, ioredis clients do not
  const set = client.set.bind(client) as (key: string, value: string, ...args: unknown[]) => Promise<unknown>;
  return {
    async claim({ instance, jti, expiresAt, now }) {
      const key = prefix + sha256Base64url(`${instance} ${jti}`);
      const milliseconds = Math.max(1, expiresAt - now + CLOCKS_APART) * 1000;
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error('no answer in time')), timeout);
      });
      try {
        const answer = positional
          ? set(key, '1', 'PX', milliseconds, 'NX')
          : set(key, '1', { NX: true, PX: milliseconds });
        return (await Promise.race([answer, late])) === 'OK';
      } catch (cause) {
        throw new AttestedError('temporarily_unavailable', 'the replay store does not answer', {
          rule: 'VER-8',
          cause,
        });
      } finally {
        clearTimeout(timer);
      }
    },
  };
}
