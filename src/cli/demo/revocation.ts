/** The last attack: an instance that was good, did everything right, and is revoked in mid-run. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Act } from './act.ts';
import { type Expected, forgetRefusals, freshAt, judge } from './judge.ts';
import { CLIENTS } from './protocol.ts';
import { headerOf, post, type RawAnswer, type RawRequest, withHeaders } from './raw.ts';
import type { Scene } from './scene.ts';

/** Milliseconds: servers keep a status list for a second here, and ask again then. */
const REFRESHED_WITHIN = 6000;
const ASK_EVERY = 150;
const RULE = 'Token Status List §8.3';

const ADVICE = 'A revoked instance got through: please report this as a security bug.';

export const revocationAttacks: readonly Act[] = [
  {
    id: 'revoked-renewal',
    title: 'A revoked instance asks for another attestation',
    expected: 'attester_refused',
    advice: ADVICE,
    async run(scene) {
      const { attester, agent } = scene.fact('cast');
      const { thumbprint } = scene.fact('rotated');
      if (!(await attester.revoke(thumbprint))) throw new Error('the attester does not know the instance');
      try {
        await agent.rotate(CLIENTS.dpop_combined, scene.fact('world').mcp);
        return { ok: false, got: 'a new attestation' };
      } catch (error) {
        const { code, message } = error as Error & { code?: string };
        return { ok: code === 'attester_refused', got: String(code), details: [`the attester says: ${message}`] };
      }
    },
  },
  {
    id: 'revoked-at-mcp',
    title: 'A revoked instance calls with its unexpired attestation',
    expected: '401 invalid_client_attestation',
    advice: ADVICE,
    run: (scene) =>
      untilRefused(scene, { at: 'mcp', status: 401, error: 'invalid_client_attestation', because: RULE }, toolCall),
  },
  {
    id: 'revoked-at-as',
    title: 'A revoked instance asks for an access token',
    expected: '400 invalid_client_attestation',
    advice: ADVICE,
    run: (scene) =>
      untilRefused(
        scene,
        { at: 'authorizationServer', status: 400, error: 'invalid_client_attestation', because: RULE },
        tokenRequest,
      ),
  },
];

/** Each try with a fresh proof by the right key, until the server has seen the new status list. */
async function untilRefused(scene: Scene, expected: Expected, request: (scene: Scene) => Promise<RawRequest>) {
  const start = performance.now();
  let answer: RawAnswer;
  let tries = 0;
  for (;;) {
    const written = await request(scene);
    await forgetRefusals(scene, expected.at);
    answer = await post(written);
    tries++;
    if (answer.status >= 400 || performance.now() - start > REFRESHED_WITHIN) break;
    await sleep(ASK_EVERY);
  }
  const { details = [], ...result } = await judge(scene, expected, answer);
  const waited = Math.round(performance.now() - start);
  return { ...result, details: [...details, `refused at try ${tries}, after ${waited} ms`] };
}

async function toolCall(scene: Scene): Promise<RawRequest> {
  const call = scene.fact('agentCall');
  const { nonce } = await freshAt(scene, 'mcp');
  const accessToken = headerOf(call, 'authorization').slice('DPoP '.length);
  const { thumbprint } = scene.fact('rotated');
  const dpop = await scene.fact('cast').agent.prove({ thumbprint, method: 'POST', url: call.url, nonce, accessToken });
  return withHeaders(call, { dpop });
}

async function tokenRequest(scene: Scene): Promise<RawRequest> {
  const token = scene.fact('agentToken');
  const { nonce } = await freshAt(scene, 'authorizationServer');
  const { thumbprint } = scene.fact('rotated');
  const dpop = await scene.fact('cast').agent.prove({ thumbprint, method: 'POST', url: token.url, nonce });
  return withHeaders(token, { dpop });
}
