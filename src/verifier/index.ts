/** `attested/verifier`: for Authorization Servers and Resource Servers. */

export type { HeadersInput } from '../core/headers.ts';
export type { JoseHeader } from '../core/jwt.ts';
export type { PopMethod, PopMethodOrNone } from '../core/metadata.ts';
export { defineProfile, type Profile } from '../core/profile.ts';
export type { KeyEvidence, KeyStatement, KeyStorage } from '../core/storage.ts';
export { AttestedError, type ErrorCode } from '../errors.ts';
export type { FetchLike, FetchLimits } from '../platform/http.ts';
export type { AttestationVerdict, VerifiedAttestation } from './attestations.ts';
export { assertBoundTo, assertTokenBoundTo, bindingOf } from './binding.ts';
export {
  type ChallengeContext,
  type ChallengeStore,
  type Challenges,
  type ChallengeVerdict,
  memoryChallengeStore,
  sealedChallenges,
  storedChallenges,
} from './challenges.ts';
export type { Policy, ResolvedPolicy } from './policy.ts';
export {
  type GrantStore,
  memoryGrantStore,
  type PushedRequestOptions,
  type PushedRequests,
  pushedRequests,
} from './pushed-requests.ts';
export { memoryReplay, type ReplayEntry, type ReplayStore } from './replay.ts';
export { type RedisClient, type RedisReplayOptions, redisReplay } from './replay-redis.ts';
export { type Owner, type SealedTokens, sealedTokens } from './sealed-tokens.ts';
export type { StatusOptions } from './status.ts';
export { type CimdOptions, type ConfiguredAttester, cimd } from './trust/cimd.ts';
export { type JkuOptions, jku } from './trust/jku.ts';
export { type JwksOptions, jwks } from './trust/jwks.ts';
export { type MacKey, mac } from './trust/mac.ts';
export { type RemoteJwksOptions, remoteJwks } from './trust/remote-jwks.ts';
export type { TokenClaims, TrustedKey, TrustOptions, TrustSource } from './trust/source.ts';
export { type X5cOptions, x5c } from './trust/x5c.ts';
export {
  type AttestedClient,
  createVerifier,
  type Verifier,
  type VerifierOptions,
  type VerifyRequest,
} from './verifier.ts';
