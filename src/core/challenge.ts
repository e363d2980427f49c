/** Challenges on the wire (ABCA §6): the endpoint's answer. What is inside a challenge is the server's own affair. Pure. */
import { AttestedError } from '../errors.ts';
import type { JsonObject } from './json.ts';

const MAX_CHALLENGE = 2048;

export interface ChallengeAnswer {
  /** Absent where a server only serves DPoP combined mode (CHA-8). */
  challenge: string | undefined;
}

/** Body of the challenge endpoint's answer (CHA-1). */
export function challengeBody(challenge: string | undefined): JsonObject {
  return challenge === undefined ? {} : { attestation_challenge: challenge };
}

/**
 * Reads the challenge endpoint's answer.
 * @throws AttestedError `server_unsupported` when the member is there and is not a usable string
 */
export function readChallengeBody(body: JsonObject): ChallengeAnswer {
  const challenge = body.attestation_challenge;
  if (challenge === undefined) return { challenge: undefined };
  if (!isUsableChallenge(challenge)) {
    throw new AttestedError('server_unsupported', 'the server gave a challenge that is not a usable string', {
      rule: 'CHA-1',
    });
  }
  return { challenge };
}

/** Opaque to the client (CHA-4), but it has to fit into a token: a non-empty string of bounded length. */
export function isUsableChallenge(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= MAX_CHALLENGE;
}
