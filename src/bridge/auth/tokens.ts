/** The tokens of one MCP server, kept by the key provider, and the turn that one process at a time has at renewing them. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromUtf8, utf8 } from '../../core/bytes.ts';
import { parseJsonObject } from '../../core/json.ts';
import { AttestedError } from '../../errors.ts';
import type { KeyProvider } from '../../keys/provider.ts';
import { sha256Base64url } from '../../platform/crypto.ts';
import { makePrivateDirectory } from '../../platform/files.ts';

export interface Tokens {
  accessToken: string;
  tokenType: string;
  refreshToken: string | undefined;
  /** Milliseconds since the epoch; absent where the server did not say. */
  expiresAt: number | undefined;
  /** Milliseconds since the epoch. */
  receivedAt: number;
  scope: string | undefined;
  resource: string;
  /** Who gave them: a refresh token goes back to that server and to no other. */
  issuer: string;
}

export interface TokenStore {
  read(): Promise<Tokens | undefined>;
  write(tokens: Tokens): Promise<void>;
  clear(): Promise<void>;
  /**
   * Runs a job while no other process renews the same tokens: a refresh token that is used twice is taken for stolen.
   *
   * @throws AttestedError `key_store_unavailable` when the turn does not come in time
   */
  inTurn<T>(job: () => Promise<T>): Promise<T>;
}

/** A lock that has not been renewed for so long was left by a dead process, milliseconds. */
const STALE = 10_000;
const PAUSE = 100;

/** @param patience milliseconds to wait for another process, which may have somebody signing in */
export function openTokenStore(keys: KeyProvider, clientId: string, server: URL, patience: number): TokenStore {
  const name = `bridge:${sha256Base64url(`${clientId}\n${server.href}`)}`;
  let inMemory: Tokens | undefined;
  let isKept = true;

  return {
    async read() {
      const bytes = isKept ? await keys.secrets.get(name) : undefined;
      const text = bytes === undefined ? undefined : fromUtf8(bytes);
      return text === undefined ? inMemory : readTokens(text);
    },
    async write(tokens) {
      inMemory = tokens;
      try {
        await keys.secrets.set(name, utf8(JSON.stringify({ version: 1, ...tokens })));
        isKept = true;
      } catch {
        isKept = false; // a full disk costs the next run a sign-in, not this one its tokens
      }
    },
    async clear() {
      inMemory = undefined;
      await keys.secrets.delete(name);
    },
    async inTurn(job) {
      if (keys.directory === undefined) return job(); // nobody else has keys in memory
      const release = await takeLock(join(keys.directory, 'bridge'), name.slice('bridge:'.length), patience);
      try {
        return await job();
      } finally {
        await release().catch(() => undefined);
      }
    },
  };
}

function readTokens(text: string): Tokens | undefined {
  const json = parseJsonObject(text);
  const { accessToken, tokenType, refreshToken, expiresAt, receivedAt, scope, resource, issuer } = json ?? {};
  if (json?.version !== 1 || typeof accessToken !== 'string' || typeof tokenType !== 'string') return undefined;
  if (typeof resource !== 'string' || typeof issuer !== 'string') return undefined;
  return {
    accessToken,
    tokenType,
    refreshToken: typeof refreshToken === 'string' ? refreshToken : undefined,
    expiresAt: typeof expiresAt === 'number' ? expiresAt : undefined,
    receivedAt: typeof receivedAt === 'number' ? receivedAt : 0,
    scope: typeof scope === 'string' ? scope : undefined,
    resource,
    issuer,
  };
}

async function takeLock(directory: string, name: string, patience: number): Promise<() => Promise<void>> {
  // loaded late: it hooks the process's signals
  const { lock } = await import('proper-lockfile');
  await makePrivateDirectory(directory);
  const lockfilePath = join(directory, `${name}.lock`);
  const deadline = performance.now() + patience;
  for (;;) {
    try {
      return await lock(directory, { lockfilePath, realpath: false, stale: STALE, onCompromised: () => undefined });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') {
        throw new AttestedError('key_store_unavailable', 'the place of the tokens cannot be locked', { cause: error });
      }
      if (performance.now() > deadline) {
        throw new AttestedError('key_store_unavailable', 'another process has been renewing the tokens for too long', {
          cause: error,
        });
      }
      await sleep(PAUSE);
    }
  }
}
