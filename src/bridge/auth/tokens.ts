/** The tokens of one MCP server, kept by the key provider, and the turn that one process at a time has at renewing them. */
import { openLabelKey } from '../../agent/label-key.ts';
import { encodeBase64url, fromUtf8, utf8 } from '../../core/bytes.ts';
import { parseJsonObject } from '../../core/json.ts';
import { withDirectoryLock } from '../../keys/files/lock.ts';
import type { KeyProvider } from '../../keys/provider.ts';
import { hmacSha256, sha256Base64url } from '../../platform/crypto.ts';

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

/** @param patience milliseconds to wait for another process, which may have somebody signing in */
export function openTokenStore(keys: KeyProvider, clientId: string, server: URL, patience: number): TokenStore {
  const place = sha256Base64url(`${clientId}\n${server.href}`);
  const name = `bridge:${place}`;
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
      // the file lies in clear beside the keys: its name must not confirm a guess at the server
      const secret = await openLabelKey(keys, clientId, place);
      const lock = encodeBase64url(hmacSha256(secret, utf8(place)).subarray(0, 16));
      return withDirectoryLock(keys.directory, job, { name: `bridge-${lock}.lock`, patience });
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
