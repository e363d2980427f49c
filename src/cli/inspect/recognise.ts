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
  /** Bytes of the header line; 0 for a token on its own. */
  lineBytes: number;
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
  const head = headOf(input);
  if (FIELD_LINE.test(head[0] ?? '')) {
    const { fields, folded } = readFields(head);
    return { form: 'headers', items: fields.map(itemOf), notes: folded ? ['folded lines were joined'] : [] };
  }
  const text = input.replace(/\s+/g, '');
  const notes = text === input.trim() ? [] : ['white space inside was left out'];
  if (!text.includes('~')) return { form: 'token', items: [tokenOf(text)], notes };
  return { form: 'concatenated', items: text.split('~').map(tokenOf), notes };
}

const START_LINE = /^(?:[A-Z]+ \S+ HTTP\/[\d.]+|HTTP\/[\d.]+ \d{3}.*)$/;

/** The header lines of what may be a whole HTTP message: without its first line, and up to the empty one. */
export function headOf(input: string): string[] {
  const lines = input.split(/\r?\n/).map((line) => line.trimEnd());
  const first = lines.findIndex((line) => line !== '' && !START_LINE.test(line));
  const rest = first < 0 ? [] : lines.slice(first);
  const end = rest.indexOf('');
  return end < 0 ? rest : rest.slice(0, end);
}

export interface HeaderField {
  name: string;
  value: string;
}

/** A line without a name continues the one before it, as print-outs fold them. */
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
  const lineBytes = Buffer.byteLength(`${name}: ${value}\r\n`);
  const field = name.toLowerCase();
  if (field !== 'authorization') return { kind: BY_FIELD[field] ?? 'unknown', field: name, text: value, lineBytes };
  const token = /^(?:bearer|dpop) +(\S+)$/i.exec(value)?.[1];
  const isJwt = token !== undefined && token.split('.').length === 3;
  return { kind: isJwt ? 'access-token' : 'unknown', field: name, text: isJwt ? token : value, lineBytes };
}

function tokenOf(text: string): Item {
  const { header } = decodeToken(text);
  const typ = header?.typ;
  const known = typeof typ === 'string' && Object.hasOwn(BY_TYP, typ) ? BY_TYP[typ] : undefined;
  return { kind: known ?? (header === undefined ? 'unknown' : 'jwt'), field: undefined, text, lineBytes: 0 };
}
