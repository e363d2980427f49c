/** `attested/integrations/oidc-provider`: our trust, policy and revocation inside oidc-provider 9. Structural types. */
import { type KeyObject, randomBytes } from 'node:crypto';
import { AttestedError } from '../errors.ts';
import { createVerifier, type VerifierOptions } from '../verifier/verifier.ts';

export interface AttestClientAuthOptions
  extends Pick<VerifierOptions, 'trust' | 'policy' | 'status' | 'profile' | 'now'> {
  /** The provider's issuer identifier. */
  issuer: string;
  /** 32 bytes from which oidc-provider derives its challenges; the same on every node. Default: random, for one process. */
  challengeSecret?: Uint8Array;
  /** What went wrong, for the operator's log. oidc-provider itself answers a bare `invalid_client`. */
  onRefusal?: (error: AttestedError) => void;
}

/** The part of oidc-provider's Koa context that is used. */
export interface ProviderContext {
  get(header: string): string;
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
    pop: unknown,
    client: { clientId: string },
  ): Promise<void>;
}

/**
 * The value of oidc-provider's `features.attestClientAuth`. The provider checks the proof of possession, challenges and
 * replay itself; trust in attesters, which client each may speak for, policy and revocation are judged here.
 */
export function attestClientAuth(options: AttestClientAuthOptions): AttestClientAuthFeature {
  const { issuer, challengeSecret = randomBytes(32), onRefusal, ...rest } = options;
  if (challengeSecret.length !== 32) throw new AttestedError('invalid_argument', 'challengeSecret must be 32 bytes');
  const verifier = createVerifier({ ...rest, role: 'as', audience: issuer });

  return {
    enabled: true,
    ack: 'draft-12',
    challengeSecret: Buffer.from(challengeSecret),

    async getAttestationSignaturePublicKey(ctx, _header, _payload, client) {
      try {
        const { attestation } = await verifier.verifyAttestation(ctx.get('oauth-client-attestation'));
        if (attestation.parsed.clientId !== client.clientId) {
          throw new AttestedError('invalid_client_attestation', 'the attestation names another client', {
            rule: 'VER-6',
          });
        }
        return attestation.trusted.key;
      } catch (error) {
        if (error instanceof AttestedError) onRefusal?.(error);
        throw error;
      }
    },

    // everything about the attestation was judged when its key was asked for
    assertAttestationJwtAndPop: async () => undefined,
  };
}
