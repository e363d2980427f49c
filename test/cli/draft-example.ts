import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const vectors = JSON.parse(readFileSync(join(import.meta.dirname, '../vectors/draft-10.json'), 'utf8')) as {
  attestation: string;
  asPop: string;
};

const COLUMNS = 69;
const folded = (line: string): string => (line.match(new RegExp(`.{1,${COLUMNS}}`, 'g')) ?? []).join('\n');

/** A token request with the draft's example tokens, its lines broken for display as the draft breaks them. */
export const TOKEN_REQUEST: string = [
  'POST /token HTTP/1.1',
  'Host: as.example.com',
  'Content-Type: application/x-www-form-urlencoded',
  folded(`OAuth-Client-Attestation: ${vectors.attestation}`),
  folded(`OAuth-Client-Attestation-PoP: ${vectors.asPop}`),
  '',
  'grant_type=authorization_code&code=n0esc3NRze7LTCu7iYzS6a5acc3f0ogp4',
].join('\n');

/** When the example's tokens were made, seconds since the epoch. */
export const MADE_AT = 1_772_487_595;
