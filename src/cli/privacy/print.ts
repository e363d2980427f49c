/** Correlations as tables for a terminal. */
import type { Correlation, Correlations } from '../../agent/correlations.ts';
import { type Io, type Paint, padTo, paintFor, visible, widthOf, wrap } from '../io.ts';

const WIDEST = 100;
const GAP = 2;

/** What links, in the words of the table. */
export function nameOf({ by, name }: Correlation): string {
  return WORDS[by](name);
}

const WORDS: Readonly<Record<Correlation['by'], (name: string) => string>> = {
  key: (name) => `key ${name.slice(0, 12)}…`,
  claim: (name) => `claim ${name}`,
  client_id: () => 'client_id',
  status: () => 'status entry',
  token: () => 'access token',
};

export function printCorrelations(agents: readonly Correlations[], io: Io): void {
  const paint = paintFor(io);
  const width = Math.min(io.columns ?? WIDEST, WIDEST);
  io.out(agents.map((agent) => describe(agent, width, paint)).join('\n'));
}

function describe({ clientId, servers, links }: Correlations, width: number, paint: Paint): string {
  const keys = servers.map(({ name, thumbprints }) => [
    visible(name),
    thumbprints.map((thumbprint) => `${thumbprint.slice(0, 12)}…`).join(' '),
  ]);
  const lines = [
    paint.bold(`Client ${visible(clientId)}`),
    '',
    ...table([['SERVER', 'KEYS IT HAS SEEN'], ...keys], paint),
  ];
  const avoidable = links.filter(({ remedy }) => remedy !== undefined);
  const unavoidable = links.filter(({ remedy }) => remedy === undefined);
  lines.push(
    '',
    ...(avoidable.length === 0 ? [paint.green('  Nothing that could be avoided links two of them.')] : []),
  );
  if (avoidable.length > 0) {
    lines.push(...table([['LINK', 'LETS THESE TELL THAT THEY SERVE THE SAME AGENT'], ...rowsOf(avoidable)], paint));
    for (const remedy of new Set(avoidable.map((link) => link.remedy as string))) {
      lines.push('', ...wrap(`To keep them apart: ${remedy}.`, width - GAP).map((line) => paint.yellow(`  ${line}`)));
    }
  }
  if (unavoidable.length > 0) {
    lines.push('', ...table([['LINK', 'WHICH NO CLIENT CAN AVOID'], ...rowsOf(unavoidable)], paint));
  }
  return `${lines.join('\n')}\n`;
}

/** One row for each server, the link's name in the first of them. */
function rowsOf(links: readonly Correlation[]): string[][] {
  return links.flatMap((link) =>
    link.servers.map((server, i) => [i === 0 ? visible(nameOf(link)) : '', visible(server)]),
  );
}

function table([head = [], ...rows]: readonly string[][], paint: Paint): string[] {
  const first = Math.max(...[head, ...rows].map(([cell = '']) => widthOf(cell)));
  const line = ([one = '', two = '']: readonly string[]) => `  ${padTo(one, first + GAP)}${two}`.trimEnd();
  return [paint.dim(line(head)), ...rows.map(line)];
}
