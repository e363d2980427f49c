/** Recognise, decode, explain, judge: the whole inspection as data. */
import type { ParsedAttestation } from '../../core/attestation.ts';
import { splitAttestation } from '../../core/concatenated.ts';
import { readAttestationFields } from '../../core/headers.ts';
import { AttestedError } from '../../errors.ts';
import { decodeToken } from './decode.ts';
import { explain, type Field } from './explain.ts';
import {
  type Finding,
  type Judgement,
  judgeAccessToken,
  judgeAttestation,
  judgeDpop,
  judgePop,
  judgeStatusList,
  type Surroundings,
} from './findings.ts';
import { type Item, type Kind, type Recognised, recognise } from './recognise.ts';

export interface InspectedToken {
  kind: Kind;
  field: string | undefined;
  bytes: number;
  fields: Field[];
  findings: Finding[];
  checked: string[];
  unchecked: string[];
}

export interface Inspection {
  form: Recognised['form'];
  notes: string[];
  /** Bytes of the header fields together, as they would be sent. */
  headerBytes: number;
  tokens: InspectedToken[];
  /** What is wrong with the whole rather than with one token. */
  findings: Finding[];
  /** Nothing that was judged would be refused. */
  ok: boolean;
}

export type Beside = Omit<Surroundings, 'attestation' | 'besidePop'>;

export async function inspect(input: string, beside: Beside): Promise<Inspection> {
  const { form, items, notes } = recognise(input);
  const besidePop = items.some(({ kind }) => kind === 'pop');
  let attestation: ParsedAttestation | undefined;
  const judgements = new Map<Item, Judgement>();
  // the attestation first: what stands beside it is judged by it
  const ordered = [...items].sort((a, b) => Number(b.kind === 'attestation') - Number(a.kind === 'attestation'));
  for (const item of ordered) {
    const judgement = await judgeItem(item, { ...beside, attestation, besidePop });
    attestation ??= judgement.attestation;
    judgements.set(item, judgement);
  }
  const tokens = items.map((item) => describe(item, judgements.get(item) ?? NOTHING, beside.now));
  const findings = judgeWhole(input, form, items, beside);
  const ok = findings.length === 0 && tokens.every((token) => token.findings.length === 0);
  const headerBytes = items.reduce((sum, { lineBytes }) => sum + lineBytes, 0);
  return { form, notes, headerBytes, tokens, findings, ok };
}

const NOTHING: Judgement = { findings: [], checked: [], unchecked: [] };

const JUDGES: Partial<Record<Kind, (text: string, around: Surroundings) => Judgement | Promise<Judgement>>> = {
  attestation: judgeAttestation,
  pop: judgePop,
  dpop: judgeDpop,
  'status-list': judgeStatusList,
  'access-token': (text, around) => judgeAccessToken(decodeToken(text).payload ?? {}, around),
};

async function judgeItem({ kind, text, field }: Item, around: Surroundings): Promise<Judgement> {
  const judge = JUDGES[kind];
  if (judge !== undefined) return judge(text, around);
  if (field !== undefined) return NOTHING;
  const message = kind === 'jwt' ? 'a JWT of none of the types used here' : 'neither a compact JWT nor header lines';
  return { ...NOTHING, findings: [{ code: 'invalid_client_attestation', rule: 'ATT-1', message }] };
}

function describe(item: Item, { findings, checked, unchecked }: Judgement, now: number): InspectedToken {
  const { kind, field, text } = item;
  const decoded = kind === 'challenge' || kind === 'nonce' ? undefined : decodeToken(text);
  const fields = explain(kind, decoded?.header, decoded?.payload, now);
  return { kind, field, bytes: Buffer.byteLength(text), fields, findings, checked, unchecked };
}

function judgeWhole(input: string, form: Recognised['form'], items: readonly Item[], { revision }: Beside): Finding[] {
  const findings: Finding[] = [];
  const attempt = (check: () => unknown) => {
    try {
      check();
    } catch (error) {
      if (!(error instanceof AttestedError)) throw error;
      findings.push({ code: error.code, rule: error.rule, message: error.message });
    }
  };
  const refuse = (rule: string, message: string) =>
    findings.push({ code: 'invalid_client_attestation', rule, message });
  if (form === 'concatenated') {
    attempt(() => splitAttestation(input.replace(/\s+/g, '')));
    if (!revision.concatenated) refuse('CAT-1', 'this revision has no concatenated form; a policy may allow it');
  }
  if (form === 'headers') {
    attempt(() => readAttestationFields(items.map(({ field = '', text }) => [field, text] as const)));
    const has = (kind: Kind) => items.some((item) => item.kind === kind);
    if (has('attestation') && !has('pop') && !has('dpop'))
      refuse('POP-8', 'no proof of possession beside the attestation');
    if (has('pop') && !has('attestation')) refuse('VER-1', 'a proof of possession without its attestation');
  }
  return findings;
}
