/** `attested/integrations/oidc-provider`: our trust, policy and revocation inside oidc-provider 9. Structural types. */
import { type KeyObject, randomBytes } from 'node:crypto';
import { isJsonObject, type JsonValue } from '../core/json.ts';
import { readPublicJwk } from '../core/jwk.ts';
import { wireAnswer } from '../core/oauth-errors.ts';
import { checkPopTimes } from '../core/pop.ts';
import { AttestedError } from '../errors.ts';
import { INSTANCE_CLAIM } from '../mcp/access-tokens.ts';
import { thumbprintOf } from '../platform/crypto.ts';
import { resolvePolicy } from '../verifier/policy.ts';
import { memoryReplay, type ReplayStore } from '../verifier/replay.ts';
import { createVerifier, type VerifierOptions } from '../verifier/verifier.ts';

export interface AttestClientAuthOptions
  extends Pick<VerifierOptions, 'trust' | 'policy' | 'status' | 'profile' | 'now'> {
  /** The provider's issuer identifier. */
  issuer: string;
  /** 32 bytes from which oidc-provider derives its challenges; the same on every node. Default: random, for one process. */
  challengeSecret?: Uint8Array;
  /**
   * Remembers proofs, atomically. The provider's own memory of them looks first and writes afterwards, so that two requests at
   * the same time could both pass with one proof. Share it between nodes (`redisReplay`). Default: memory of this process.
   */
  replay?: ReplayStore;
  /** What went wrong, for the operator's log. oidc-provider itself answers a bare `invalid_client`. */
  onRefusal?: (error: AttestedError) => void;
}

/** The part of oidc-provider's Koa context that is used. */
export interface ProviderContext {
  get(header: string): string;
}

/** A token as oidc-provider has verified it (jose's result). */
export interface VerifiedToken {
  protectedHeader: { alg: string; typ?: string };
  payload: { iat?: number; jti?: string };
}

export interface AttestClientAuthFeature {
  enabled: true;
  ack: 'draft-12';
  challengeSecret: Buffer;
  getAttestationSignaturePublicKey(
    ctx: ProviderContext,
    header: unknown,
    payload: unknown,
    client: { clientId: string },
  ): Promise<KeyObject>;
  assertAttestationJwtAndPop(
    ctx: ProviderContext,
    attestation: unknown,
    pop: VerifiedToken,
    client: { clientId: string },
  ): Promise<void>;
}

/**
 * The value of oidc-provider's `features.attestClientAuth`. The provider checks the proof of possession and challenges
 * itself; trust in attesters, which client each may speak for, policy, revocation and replay are judged here. Of the policy,
 * `challenge` and `concatenated` have no effect: the provider always demands challenges and reads header fields only.
 *
 * Add `provider.use(attestationMiddleware)`: without it a code is not bound to the instance that asked for it (BIND-2), and
 * clients cannot tell a stale attestation or an outage from a refusal.
 *
 * What the provider stores of an attestation is one value, `attestationJkt`: the thumbprint of the instance key, with refresh
 * tokens, codes and pushed requests, which cannot be bound without it; and a hash of each proof's `jti` for as long as the
 * proof is good. No attestation, claim or public key goes into its adapter. Where agents keep to one key per server, as ours
 * do, the thumbprint says nothing to another server's database.
 *
 * @throws AttestedError `invalid_argument` for options that make no sense
 */
export function attestClientAuth(options: AttestClientAuthOptions): AttestClientAuthFeature {
  const { issuer, challengeSecret = randomBytes(32), onRefusal, replay = memoryReplay(), ...rest } = options;
  if (challengeSecret.length !== 32) throw new AttestedError('invalid_argument', 'challengeSecret must be 32 bytes');
  const verifier = createVerifier({ ...rest, role: 'as', audience: issuer });
  const policy = resolvePolicy(rest.policy);
  const now = rest.now ?? Date.now;

  /** Runs a check of ours. The provider wraps what it throws, so the reason is kept for {@link attestationMiddleware}. */
  async function judge<T>(ctx: ProviderContext, check: () => Promise<T> | T): Promise<T> {
    try {
      return await check();
    } catch (error) {
      const refusal =
        error instanceof AttestedError
          ? error
          : new AttestedError('temporarily_unavailable', 'the attestation could not be judged', { cause: error });
      refusals.set(ctx, refusal);
      onRefusal?.(refusal);
      throw exposed(refusal);
    }
  }

  return {
    enabled: true,
    ack: 'draft-12',
    challengeSecret: Buffer.from(challengeSecret),

    getAttestationSignaturePublicKey: (ctx, _header, _payload, client) =>
      judge(ctx, async () => {
        const { attestation } = await verifier.verifyAttestation(ctx.get('oauth-client-attestation'));
        if (attestation.parsed.clientId !== client.clientId) {
          throw refused('the attestation names another client', 'VER-6');
        }
        return attestation.trusted.key;
      }),

    // the attestation was judged when its key was asked for; the proof is the provider's but for what our policy says of it
    assertAttestationJwtAndPop: (ctx, attestation, { protectedHeader: { alg, typ }, payload: { iat, jti } }) =>
      judge(ctx, async () => {
        const method = typ === 'dpop+jwt' ? 'dpop_combined' : 'attestation_pop_jwt';
        if (!policy.popMethods.includes(method)) throw refused('this server does not offer the proof', 'META-3');
        if (!policy.algorithms.has(alg))
          throw refused('this server does not accept the algorithm of the proof', 'VER-2');
        if (iat === undefined) throw refused('the proof needs an iat', 'POP-4');
        const seconds = now() / 1000;
        checkPopTimes({ iat, exp: undefined }, { now: seconds, ...policy });
        const jwk = (attestation as ProvenAttestation['attestation']).payload.cnf?.jwk;
        if (jwk === undefined || !jti) throw refused('the proof needs a jti and the attestation a key', 'POP-3');
        const first = await replay.claim({
          instance: `${method} ${thumbprintOf(readPublicJwk(jwk))}`,
          jti,
          createdAt: iat,
          expiresAt: iat + policy.maxPopAge + policy.clockTolerance,
          now: Math.floor(seconds),
        });
        if (first !== true) throw refused('this proof of possession was used before', 'VER-8');
      }),
  };
}

