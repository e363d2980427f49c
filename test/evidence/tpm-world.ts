/** An attester that believes one maker of TPMs, and an agent that speaks to it step by step with a TPM of its own. */
import type { Attester, AttesterOptions, ClientPolicy } from 'attested/attester';
import type { JsonObject } from '../../src/core/json.ts';
import { proveActivation, proveTpm } from '../../src/evidence/tpm/prove.ts';
import { type Answer, CLIENT, post, START, setUp } from '../attester/helpers.ts';
import { newMaker, type SoftwareTpm, softwareTpm } from './software-tpm.ts';

export const maker = newMaker();
export const PCRS = [0, 1, 2, 3, 4, 5, 6, 7];

export interface Setting extends Partial<AttesterOptions> {
  client?: ClientPolicy;
}

export function tpmAttester({ client, tpm, ...changes }: Setting = {}) {
  return setUp({
    tpm: { roots: [maker.der], ...tpm },
    policy: {
      clients: { [CLIENT]: { enrolment: { tokens: true }, ...client }, other: { enrolment: { tokens: true } } },
    },
    ...changes,
  });
}
export const newTpm = () => softwareTpm({ maker });

export interface Ask {
  token?: string | undefined;
  clientId?: string;
  challenge?: string;
  seconds?: number;
  /** Changes to the JSON of the first step, after it was proved. */
  change?: (evidence: JsonObject) => void;
  /** Between the first answer and the second request. */
  between?: () => void;
  /** The second step's evidence. */
  second?: (evidence: JsonObject) => JsonObject;
}

const quoteOf = (offer: JsonObject) => {
  const quote = offer.quote as { pcrs: { sha256: number[] }; event_log: boolean } | undefined;
  return quote && { pcrs: quote.pcrs, eventLog: quote.event_log };
};

export async function firstStep(attester: Attester, tpm: SoftwareTpm, ask: Ask = {}) {
  const { clientId = CLIENT, token, seconds = START } = ask;
  const offer = (await post(attester, '/challenge', {})).body as unknown as JsonObject;
  const input = {
    attester: attester.issuer,
    clientId,
    challenge: ask.challenge ?? (offer.challenge as string),
    ...tpm.signers(),
    tpm: tpm.device,
    enrolmentLabel: 'enrolment',
    instanceLabel: 'instance',
    quote: quoteOf(offer),
    now: () => seconds * 1000,
  };
  const evidence: JsonObject = await proveTpm(input);
  ask.change?.(evidence);
  const body = { client_id: clientId, challenge: input.challenge, evidence, enrolment_token: token };
  return { input, answer: await post(attester, '/attestation', body) };
}

/** Both steps, or the one that is enough. */
export async function attestTpm(attester: Attester, tpm: SoftwareTpm, ask: Ask = {}): Promise<Answer> {
  const { input, answer } = await firstStep(attester, tpm, ask);
  if (answer.body.next === undefined) return answer;
  ask.between?.();
  const challenge = answer.body.challenge as string;
  const honest = await proveActivation({ ...input, challenge }, answer.body.next as JsonObject);
  const evidence = ask.second?.(honest) ?? honest;
  return post(attester, '/attestation', {
    client_id: input.clientId,
    challenge,
    evidence,
    enrolment_token: ask.token,
  });
}

export async function enrolTpm(attester: Attester, tpm: SoftwareTpm, ask: Ask = {}): Promise<Answer> {
  const token = await attester.createEnrolmentToken({ clientId: ask.clientId ?? CLIENT });
  return attestTpm(attester, tpm, { token, ...ask });
}

/** What the operator is told of a refusal. */
export const refusals = (events: readonly object[]) =>
  events.filter((event): event is { code: string; rule: string; message: string } => 'code' in event);

export const statement = (part: string) => (evidence: JsonObject) => evidence[part] as Record<string, string>;
export const enrolmentOf = statement('enrolment');
export const instanceOf = statement('instance');
export const bytesOf = (text: string | undefined) => new Uint8Array(Buffer.from(text!, 'base64url'));
export const textOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url');
export const stranger = newTpm();

/** Changes a TPM, and may give a change to the JSON that it then sends. */
export type Attack = (tpm: SoftwareTpm) => unknown;

export function changeBy(attack: Attack, tpm: SoftwareTpm): Ask {
  const change = attack(tpm);
  return typeof change === 'function' ? { change: change as (evidence: JsonObject) => void } : {};
}
