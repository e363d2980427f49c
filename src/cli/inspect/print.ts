/** An inspection for people. Everything from the token goes through `visible`. */
import { type Io, padTo, paintFor, visible } from '../io.ts';
import type { Finding } from './findings.ts';
import type { InspectedToken, Inspection } from './inspect.ts';
import type { Kind } from './recognise.ts';

const TITLES: Readonly<Record<Kind, string>> = {
  attestation: 'Client Attestation',
  pop: 'Client Attestation PoP',
  dpop: 'DPoP proof',
  'status-list': 'Status List Token',
  'access-token': 'Access token',
  jwt: 'JWT of another kind',
  challenge: 'Attestation challenge',
  nonce: 'DPoP nonce',
  unknown: 'Not looked into',
};

/** What servers usually accept of header fields in all, bytes (IMPL-3). */
const USUAL_LIMIT = 8192;
/** Longer values are cut; `--json` has them whole. */
const SHOWN = 240;

export function printInspection(inspection: Inspection, io: Io): void {
  const paint = paintFor(io);
  const { form, notes, tokens, headerBytes, findings, ok } = inspection;
  for (const note of notes) io.out(`${paint.dim(`(${note})`)}\n`);
  for (const token of tokens) printToken(token, io);
  if (form === 'headers') {
    const share = Math.round((headerBytes / USUAL_LIMIT) * 100);
    io.out(
      `These header fields take ${headerBytes} bytes: ${share} % of the 8 kB that servers usually accept in all.\n\n`,
    );
  }
  for (const finding of findings) io.out(findingLine(finding, paint));
  io.out(
    ok
      ? `${paint.green('Nothing here would be refused')}, as far as it could be checked.\n`
      : `${paint.red('A verifier with its defaults would refuse this.')}\n`,
  );
}

function printToken(token: InspectedToken, io: Io): void {
  const paint = paintFor(io);
  const { kind, field, bytes, fields, findings, checked, unchecked } = token;
  const where = field === undefined ? '' : `, in ${visible(field)}`;
  io.out(`${paint.bold(TITLES[kind])}${where}, ${bytes} bytes\n`);
  if (kind === 'unknown') {
    for (const finding of findings) io.out(findingLine(finding, paint));
    io.out('\n');
    return;
  }
  const rows = fields.map(({ in: part, name, value, meaning }) => ({
    name: `${part === 'header' ? 'header ' : ''}${shortened(name)}`,
    value: shortened(typeof value === 'string' ? value : JSON.stringify(value)),
    meaning,
  }));
  const width = Math.min(28, Math.max(0, ...rows.map(({ name }) => name.length)));
  for (const { name, value, meaning } of rows) {
    io.out(`  ${padTo(name, width)}  ${value}\n  ${' '.repeat(width)}  ${paint.dim(visible(meaning))}\n`);
  }
  for (const held of checked) io.out(`  ${paint.green('✓')} ${held}\n`);
  for (const open of unchecked) io.out(`  ${paint.yellow('?')} not checked: ${open}\n`);
  for (const finding of findings) io.out(findingLine(finding, paint));
  io.out('\n');
}

function findingLine({ rule, code, message }: Finding, paint: ReturnType<typeof paintFor>): string {
  return `  ${paint.red('✗')} ${rule ?? '-'}: ${visible(message)} ${paint.dim(`(${code})`)}\n`;
}

function shortened(text: string): string {
  const shown = visible(text.slice(0, SHOWN));
  return text.length > SHOWN ? `${shown}… (${text.length} characters)` : shown;
}
