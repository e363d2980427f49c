/** What a server's refusal says. */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { challengeOf } from './auth/discovery.ts';
import { discard, mediaTypeOf, readBody } from './http.ts';
import { INTERNAL_ERROR } from './message.ts';

/** A JSON-RPC error in a refusal's body. */
export interface Refusal {
  code: number;
  message: string;
  error: JsonObject;
}

/** Most that is read of the body, bytes. */
const MAX_BODY = 1024 * 1024;

export async function readRefusal(response: Response): Promise<Refusal | undefined> {
  if (mediaTypeOf(response) !== 'application/json') return void (await discard(response));
  try {
    const json: unknown = JSON.parse(Buffer.from(await readBody(response, MAX_BODY)).toString('utf8'));
    const error = isJsonObject(json) && isJsonObject(json.error) ? json.error : undefined;
    if (typeof error?.code !== 'number' || typeof error.message !== 'string') return undefined;
    return { code: error.code, message: error.message, error };
  } catch {
    return undefined;
  }
}

/** The error for the host where the body holds none. */
export function errorOf(response: Response, origin: string): object {
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
export function isSessionLost(status: number, refusal: Refusal | undefined): boolean {
  return (
    status === 404 || (status === 400 && refusal !== undefined && /\bsession\b|not initialized/i.test(refusal.message))
  );
}
