/**
 * Correlations as a drawing: servers at the left, what links them at the right. One SVG file that refers to nothing outside
 * itself, runs no script, and goes by the viewer's light or dark setting.
 *
 * Names come from servers and attesters, so all of them go through {@link text}.
 */
import type { Correlation, Correlations } from '../../agent/correlations.ts';
import { visible } from '../io.ts';
import { nameOf } from './print.ts';

const ROW = 44;
const BOX = 30;
const MARGIN = 24;
const [SERVER_WIDTH, LINK_WIDTH, GAP] = [430, 250, 170];
const WIDTH = MARGIN * 2 + SERVER_WIDTH + GAP + LINK_WIDTH;
/** Characters that fit into a box, at 12 px in a monospaced face. */
const FIT = { server: 56, link: 31 } as const;

const STYLE = `
    svg { background: #ffffff; font: 12px ui-monospace, Menlo, Consolas, monospace; }
    text { fill: #1f2328; }
    .head { font-weight: bold; font-size: 14px; }
    .note { fill: #59636e; }
    rect { fill: #f6f8fa; stroke: #818b98; }
    .avoidable rect { fill: #fff1e5; stroke: #bc4c00; }
    path { fill: none; stroke: #818b98; stroke-width: 1.5; stroke-dasharray: 5 4; }
    .avoidable path { stroke: #bc4c00; stroke-dasharray: none; }
    @media (prefers-color-scheme: dark) {
      svg { background: #0d1117; }
      text { fill: #e6edf3; }
      .note { fill: #9198a1; }
      rect { fill: #151b23; stroke: #656c76; }
      .avoidable rect { fill: #3d1300; stroke: #f0883e; }
      path { stroke: #656c76; }
      .avoidable path { stroke: #f0883e; }
    }
  `;

export function drawCorrelations(agents: readonly Correlations[]): string {
  let top = MARGIN;
  const parts = agents.map((agent) => {
    const part = panel(agent, top);
    top += part.height;
    return part.svg;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top + MARGIN}" width="${WIDTH}" height="${top + MARGIN}" role="img" aria-labelledby="title desc">
  <title id="title">Which servers could tell that they serve the same agent</title>
  <desc id="desc">${text(agents.map(sentence).join(' ') || 'No agent keeps its state here.')}</desc>
  <style>${STYLE}</style>
${parts.join('\n')}
</svg>
`;
}

/** One client: its servers, its links, and lines between them. */
function panel({ clientId, servers, links }: Correlations, top: number): { svg: string; height: number } {
  const first = top + 48;
  const middle = (row: number) => first + row * ROW + BOX / 2;
  const rowOf = new Map(servers.map(({ name }, row) => [name, row]));
  const right = MARGIN + SERVER_WIDTH + GAP;
  const boxes = servers.map(({ name }, row) => box(MARGIN, first + row * ROW, SERVER_WIDTH, name, FIT.server));
  const drawn = links.map((link, row) => {
    const lines = link.servers.map((server) => {
      const [from, to] = [middle(rowOf.get(server) ?? 0), middle(row)];
      const [start, end] = [MARGIN + SERVER_WIDTH, right];
      return `    <path d="M${start} ${from} C${start + GAP / 2} ${from} ${end - GAP / 2} ${to} ${end} ${to}"/>`;
    });
    const kind = link.remedy === undefined ? 'unavoidable' : 'avoidable';
    const label = box(right, first + row * ROW, LINK_WIDTH, nameOf(link), FIT.link, explain(link));
    return `  <g class="${kind}">\n${lines.join('\n')}\n  ${label}\n  </g>`;
  });
  const rows = Math.max(servers.length, links.length, 1);
  const note = 'solid: could be avoided · dashed: no client can avoid it';
  return {
    height: 48 + rows * ROW + MARGIN,
    svg: [
      `  <text class="head" x="${MARGIN}" y="${top + 14}">${text(shorten(`Client ${clientId}`, 100))}</text>`,
      `  <text class="note" x="${MARGIN}" y="${top + 34}">${note}</text>`,
      ...drawn,
      ...boxes,
    ].join('\n'),
  };
}

function box(x: number, y: number, width: number, label: string, most: number, more = label): string {
  return (
    `  <g><title>${text(more)}</title><rect x="${x}" y="${y}" width="${width}" height="${BOX}" rx="6"/>` +
    `<text x="${x + 10}" y="${y + 19}">${text(shorten(label, most))}</text></g>`
  );
}

function explain(link: Correlation): string {
  const way = link.remedy === undefined ? 'No client can avoid it.' : `To keep them apart: ${link.remedy}.`;
  return `${nameOf(link)} links ${link.servers.join(' and ')}. ${way}`;
}

/** The same in words, for who cannot see the drawing. */
function sentence({ clientId, servers, links }: Correlations): string {
  const count = servers.length === 1 ? '1 server' : `${servers.length} servers`;
  return `Client ${clientId} has shown keys to ${count}. ${links.map(explain).join(' ') || 'Nothing links them.'}`;
}

function shorten(label: string, most: number): string {
  const characters = [...visible(label)];
  return characters.length <= most ? characters.join('') : `${characters.slice(0, most - 1).join('')}…`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** What XML has no place for (controls, halves of pairs) is shown by its number; the rest cannot end what it stands in. */
function text(value: string): string {
  return visible(value)
    .replace(/[\ufffe\uffff]/g, '?')
    .replace(/[&<>"']/g, (character) => ENTITIES[character] as string);
}
