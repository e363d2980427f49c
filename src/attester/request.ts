/** Strict reading of what comes to the attester. */
import { fromUtf8 } from '../core/bytes.ts';
import { isUsableChallenge } from '../core/challenge.ts';
import { isJsonObject, type JsonObject, parseJsonObject } from '../core/json.ts';
import { AttestedError } from '../errors.ts';
import type { AttestationRequest } from '../evidence/protocol.ts';
import { isJson, readBounded } from '../platform/http.ts';

/** Largest body in bytes, but for an event log that the attester asks for. */
export const MAX_BODY: number = 64 * 1024;
/** VSCHAR of RFC 6749 appendix A.1; bounded, because it is kept and logged. */
const CLIENT_ID = /^[\x20-\x7e]{1,2048}$/;
const MAX_TOKEN = 512;

/**
 * Reads a body of one JSON object.
 * @throws AttestedError `invalid_request`, or `http_too_large` past `maxBytes`
 */
export async function readJsonBody(request: Request, maxBytes: number): Promise<JsonObject> {
  return jsonOf(request, await readBytes(request, maxBytes));
}

/** Reads a body of one JSON object or of nothing, with the same errors. */
export async function readOptionalJsonBody(request: Request, maxBytes: number): Promise<JsonObject> {
  const bytes = await readBytes(request, maxBytes);
  return bytes.length === 0 ? {} : jsonOf(request, bytes);
}

/** What breaks off was broken off by the asker: no fault of ours, and nothing to wake an operator for. */
async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  try {
    return await readBounded(request, maxBytes);
  } catch (error) {
    if (error instanceof AttestedError) throw error;
    throw invalid('the body broke off');
  }
}

function jsonOf(request: Request, bytes: Uint8Array): JsonObject {
  if (!isJson(request.headers.get('content-type'))) throw invalid('the content type must be application/json');
  const text = fromUtf8(bytes);
  const json = text === undefined ? undefined : parseJsonObject(text);
  if (json === undefined) throw invalid('the body must be one JSON object with unique members, in UTF-8');
  return json;
}

/** Members that are not known are left alone, so that a newer agent can say more. @throws AttestedError `invalid_request` */
export function readAttestationRequest(body: JsonObject): AttestationRequest {
  const { client_id, challenge, evidence, enrolment_token } = body;
  if (typeof client_id !== 'string' || !CLIENT_ID.test(client_id)) throw invalid('client_id must be printable ASCII');
  if (!isUsableChallenge(challenge)) throw invalid('challenge must be a string from the challenge endpoint');
  if (!isJsonObject(evidence) || typeof evidence.kind !== 'string')
    throw invalid('evidence must be an object with a kind');
  const request = { client_id, challenge, evidence: evidence as AttestationRequest['evidence'] };
  if (enrolment_token === undefined) return request;
  if (typeof enrolment_token !== 'string' || enrolment_token === '' || enrolment_token.length > MAX_TOKEN) {
    throw invalid('enrolment_token must be a string as the attester made it');
  }
  return { ...request, enrolment_token };
}

function invalid(why: string): AttestedError {
  return new AttestedError('invalid_request', why);
}