/**
 * For oidc-provider's `extraTokenClaims`: ties access tokens to the client instance they are issued to, also those that are
 * not bound by DPoP. Without it an MCP server can tell the client of such a token only, not the instance.
 */
export async function clientInstanceClaim(ctx: { oidc?: object }): Promise<Record<string, string> | undefined> {
  const { clientAttestation } = (ctx.oidc ?? {}) as { clientAttestation?: ProvenAttestation };
  const jwk = clientAttestation?.attestation.payload.cnf?.jwk;
  return jwk === undefined ? undefined : { [INSTANCE_CLAIM]: thumbprintOf(readPublicJwk(jwk)) };
}

/** `ctx.oidc.clientAttestation`: the provider sets it once it has verified attestation and proof. */
interface ProvenAttestation {
  attestation: { payload: { cnf?: { jwk?: JsonValue } } };
}

/** Why requests were refused, for as long as their contexts live. */
const refusals = new WeakMap<object, AttestedError>();

/** The part of the Koa context that {@link attestationMiddleware} uses. */
export interface MiddlewareContext {
  status: number;
  body?: unknown;
  set(headers: Record<string, string>): void;
  oidc?: { provider: { PushedAuthorizationRequest: PushedRequests }; entities: object };
}

interface PushedRequests {
  find(id: string, options: { ignoreExpiration: true }): Promise<PushedRequest | undefined>;
}

interface PushedRequest {
  attestationJkt?: string;
  save(ttl: number): Promise<unknown>;
}

interface Code {
  attestationJkt?: string;
  save(): Promise<unknown>;
  destroy(): Promise<unknown>;
}

/** Koa middleware for `provider.use(...)`: what oidc-provider 9.13 leaves out. See the functions below. */
export async function attestationMiddleware(ctx: MiddlewareContext, next: () => Promise<unknown>): Promise<void> {
  await next();
  sayWhy(ctx);
  await bindCode(ctx);
}

/**
 * oidc-provider answers every failed attestation with `invalid_client`, upon which clients throw their tokens away. This puts
 * our code in its place: `use_fresh_attestation` (ERR-2), `temporarily_unavailable` when an attester's keys cannot be fetched,
 * `invalid_client_attestation` for the rest (ERR-3).
 */
function sayWhy(ctx: MiddlewareContext): void {
  const refusal = refusals.get(ctx);
  if (refusal === undefined || !isJsonObject(ctx.body) || ctx.body.error !== 'invalid_client') return;
  const { status, headers, body } = wireAnswer(refusal, 'as');
  ctx.status = status;
  ctx.set(headers);
  ctx.body = body;
}

/**
 * A code that was asked for through PAR belongs to the instance that pushed the request (BIND-2). oidc-provider forgets that
 * when a person signs in or agrees in between, and then any instance of the client may redeem the code. The pushed request is
 * kept for as long as the person may take, and the code is bound before the answer that carries it is sent.
 */
async function bindCode({ oidc }: MiddlewareContext): Promise<void> {
  const { AuthorizationCode: code, Interaction: interaction } = (oidc?.entities ?? {}) as {
    AuthorizationCode?: Code;
    Interaction?: { parJti?: string; exp: number };
  };
  if (oidc === undefined || interaction?.parJti === undefined) return;
  const pushed = await oidc.provider.PushedAuthorizationRequest.find(interaction.parJti, { ignoreExpiration: true });
  if (code === undefined) {
    const left = interaction.exp - Math.floor(Date.now() / 1000);
    if (pushed?.attestationJkt !== undefined && left > 0) await pushed.save(left);
  } else if (pushed === undefined) {
    await code.destroy(); // nobody can tell whose it is
  } else if (pushed.attestationJkt !== undefined && code.attestationJkt === undefined) {
    code.attestationJkt = pushed.attestationJkt;
    await code.save();
  }
}

/** An error in the form that oidc-provider shows to the client where it does not wrap it. */
function exposed(refusal: AttestedError): Error {
  const { status, body } = wireAnswer(refusal, 'as');
  const { error, error_description } = body;
  return Object.assign(new Error(error, { cause: refusal }), {
    status,
    statusCode: status,
    expose: true,
    ...(error_description !== undefined && { error_description }),
  });
}

function refused(why: string, rule: string): AttestedError {
  return new AttestedError('invalid_client_attestation', why, { rule });
}
