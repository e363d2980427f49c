/** The report in plain words. What comes from the machine goes through `visible`. */
import type { TpmDescription } from '../../keys/tpm/describe.ts';
import { type Io, padTo, paintFor, visible, wrap } from '../io.ts';
import type { Report } from './examine.ts';
import type { TpmReport } from './tpm.ts';

const INDENT = 11;
const WIDEST = 120;
/** How certificates say that they do not expire (RFC 5280 §4.1.2.5). */
const NO_END = Date.UTC(9999, 11, 31);

export function printReport(report: Report, io: Io): void {
  const paint = paintFor(io);
  const width = Math.min(io.columns ?? WIDEST, WIDEST) - INDENT;
  const section = (title: string, lines: readonly string[]) => {
    const broken = lines.flatMap((line) => wrap(visible(line), width).map((part, i) => (i === 0 ? part : `  ${part}`)));
    const [first = '', ...rest] = broken;
    io.out(`${paint.bold(padTo(title, INDENT))}${first}\n`);
    for (const line of rest) io.out(`${' '.repeat(INDENT)}${line}\n`);
  };
  const { node, clock, tpm, keychain, files, directory, choice, findings } = report;
  section('Node', [`${node.version} (needed: ${node.needed})`]);
  section('Clock', [
    clock.now,
    ...(clock.newest ? [`newest file looked at: ${clock.newest.written}, ${clock.newest.path}`] : []),
  ]);
  section('TPM', tpmLines(tpm));
  section('Keychain', [
    keychain.state === 'works'
      ? `works: ${keychain.reading} ms to read an entry, ${keychain.signature} ms for an ES256 signature`
      : `${keychain.state}: ${keychain.message}`,
  ]);
  section('Files', ['signature' in files ? `work: ${files.signature} ms for an ES256 signature` : files.message]);
  const keys = directory.keys === undefined ? '' : ` (${directory.keys} ${directory.keys === 1 ? 'key' : 'keys'})`;
  section('Directory', [
    directory.path,
    directory.backend === undefined ? directory.message : `keeps to ${directory.backend}${keys}: ${directory.message}`,
  ]);
  section('Choice', [
    choice.kind === undefined ? "openKeys('auto') would refuse" : `openKeys('auto') takes ${choice.kind}`,
    ...choice.why.split('; '),
  ]);
  io.out('\nOptions that give up some security:\n');
  for (const { where, option, meaning } of report.relaxations) {
    io.out(`  ${padTo(`${where} ${option}`, 44)} ${meaning}\n`);
  }
  io.out('\n');
  for (const { code, exit, message, remedy } of findings) {
    io.out(`${paint.yellow('!')} ${visible(message)} ${paint.dim(`(${code}, ${exit})`)}\n`);
    if (remedy !== undefined) io.out(`  ${visible(remedy)}\n`);
  }
  if (findings.length === 0) io.out(`${paint.green('All well.')}\n`);
}

function tpmLines(tpm: TpmReport): string[] {
  const { state, message, description, library, device, signature } = tpm;
  const lines = [state === 'works' ? `works, through ${tpm.tcti}` : `${state}: ${message}`];
  if (state !== 'works' && tpm.tcti !== undefined) lines.push(`looked for through ${tpm.tcti}`);
  if (state === 'works' && tpm.managed === false)
    lines.push('without a resource manager: its few slots are shared with other programs');
  if (device !== undefined) {
    lines.push(`${device.path}: group ${device.group}, this user is ${device.member ? '' : 'not '}in it`);
  }
  lines.push(
    library.loads
      ? `tpm2-tss ${library.version ?? '(no package manager knows its version)'}`
      : `tpm2-tss is not installed; to install it: ${library.install}`,
  );
  if (description !== undefined) lines.push(...descriptionLines(description));
  if (signature !== undefined) lines.push(`${signature} ms for an ES256 signature`);
  return lines;
}

function descriptionLines(description: TpmDescription): string[] {
  const { family, revision, manufacturer, vendorText, firmware, algorithms, lockout, passwords } = description;
  const own = vendorText === '' ? '' : ` "${vendorText}"`;
  return [
    `TPM ${family} revision ${revision}, ${manufacturer.name ?? manufacturer.id}${own}, firmware ${firmware}`,
    `keys for ${algorithms.join(', ')}; ${description.freeSlots} slots free`,
    `storage key: ${description.persistentStorageKey ? 'persistent, 0x81000001' : 'made from the standard template each time'}`,
    `lock-out: ${lockout.locked ? 'locked out' : `${lockout.failures} of ${lockout.limit} failures`}`,
    ...(passwords.owner ? ['the owner hierarchy has a password'] : []),
    ...(passwords.endorsement
      ? ['the endorsement hierarchy has a password: this TPM cannot prove which one it is']
      : []),
    endorsementKey(description),
    ...description.endorsementCertificates.map(({ kind, certificate, unreadable }) => {
      if (certificate === undefined) return `endorsement certificate ${kind}: ${unreadable}`;
      const { subject, manufacturerName, issuer, notAfter } = certificate;
      const maker = manufacturerName ?? subject.manufacturer ?? 'unnamed maker';
      const model = subject.model === undefined ? '' : `, model ${subject.model}`;
      return `endorsement certificate ${kind}: ${maker}${model}, by ${issuer}, ${notAfter >= NO_END ? 'without end' : `until ${new Date(notAfter).toISOString().slice(0, 10)}`}`;
    }),
    ...(description.endorsementCertificates.length === 0 ? ['no endorsement certificate'] : []),
  ];
}

function endorsementKey({ endorsementKey: key }: TpmDescription): string {
  if ('unavailable' in key) return `endorsement key: ${key.unavailable}`;
  return `endorsement key ${key.kind}, ${key.certified ? 'certified' : 'not certified'}: ${key.hash}`;
}
