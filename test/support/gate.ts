/** An MCP server's gate with one attester, one instance, its tokens, and a clock in the test's hand. */
import type { Signer } from '../../src/core/signer.ts';
import type { AttestedError } from '../../src/errors.ts';
import type { AccessToken } from '../../src/mcp/access-tokens.ts';
import {
  type AuthInfo,
  type GateRequest,
  type RequireAttestedAgentOptions,
  requireAttestedAgent,
} from '../../src/mcp/server.ts';
import { athOf, CLIENT_ID, createWorld, requestOf, type Sent, type World, type WorldOptions } from './world.ts';

export const RESOURCE = 'https://mcp.example/mcp';
export const METADATA_URL = 'https://mcp.example/.well-known/oauth-protected-resource/mcp';
/** The token's text, in every test: what it is, the test says. */
export const TOKEN = 'the-access-token-of-this-test';

export interface GateWorld {
  world: World;
  gate: (request: GateRequest) => Promise<AuthInfo | Response>;
  refusals: AttestedError[];
  /** What the token says. Default: bound to the instance by the AS's claim, and good for a minute. */
  token: AccessToken;
  /** An honest request with attestation and PoP, and a token of the scheme Bearer. Parts may be replaced. */
  sentPop(parts?: Partial<Sent>): Promise<Sent>;
  /** An honest request in combined mode; the token is then bound by `cnf.jkt`. */
  sentCombined(parts?: Partial<Sent>): Promise<Sent>;
  /** A DPoP proof for this server, of the instance's key or another. */
  proof(options?: { signer?: Signer; payload?: Record<string, string> }): Promise<string>;
  call(sent: Sent, request?: Partial<GateRequest>): Promise<AuthInfo | Response>;
}

export function createGate(
  options: Partial<RequireAttestedAgentOptions> = {},
  verifierOptions: Partial<WorldOptions> = {},
): GateWorld {
  const world = createWorld({ role: 'rs', audience: RESOURCE, ...verifierOptions });
  const refusals: AttestedError[] = [];
  const gateWorld: GateWorld = {
    world,
    refusals,
    token: {
      token: TOKEN,
      clientId: CLIENT_ID,
      scopes: ['mcp'],
      expiresAt: world.seconds() + 60,
      resource: new URL(RESOURCE),
      instance: world.instance.thumbprint,
    },
    gate: requireAttestedAgent({
      verifier: world.verifier,
      verifyAccessToken: async (token) => {
        if (token !== TOKEN) throw new Error(`unknown token ${token}`);
        return gateWorld.token;
      },
      resourceMetadataUrl: METADATA_URL,
      onRefusal: (error) => refusals.push(error),
      now: () => world.clock.now,
      ...options,
    }),
    sentPop: (parts = {}) => world.sent({ authorization: `Bearer ${TOKEN}`, ...parts }),
    async sentCombined(parts = {}) {
      gateWorld.token = { ...gateWorld.token, jkt: world.instance.thumbprint };
      const dpop = parts.dpop === undefined ? await gateWorld.proof() : parts.dpop;
      return world.sent({ pop: null, authorization: `DPoP ${TOKEN}`, ...parts, dpop });
    },
    async proof({ signer = world.instance, payload = {} } = {}) {
      const { kid: _, ...jwk } = signer.publicJwk;
      return world.dpop({
        signer,
        header: { alg: signer.alg, jwk: jwk as never },
        payload: { htu: RESOURCE, ath: athOf(TOKEN), nonce: await world.nonce(), ...payload },
      });
    },
    call: (sent, request = {}) =>
      gateWorld.gate({ method: 'POST', url: '/mcp', headers: requestOf(sent).headers, ...request }),
  };
  return gateWorld;
}
