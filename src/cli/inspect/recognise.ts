/** What somebody pasted: a token, header lines, or the concatenated form; and which token is which. */
import {
  ATTESTATION_HEADER,
  CHALLENGE_HEADER,
  DPOP_HEADER,
  DPOP_NONCE_HEADER,
  POP_HEADER,
} from '../../core/headers.ts';
import { decodeToken } from './decode.ts';

export type Kind =
  | 'attestation'
  | 'pop'
  | 'dpop'
  | 'status-list'
  | 'access-token'
  | 'jwt'
  | 'challenge'
  | 'nonce'
  | 'unknown';

export interface Item {
  kind: Kind;
  /** Name of the header field; undefined for a token on its own. */
  field: string | undefined;
  /** Token, challenge, or the value of a field that is none of ours. */
  text: string;
}

export interface Recognised {
  form: 'token' | 'headers' | 'concatenated';
  items: Item[];
  /** What was done to the text before it could be read. */
  notes: string[];
}

const BY_FIELD: Readonly<Record<string, Kind>> = {
  [ATTESTATION_HEADER.toLowerCase()]: 'attestation',
  [POP_HEADER.toLowerCase()]: 'pop',
  [DPOP_HEADER.toLowerCase()]: 'dpop',
  [CHALLENGE_HEADER.toLowerCase()]: 'challenge',
  [DPOP_NONCE_HEADER.toLowerCase()]: 'nonce',
};

const BY_TYP: Readonly<Record<string, Kind>> = {
  'oauth-client-attestation+jwt': 'attestation',
  'oauth-client-attestation-pop+jwt': 'pop',
  'dpop+jwt': 'dpop',
  'statuslist+jwt': 'status-list',
  'at+jwt': 'access-token',
};

const FIELD_LINE = /^[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,200}):(.*)$/;

export function recognise(input: string): Recognised {
  const lines = input.split(/\r?\n/).filter((line) => line.trim() !== '');
  if (FIELD_LINE.test(lines[0] ?? '')) return { form: 'headers', ...fieldsOf(lines) };
  const text = lines.join('').replace(/\s+/g, '');
  const notes = text === input.trim() ? [] : ['white space inside was left out'];
  if (!text.includes('~')) return { form: 'token', items: [tokenOf(text)], notes };
  return { form: 'concatenated', items: text.split('~').map(tokenOf), notes };
}

function fieldsOf(lines: readonly string[]): { items: Item[]; notes: string[] } {
  const { fields, folded } = readFields(lines);
  return { items: fields.map(itemOf), notes: folded ? ['folded lines were joined'] : [] };
}

export interface HeaderField {
  name: string;
  value: string;
}

/** Lines of a request or response; a line without a name continues the one before it, as print-outs fold them. */
export function readFields(lines: readonly string[]): { fields: HeaderField[]; folded: boolean } {
  const fields: HeaderField[] = [];
  let folded = false;
  for (const line of lines) {
    const [, name, value] = FIELD_LINE.exec(line) ?? [];
    const last = fields.at(-1);
    if (name !== undefined && value !== undefined) fields.push({ name, value: value.trim() });
    else if (last !== undefined) {
      last.value += line.trim();
      folded = true;
    }
  }
  return { fields, folded };
}

function itemOf({ name, value }: HeaderField): Item {
  const field = name.toLowerCase();
  if (field !== 'authorization') return { kind: BY_FIELD[field] ?? 'unknown', field: name, text: value };
  const token = /^(?:bearer|dpop) +(\S+)$/i.exec(value)?.[1];
  const kind = token !== undefined && token.split('.').length === 3 ? 'access-token' : 'unknown';
  return { kind, field: name, text: kind === 'access-token' ? (token as string) : value };
}

function tokenOf(text: string): Item {
  const { header } = decodeToken(text);
  const typ = header?.typ;
  const known = typeof typ === 'string' && Object.hasOwn(BY_TYP, typ) ? BY_TYP[typ] : undefined;
  return { kind: known ?? (header === undefined ? 'unknown' : 'jwt'), field: undefined, text };
}
