/**
 * What must fail, tried against the servers that just did their work. The attacker is this process: it holds copies of what
 * went over the wire and keys of its own, and none of the agent's keys. Where an attack needs a genuine instance that
 * turned bad, the agent process signs what it is told to, with its own key.
 */
import { createAttestation, createDpopProof, createPop } from '../../index.ts';
import { generateSigner } from '../../keys/index.ts';
import type { Act } from './act.ts';
import { type Expected, forgetRefusals, freshAt, judge } from './judge.ts';
import { machineAttacks } from './machines.ts';
import { CLIENTS, HARDWARE_TOOL } from './protocol.ts';
import { copyOf, headerOf, post, type RawRequest, withHeaders, without } from './raw.ts';
import { revocationAttacks } from './revocation.ts';
import type { Scene } from './scene.ts';

interface Attack extends Expected {
  id: string;
  title: string;
  request(scene: Scene): Promise<RawRequest>;
}

const ADVICE =
  'A server accepted what it must refuse, or refused it for another reason: please report this as a security bug.';

const eve = generateSigner('ES256', 'eve');

const table: readonly Attack[] = [
  {
    id: 'stolen-token',
    title: 'A stolen access token, without the key',
    at: 'mcp',
    status: 401,
    error: 'invalid_client_attestation',
    because: 'VER-1',
    request: async (scene) => copyOf(without(scene.fact('agentCall'), 'oauth-client-attestation', 'dpop')),
  },
  {
    id: 'stolen-token-other-instance',
    title: 'A stolen access token, in the hands of another instance of the same client',
    at: 'mcp',
    status: 401,
    error: 'invalid_token',
    because: 'BIND-1',
    // the agent's identity at the second server: to the first one it is another instance, genuine and attested
    async request(scene) {
      const call = scene.fact('agentCall');
      const authorization = headerOf(call, 'authorization');
      const { nonce } = await freshAt(scene, 'mcp');
      const proof = await scene.fact('cast').agent.prove({
        thumbprint: scene.fact('other').thumbprint,
        method: 'POST',
        url: call.url,
        nonce,
        accessToken: authorization.slice('DPoP '.length),
      });
      const attestation = headerOf(scene.fact('otherCall'), 'oauth-client-attestation');
      return withHeaders(call, { 'oauth-client-attestation': attestation, dpop: proof });
    },
  },
  {
    id: 'stolen-bearer-token',
    title: 'A stolen bearer token, in the hands of another client',
    at: 'mcp',
    status: 401,
    error: 'invalid_token',
    because: 'VER-6',
    async request(scene) {
      const call = scene.fact('agentCall');
      const bearer = headerOf(scene.fact('workerCall'), 'authorization');
      const { nonce } = await freshAt(scene, 'mcp');
      const proof = await scene.fact('cast').agent.prove({
        thumbprint: scene.fact('rotated').thumbprint,
        method: 'POST',
        url: call.url,
        nonce,
        accessToken: bearer.slice('Bearer '.length),
      });
      return withHeaders(call, { authorization: bearer, dpop: proof });
    },
  },
  {
    id: 'attackers-key',
    title: "A stolen attestation and token, with a proof by the attacker's key",
    at: 'mcp',
    status: 401,
    error: 'invalid_client_attestation',
    because: 'DPOP-3',
    async request(scene) {
      const call = scene.fact('agentCall');
      const { nonce } = await freshAt(scene, 'mcp');
      const accessToken = headerOf(call, 'authorization').slice('DPoP '.length);
      return withHeaders(call, {
        dpop: await createDpopProof({ method: 'POST', url: call.url, nonce, accessToken }, eve),
      });
    },
  },
  {
    id: 'attackers-key-at-as',
    title: "A stolen attestation at the authorization server, with a PoP by the attacker's key",
    at: 'authorizationServer',
    status: 401,
    error: 'invalid_client',
    because: 'signature verification failed',
    async request(scene) {
      const { challenge } = await freshAt(scene, 'authorizationServer');
      const pop = await createPop({ audience: scene.fact('world').authorizationServer, challenge }, eve);
      return withHeaders(scene.fact('workerToken'), { 'oauth-client-attestation-pop': pop });
    },
  },
  {
    id: 'forged-attestation',
    title: 'An attestation that the attacker signed as its own attester',
    at: 'mcp',
    status: 401,
    error: 'invalid_client_attestation',
    because: 'VER-3',
    async request(scene) {
      const call = scene.fact('workerCall');
      const { challenge } = await freshAt(scene, 'mcp');
      const exp = Math.floor(Date.now() / 1000) + 600;
      const claims = { sub: CLIENTS.attestation_pop_jwt, exp, cnf: { jwk: eve.publicJwk } };
      return withHeaders(call, {
        'oauth-client-attestation': await createAttestation(claims, eve),
        'oauth-client-attestation-pop': await createPop({ audience: call.url, challenge }, eve),
      });
    },
  },
  {
    id: 'replay-dpop',
    title: 'An exact copy of a tool call (DPoP)',
    at: 'mcp',
    status: 401,
    error: 'invalid_dpop_proof',
    because: 'VER-8',
    request: async (scene) => copyOf(scene.fact('agentCall')),
  },
  {
    id: 'replay-pop',
    title: 'An exact copy of a tool call (PoP JWT)',
    at: 'mcp',
    status: 401,
    error: 'invalid_client_attestation',
    because: 'VER-8',
    request: async (scene) => copyOf(scene.fact('workerCall')),
  },
  {
    id: 'replay-dpop-at-as',
    title: 'An exact copy of a token request (DPoP)',
    at: 'authorizationServer',
    status: 400,
    error: 'invalid_client_attestation',
    because: 'VER-8',
    request: async (scene) => copyOf(scene.fact('agentToken')),
  },
  {
    id: 'replay-pop-at-as',
    title: 'An exact copy of a token request (PoP JWT)',
    at: 'authorizationServer',
    status: 400,
    error: 'invalid_client_attestation',
    because: 'VER-8',
    request: async (scene) => copyOf(scene.fact('workerToken')),
  },
  {
    id: 'other-audience',
    title: 'Attestation and PoP for the authorization server, sent to the MCP server',
    at: 'mcp',
    status: 401,
    error: 'invalid_client_attestation',
    because: 'POP-2',
    async request(scene) {
      const token = scene.fact('workerToken');
      return withHeaders(scene.fact('workerCall'), {
        'oauth-client-attestation': headerOf(token, 'oauth-client-attestation'),
        'oauth-client-attestation-pop': headerOf(token, 'oauth-client-attestation-pop'),
      });
    },
  },
  {
    id: 'relay',
    title: 'A tool call that the first MCP server passes on to the second, as if it were the agent',
    at: 'otherMcp',
    status: 401,
    error: 'invalid_dpop_proof',
    because: 'DPOP-2',
    request: async (scene) => ({ ...copyOf(scene.fact('agentCall')), url: scene.fact('world').otherMcp }),
  },
  {
    id: 'other-client',
    title: "A genuine instance that gives another client's client_id",
    at: 'authorizationServer',
    status: 400,
    error: 'invalid_request',
    because: 'client_id mismatch',
    async request(scene) {
      const own = scene.fact('workerToken');
      const { nonce } = await freshAt(scene, 'authorizationServer');
      const { thumbprint } = scene.fact('worker');
      const proof = await scene.fact('cast').agent.prove({ thumbprint, method: 'POST', url: own.url, nonce });
      const body = own.body.replace(CLIENTS.attestation_pop_jwt, CLIENTS.dpop_combined);
      return { ...withHeaders(without(own, 'oauth-client-attestation-pop'), { dpop: proof }), body };
    },
  },
  {
    id: 'software-at-hardware-tool',
    title: 'An agent with software keys calls the tool that demands a key in hardware',
    at: 'mcp',
    status: 403,
    error: 'access_denied',
    because: 'VER-5',
    async request(scene) {
      const call = scene.fact('workerCall');
      const { challenge } = await freshAt(scene, 'mcp');
      const { thumbprint } = scene.fact('worker');
      const pop = await scene.fact('cast').agent.prove({ thumbprint, audience: call.url, challenge });
      const body = call.body.replace('whoami', HARDWARE_TOOL);
      return { ...withHeaders(call, { 'oauth-client-attestation-pop': pop }), body };
    },
  },
];

/** In this order: what revokes the agent comes last. */
export const attacks: readonly Act[] = [...table.map(actOf), ...machineAttacks, ...revocationAttacks];

function actOf(attack: Attack): Act {
  const { id, title, status, error, request } = attack;
  return {
    id,
    title,
    expected: `${status} ${error}`,
    advice: ADVICE,
    async run(scene) {
      const written = await request(scene);
      await forgetRefusals(scene, attack.at);
      return judge(scene, attack, await post(written));
    },
  };
}
