/** What AS, RS and client say about themselves (ABCA §8, §9; RFC 8414, RFC 9728, RFC 7591), and the choice from it. Pure. */
import { AttestedError } from '../errors.ts';
import type { JsonObject, JsonValue } from './json.ts';

export type PopMethod = 'attestation_pop_jwt' | 'dpop_combined';
export type PopMethodOrNone = PopMethod | 'none';

/** `token_endpoint_auth_method` values by proof-of-possession method (META-1, DPOP-6). */
export const authMethodOf: Readonly<Record<PopMethod, string>> = {
  attestation_pop_jwt: 'attest_jwt_client_auth',
  dpop_combined: 'attest_jwt_client_auth_dpop',
};
export const POP_METHODS: readonly PopMethod[] = ['dpop_combined', 'attestation_pop_jwt'];

export interface Capabilities {
  role: 'as' | 'rs';
  popMethods: readonly PopMethodOrNone[];
  attestationAlgorithms: readonly string[];
  popAlgorithms: readonly string[];
  challengeEndpoint?: string | undefined;
  /** Revision has `client_attestation_pop_methods_supported` (from -10). */
  popMethodsMetadata: boolean;
}

/** The parameters for an AS's (RFC 8414) or RS's (RFC 9728) metadata document (META-1 to META-3, DPOP-6). */
export function serverMetadata(can: Capabilities): JsonObject {
  const methods = can.popMethods.filter((method) => method !== 'none');
  const metadata: JsonObject = {
    client_attestation_signing_alg_values_supported: [...can.attestationAlgorithms],
    client_attestation_pop_signing_alg_values_supported: [...can.popAlgorithms],
  };
  if (can.role === 'as') metadata.token_endpoint_auth_methods_supported = methods.map((method) => authMethodOf[method]);
  if (methods.includes('dpop_combined')) metadata.dpop_signing_alg_values_supported = [...can.popAlgorithms];
  if (can.popMethodsMetadata) metadata.client_attestation_pop_methods_supported = [...can.popMethods];
  if (can.challengeEndpoint !== undefined) metadata.challenge_endpoint = can.challengeEndpoint;
  return metadata;
}

/** The parameters for a client's registration or client id metadata document (META-5). They state a capability. */
export function clientMetadata(can: {
  popMethods: readonly PopMethod[];
  attestationAlgorithms: readonly string[];
  popAlgorithms: readonly string[];
}): JsonObject {
  const [preferred] = can.popMethods;
  if (preferred === undefined) throw new AttestedError('invalid_argument', 'a client needs at least one PoP method');
  return {
    token_endpoint_auth_method: authMethodOf[preferred],
    client_attestation_signing_alg_values_supported: [...can.attestationAlgorithms],
    client_attestation_pop_signing_alg_values_supported: [...can.popAlgorithms],
    client_attestation_pop_methods_supported: [...can.popMethods],
  };
}

/** What a client needs to know of a server, read from its metadata document. */
export interface ServerNeeds {
  /** Methods the server accepts, best first. Empty: it says nothing of client attestation. */
  popMethods: PopMethod[];
  /** The server refuses requests without attestation (META-3). */
  required: boolean;
  attestationAlgorithms: string[] | undefined;
  popAlgorithms: string[] | undefined;
  dpopAlgorithms: string[] | undefined;
  challengeEndpoint: string | undefined;
}

/**
 * Reads the parameters of this draft from an AS or RS metadata document.
 *
 * @throws AttestedError `server_unsupported` when a parameter has the wrong shape
 */
export function readServerNeeds(metadata: JsonObject): ServerNeeds {
  const authMethods = strings(metadata, 'token_endpoint_auth_methods_supported') ?? [];
  const listed = strings(metadata, 'client_attestation_pop_methods_supported');
  if (listed !== undefined && listed.length === 0) {
    throw malformed('client_attestation_pop_methods_supported', 'META-3');
  }
  const popMethods = POP_METHODS.filter(
    (method) => listed?.includes(method) || authMethods.includes(authMethodOf[method]),
  );
  const challengeEndpoint = metadata.challenge_endpoint;
  if (challengeEndpoint !== undefined && typeof challengeEndpoint !== 'string')
    throw malformed('challenge_endpoint', 'META-2');
  return {
    popMethods,
    required: listed !== undefined && !listed.includes('none'),
    attestationAlgorithms: strings(metadata, 'client_attestation_signing_alg_values_supported'),
    popAlgorithms: strings(metadata, 'client_attestation_pop_signing_alg_values_supported'),
    dpopAlgorithms: strings(metadata, 'dpop_signing_alg_values_supported'),
    challengeEndpoint,
  };
}

/**
 * Picks the proof-of-possession method (META-4).
 *
 * @param alg the instance key's algorithm
 * @param wanted methods the client is willing to use, best first
 * @throws AttestedError `server_unsupported` before any request, naming what does not fit
 */
export function choosePopMethod(
  needs: ServerNeeds,
  alg: string,
  wanted: readonly PopMethod[] = POP_METHODS,
): PopMethod {
  const common = wanted.filter((method) => needs.popMethods.includes(method));
  if (common.length === 0) {
    throw new AttestedError(
      'server_unsupported',
      'the server offers no proof-of-possession method this client can use',
      {
        rule: 'META-4',
      },
    );
  }
  const chosen = common.find((method) => {
    const accepted = method === 'dpop_combined' ? needs.dpopAlgorithms : needs.popAlgorithms;
    return accepted === undefined || accepted.includes(alg);
  });
  if (chosen === undefined) {
    throw new AttestedError('server_unsupported', `the server does not accept proofs signed with ${alg}`, {
      rule: 'META-4',
    });
  }
  return chosen;
}

function strings(metadata: JsonObject, name: string): string[] | undefined {
  const value: JsonValue | undefined = metadata[name];
  if (value === undefined) return undefined;
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) throw malformed(name, 'META-2');
  return value as string[];
}

function malformed(name: string, rule: string): AttestedError {
  return new AttestedError('server_unsupported', `the server's metadata has a malformed ${name}`, { rule });
}
