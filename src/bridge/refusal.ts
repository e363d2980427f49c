/** What a server's refusal says. */
import { isJsonObject } from '../core/json.ts';
import { readBounded } from '../platform/http.ts';
import { challengeOf } from './auth/discovery.ts';
import { discard, mediaTypeOf } from './http.ts';
import { INTERNAL_ERROR, type RpcError } from './message.ts';

/** Most that is read of the body, bytes, and for how long, milliseconds: the host waits for the reason meanwhile. */
const MAX_BODY = 1024 * 1024;
const PATIENCE = 5000;

/** The JSON-RPC error in a refusal's body. */
export async function readRefusal(response: Response): Promise<RpcError | undefined> {
  if (mediaTypeOf(response) !== 'application/json') return void (await discard(response));
  try {
    const bytes = await readBounded(response, MAX_BODY, AbortSignal.timeout(PATIENCE));
    const json: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    const { code, message, ...rest } = isJsonObject(json) && isJsonObject(json.error) ? json.error : {};
    return typeof code === 'number' && typeof message === 'string' ? { code, message, ...rest } : undefined;
  } catch {
    return undefined;
  }
}

/** The error for the host where the body holds none. */
export function errorOf(response: Response, origin: string): RpcError {
  const { status } = response;
  const reason = challengeOf(response).error;
  const shown = reason !== undefined && /^[a-z_]{1,64}$/.test(reason) ? reason : undefined;
  return {
    code: INTERNAL_ERROR,
    message: `attested: ${origin} answered with status ${status}${shown === undefined ? '' : ` (${shown})`}`,
    data: { status, ...(shown !== undefined && { code: shown }) },
  };
}

/** 404 as the specification says, or 400 with words to that effect, which many servers answer after a restart. */
export function isSessionLost(status: number, refusal: RpcError | undefined): boolean {
  return (
    status === 404 || (status === 400 && refusal !== undefined && /\bsession\b|not initialized/i.test(refusal.message))
  );
}
