/** One verifier, one attester, one instance and a clock in the test's hand. */
import { expect } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Signer } from '../../src/core/signer.ts';
import type { AttestedError, ErrorCode } from '../../src/errors.ts';
import { randomId, sha256Base64url } from '../../src/platform/crypto.ts';
import {
  type AttestedClient,
  createVerifier,
  jwks,
  memoryChallengeStore,
  storedChallenges,
  type Verifier,
  type VerifierOptions,
} from '../../src/verifier/index.ts';
import { refusalOf } from './errors.ts';
import { forge, newSigner, type Part } from './tokens.ts';

export const AUDIENCE = 'https://as.example';
export const CLIENT_ID = 'https://client.example';
export const TOKEN_URL = 'https://as.example/token';

/** What a request carries. `null` leaves a field out; an array sends it as often as it has items. */
export interface Sent {
  attestation: string | null | string[];
  pop: string | null | string[];
  dpop: string | null | string[];
  authorization: string | null;
  clientId: string | undefined;
  method: string;
  url: string;
}

export interface Changes {
  header?: JsonObject | undefined;
  payload?: JsonObject | undefined;
  /** Header or payload as raw bytes or text, instead of the object. */
  rawHeader?: Part;
  rawPayload?: Part;
  signer?: Pick<Signer, 'sign'> | undefined;
  signature?: string;
}

export interface World {
  verifier: Verifier;
  attester: Signer;
  instance: Signer;
  /** Milliseconds since the epoch; the test may move it. */
  clock: { now: number };
  seconds(): number;
  attestation(changes?: Changes): Promise<string>;
  pop(changes?: Changes): Promise<string>;
  dpop(changes?: Changes): Promise<string>;
  challenge(): Promise<string>;
  nonce(): Promise<string>;
  /** A complete honest request, with a fresh challenge; parts may be replaced. */
  sent(parts?: Partial<Sent>): Promise<Sent>;
  sentCombined(parts?: Partial<Sent>): Promise<Sent>;
  verify(sent: Sent): Promise<AttestedClient>;
}

export interface WorldOptions extends Partial<Omit<VerifierOptions, 'now'>> {
  attester?: Signer;
  instance?: Signer;
  /** Start of the clock, milliseconds since the epoch. */
  startAt?: number;
}

/** The default verifier has stored single-use challenges, so that a challenge spent by mistake is noticed. */
export function createWorld(options: WorldOptions = {}): World {
  const clock = { now: options.startAt ?? Date.UTC(2026, 10, 22, 12) };
  const { attester = newSigner('ES256', 'attester-1'), instance = newSigner(), startAt: _, ...rest } = options;
  const verifier = createVerifier({
    role: 'as',
    audience: AUDIENCE,
    trust: options.trust ?? jwks({ keys: [attester.publicJwk] }),
    challenges: storedChallenges(memoryChallengeStore({ now: () => clock.now })),
    ...rest,
    now: () => clock.now,
  });
  const seconds = () => Math.floor(clock.now / 1000);
  const { kid: _kid, ...cnfKey } = instance.publicJwk;

  const world: World = {
    verifier,
    attester,
    instance,
    clock,
    seconds,
    attestation: ({ header, payload, rawHeader, rawPayload, signer = attester, signature } = {}) =>
      forge({
        header: rawHeader ?? {
          typ: 'oauth-client-attestation+jwt',
          alg: attester.alg,
          kid: attester.publicJwk.kid,
          ...header,
        },
        payload: rawPayload ?? {
          sub: CLIENT_ID,
          iat: seconds() - 60,
          exp: seconds() + 3600,
          cnf: { jwk: cnfKey },
          ...payload,
        },
        signer,
        signature,
      }),
    pop: async ({ header, payload, rawHeader, rawPayload, signer = instance, signature } = {}) =>
      forge({
        header: rawHeader ?? { typ: 'oauth-client-attestation-pop+jwt', alg: instance.alg, ...header },
        payload: rawPayload ?? {
          aud: verifier.audience,
          jti: randomId(),
          iat: seconds(),
          ...(payload !== undefined && 'challenge' in payload ? {} : { challenge: await world.challenge() }),
          ...payload,
        },
        signer,
        signature,
      }),
    dpop: async ({ header, payload, rawHeader, rawPayload, signer = instance, signature } = {}) =>
      forge({
        header: rawHeader ?? { typ: 'dpop+jwt', alg: instance.alg, jwk: cnfKey, ...header },
        payload: rawPayload ?? {
          htm: 'POST',
          htu: TOKEN_URL,
          jti: randomId(),
          iat: seconds(),
          ...(payload !== undefined && 'nonce' in payload ? {} : { nonce: await world.nonce() }),
          ...payload,
        },
        signer,
        signature,
      }),
    challenge: async () => (await verifier.freshHeaders())['OAuth-Client-Attestation-Challenge'] ?? 'none offered',
    nonce: async () => (await verifier.freshHeaders())['DPoP-Nonce'] ?? 'none offered',
    sent: async (parts = {}) => ({
      attestation: parts.attestation === undefined ? await world.attestation() : parts.attestation,
      pop: parts.pop === undefined ? await world.pop() : parts.pop,
      dpop: parts.dpop ?? null,
      authorization: parts.authorization ?? null,
      clientId: 'clientId' in parts ? parts.clientId : CLIENT_ID,
      method: parts.method ?? 'POST',
      url: parts.url ?? TOKEN_URL,
    }),
    sentCombined: async (parts = {}) =>
      world.sent({ pop: null, ...parts, dpop: parts.dpop === undefined ? await world.dpop() : parts.dpop }),
    verify: (sent) => verifier.verify(requestOf(sent)),
  };
  return world;
}

