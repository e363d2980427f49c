/** An agent that speaks to an attester step by step, so that a test can do each step wrongly. */
import { type Attester, type AttesterEvent, type AttesterOptions, createAttester } from 'attested/attester';
import type { Signer } from '../../src/core/signer.ts';
import { proveSoftware } from '../../src/evidence/software/prove.ts';
import { generatePrivateKey, signerOf } from '../../src/platform/crypto.ts';

export const START = 1_800_000_000;
export const ISSUER = 'https://attester.example/tenant';
export const CLIENT = 'https://client.example/agent';

export const newSigner = (kid?: string): Signer => signerOf(generatePrivateKey('ES256'), 'ES256', kid);

/** A signer that counts, and that fails while it is told to. */
export function watchedSigner() {
  const signer = newSigner();
  const watched = {
    ...signer,
    signatures: 0,
    broken: false,
    sign: async (data: Uint8Array): Promise<Uint8Array> => {
      if (watched.broken) throw new Error('HSM gone');
      watched.signatures += 1;
      return signer.sign(data);
    },
  };
  return watched;
}

export function setUp(changes: Partial<AttesterOptions> = {}) {
  const clock = { seconds: START };
  const events: AttesterEvent[] = [];
  const signer = newSigner();
  const attester = createAttester({
    issuer: ISSUER,
    signer,
    policy: { clients: { [CLIENT]: { enrolment: { tokens: true } } } },
    now: () => clock.seconds * 1000,
    log: (event) => events.push(event),
    ...changes,
  });
  return { attester, clock, events, signer };
}

export interface Answer {
  status: number;
  headers: Headers;
  body: Record<string, unknown> & { attestation?: string; challenge?: string; error?: string; instance_id?: string };
}

export async function post(attester: Attester, path: string, body: unknown, init: RequestInit = {}): Promise<Answer> {
  const response = await attester.handler(
    new Request(`${attester.issuer}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...init,
    }),
  );
  return { status: response.status, headers: response.headers, body: (await response.json()) as Answer['body'] };
}

export const get = (attester: Attester, path: string, init: RequestInit = {}): Promise<Response> =>
  attester.handler(new Request(`${attester.issuer}${path}`, init));

export async function challengeOf(attester: Attester): Promise<string> {
  return (await post(attester, '/challenge', {})).body.challenge as string;
}

export interface Agent {
  enrolmentSigner: Signer;
  instanceSigner: Signer;
}
export const newAgent = (): Agent => ({ enrolmentSigner: newSigner(), instanceSigner: newSigner() });

export interface Ask {
  token?: string | undefined;
  clientId?: string;
  challenge?: string;
  storage?: 'software' | 'keychain';
  /** Last changes to the request, after it was proved. */
  change?: Record<string, unknown>;
}

/** An honest attestation request, but for what `ask` says. */
export async function requestBody(attester: Attester, agent: Agent, ask: Ask, seconds: number) {
  const { clientId = CLIENT, challenge = await challengeOf(attester), token, storage, change } = ask;
  const evidence = await proveSoftware({
    attester: attester.issuer,
    clientId,
    challenge,
    ...agent,
    storage,
    now: () => seconds * 1000,
  });
  return { client_id: clientId, challenge, evidence, enrolment_token: token, ...change };
}

export async function attest(
  attester: Attester,
  agent: Agent,
  ask: Ask = {},
  seconds: number = START,
): Promise<Answer> {
  return post(attester, '/attestation', await requestBody(attester, agent, ask, seconds));
}

export async function enrol(attester: Attester, agent: Agent = newAgent(), ask: Ask = {}): Promise<Answer> {
  return attest(attester, agent, { token: await attester.createEnrolmentToken({ clientId: CLIENT }), ...ask });
}
