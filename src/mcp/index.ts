/** `attested/mcp`: MCP clients and servers, SDK v1 and v2. */
export {
  type AccessToken,
  type JwtAccessTokenOptions,
  jwtAccessTokens,
  type VerifyAccessToken,
} from './access-tokens.ts';
export { type AttestedTransportOptions, attestedTransport } from './attested-transport.ts';
export * from './client.ts';
export {
  type McpHandler,
  type ProtectOptions,
  protect,
  type ResourceEndpointOptions,
  type ResourceEndpoints,
  resourceEndpoints,
} from './endpoints.ts';
export type { AuthInfo, GateRequest, RequireAttestedAgentOptions } from './gate.ts';
export { pushAuthorizationRequest } from './par.ts';
export { type RequireAttestedTransportOptions, requireAttestedTransport } from './require-attested-transport.ts';
export { nextHeaders, requireAttestedAgent } from './server.ts';
export { ERROR_META_KEY, requireForTool, type ToolDemand, type ToolDemands, type ToolRefusal } from './tools.ts';
export {
  ATTESTATION_META_KEY,
  attestationOf,
  CHALLENGE_META_KEY,
  type ToolContext,
  type TransportLike,
} from './transport.ts';