export function requestOf({ attestation, pop, dpop, authorization, clientId, method, url }: Sent) {
  const headers: [string, string][] = [['Accept', 'application/json']];
  const add = (name: string, value: string | null | string[]) => {
    for (const item of [value ?? []].flat()) headers.push([name, item]);
  };
  add('OAuth-Client-Attestation', attestation);
  add('OAuth-Client-Attestation-PoP', pop);
  add('DPoP', dpop);
  add('Authorization', authorization);
  return { headers, method, url, clientId };
}

export interface Expected {
  code: ErrorCode;
  rule: string;
}

/**
 * What every refused request has in common: the code and the rule; an answer in the 4xx (503 only where we cannot tell);
 * nothing of the tokens or keys in message, headers or body; and nothing spent: the honest request of the same `jti` and
 * challenge still works afterwards.
 */
export async function expectRefused(
  world: World,
  attempt: Sent,
  expected: Expected,
  honest?: Sent,
): Promise<AttestedError> {
  const error = await refusalOf(() => world.verify(attempt));
  expect({ code: error.code, rule: error.rule }, error.message).toEqual(expected);
  await expectSafeAnswer(world.verifier, error, attempt);
  if (honest !== undefined) await expect(world.verify(honest)).resolves.toMatchObject({ clientId: CLIENT_ID });
  return error;
}

export async function expectSafeAnswer(verifier: Verifier, error: AttestedError, attempt: Sent): Promise<void> {
  const response = verifier.respond(error);
  if (error.code === 'temporarily_unavailable') expect(response.status).toBe(503);
  else {
    expect(response.status).toBeGreaterThanOrEqual(400);
    expect(response.status).toBeLessThan(500);
  }
  const said = [error.message, await response.text(), response.headers.get('www-authenticate') ?? ''].join('\n');
  for (const secret of secretsOf(attempt)) expect(said).not.toContain(secret);
}

/** Everything long enough to be a token, a part of one or a member of a key. */
function secretsOf({ attestation, pop, dpop, authorization }: Sent): string[] {
  const tokens = [attestation, pop, dpop, authorization].flat().filter((text) => text !== null);
  const texts = new Set<string>();
  const walk = (value: unknown): void => {
    if (typeof value === 'string' && value.length >= 12) texts.add(value);
    else if (typeof value === 'object' && value !== null) Object.values(value).forEach(walk);
  };
  for (const token of tokens) {
    walk(token);
    for (const segment of token.split('.')) {
      walk(segment);
      try {
        walk(JSON.parse(Buffer.from(segment, 'base64url').toString()));
      } catch {
        // not JSON: its text is already listed
      }
    }
  }
  texts.delete(AUDIENCE); // the server's own name
  return [...texts].filter((text) => !text.startsWith('oauth-client-attestation') && !text.startsWith('application/'));
}

export function athOf(accessToken: string): string {
  return sha256Base64url(accessToken);
}
