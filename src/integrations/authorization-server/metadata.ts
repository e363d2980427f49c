/** The metadata document of an authorization server that knows nothing of attestation, with our part put in. */
import type { JsonObject, JsonValue } from '../../core/json.ts';
import type { Verifier } from '../../verifier/verifier.ts';

export interface AddedEndpoints {
  challengeUrl: string;
  /** Where requests are pushed; absent where the server has no authorization page of its own. */
  pushUrl: string | undefined;
  pushRequired: boolean;
}

/**
 * Adds the authentication methods, algorithms and endpoints (META-1 to META-3). Other methods stay on the list only where
 * the policy lets the attestation be left out (`none` among its `popMethods`).
 */
export function withAttestationMetadata(
  document: JsonObject,
  verifier: Verifier,
  { challengeUrl, pushUrl, pushRequired }: AddedEndpoints,
): JsonObject {
  const { token_endpoint_auth_methods_supported: ours, ...added } = verifier.metadata({
    challengeEndpoint: challengeUrl,
  });
  const others = verifier.policy.popMethods.includes('none');
  const methods = (existing: JsonValue | undefined): JsonValue => [
    ...new Set([...(ours as string[]), ...(others && Array.isArray(existing) ? existing : [])]),
  ];
  const merged: JsonObject = { ...document, ...added };
  merged.token_endpoint_auth_methods_supported = methods(document.token_endpoint_auth_methods_supported);
  for (const endpoint of ['revocation_endpoint', 'introspection_endpoint']) {
    const name = `${endpoint}_auth_methods_supported`;
    if (document[endpoint] !== undefined) merged[name] = methods(document[name]);
  }
  if (pushUrl !== undefined) {
    merged.pushed_authorization_request_endpoint = pushUrl;
    merged.require_pushed_authorization_requests = pushRequired;
  }
  return merged;
}

const METHODS: readonly unknown[] = ['attest_jwt_client_auth', 'attest_jwt_client_auth_dpop'];

/** Whether a client's `token_endpoint_auth_method` is one of ours. */
export function isAttestedMethod(method: unknown): boolean {
  return METHODS.includes(method);
}
