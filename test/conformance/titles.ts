/** Finds the titles of the tests in a source text, by a small scan that knows strings, comments, brackets and patterns. */

export interface FoundTitle {
  title: string;
  line: number;
}

/** Modifiers after which a test still runs. `skipIf` and `runIf` depend on the machine; everything runs in CI. */
const RUNS = new Set(['each', 'for', 'concurrent', 'sequential', 'skipIf', 'runIf', 'only', 'fails']);
const SUITES = new Set(['describe', 'suite']);
const TESTS = new Set(['it', 'test']);

/**
 * Titles of `it(…)` and `test(…)`, also behind `.each(…)` and the like, as far as they are literal texts. Not counted: tests
 * that are skipped or only planned (`.skip`, `.todo`), suites, and everything inside a suite that is skipped.
 */
export function titlesOf(source: string): FoundTitle[] {
  const found: FoundTitle[] = [];
  scan(source, 0, source.length, found);
  return found;
}

function scan(source: string, from: number, to: number, found: FoundTitle[]): void {
  let previous = ''; // the last character that is not white space: decides whether `/` starts a pattern
  for (let i = from; i < to; ) {
    const skipped = skipOpaque(source, i, previous);
    if (skipped > i) {
      // a template may hold code: tests in there do not count
      previous = ')';
      i = skipped;
      continue;
    }
    const word = wordAt(source, i);
    if (word === '') {
      if (!/\s/.test(source[i] as string)) previous = source[i] as string;
      i++;
      continue;
    }
    const end = i + word.length;
    const call = previous === '.' ? undefined : callAt(source, word, end);
    previous = 'a';
    if (call === undefined) {
      i = end;
      continue;
    }
    if (TESTS.has(word) && call.runs) {
      const title = literalAt(source, call.open + 1);
      if (title !== undefined) found.push({ title, line: source.slice(0, i).split('\n').length });
    }
    // what stands inside a suite that runs is looked at; what stands inside a test or a skipped suite is not
    if (SUITES.has(word) && call.runs) scan(source, call.open + 1, call.close, found);
    previous = ')';
    i = call.close + 1;
  }
}

interface Call {
  /** Position of the bracket of the last call: the one that has the title. */
  open: number;
  close: number;
  runs: boolean;
}

/** Reads `.name`, `(…)` and `` `…` `` behind `it` or `describe`, up to the call whose first argument is a title. */
function callAt(source: string, word: string, from: number): Call | undefined {
  if (!TESTS.has(word) && !SUITES.has(word)) return undefined;
  let runs = true;
  let takesTable = false;
  for (let i = from; i < source.length; ) {
    const character = source[i] as string;
    if (/\s/.test(character)) i++;
    else if (character === '.') {
      const name = wordAt(source, i + 1);
      if (!RUNS.has(name)) runs = false;
      takesTable = ['each', 'for', 'skipIf', 'runIf'].includes(name);
      i += 1 + name.length;
    } else if (character === '`' && takesTable) {
      i = skipOpaque(source, i, '');
      takesTable = false;
    } else if (character === '(') {
      const close = closingBracket(source, i);
      if (!takesTable) return { open: i, close, runs };
      takesTable = false;
      i = close + 1;
    } else return undefined;
  }
  return undefined;
}

function closingBracket(source: string, open: number): number {
  let depth = 0;
  let previous = '';
  for (let i = open; i < source.length; ) {
    const skipped = skipOpaque(source, i, previous);
    if (skipped > i) {
      previous = ')';
      i = skipped;
      continue;
    }
    const character = source[i] as string;
    if ('([{'.includes(character)) depth++;
    if (')]}'.includes(character) && --depth === 0) return i;
    if (!/\s/.test(character)) previous = character;
    i++;
  }
  return source.length;
}

/** The end of a comment, string, template or pattern that starts here; the same position where none does. */
function skipOpaque(source: string, at: number, previous: string): number {
  const character = source[at];
  const next = source[at + 1];
  if (character === '/' && next === '/') return endOf(source.indexOf('\n', at), source);
  if (character === '/' && next === '*') return endOf(source.indexOf('*/', at + 2) + 1, source) + 1;
  if (character === "'" || character === '"') return endOfQuoted(source, at, character);
  if (character === '`') return endOfTemplate(source, at);
  if (character === '/' && (previous === '' || '(,=:[!&|?{};+->'.includes(previous))) return endOfPattern(source, at);
  return at;
}

const endOf = (index: number, source: string): number => (index < 0 ? source.length : index);

function endOfQuoted(source: string, at: number, quote: string): number {
  for (let i = at + 1; i < source.length; i++) {
    if (source[i] === '\\') i++;
    else if (source[i] === quote) return i + 1;
  }
  return source.length;
}

function endOfTemplate(source: string, at: number): number {
  for (let i = at + 1; i < source.length; i++) {
    if (source[i] === '\\') i++;
    else if (source[i] === '`') return i + 1;
    else if (source[i] === '$' && source[i + 1] === '{') i = closingBracket(source, i + 1);
  }
  return source.length;
}

function endOfPattern(source: string, at: number): number {
  let inClass = false;
  for (let i = at + 1; i < source.length && source[i] !== '\n'; i++) {
    if (source[i] === '\\') i++;
    else if (source[i] === '[') inClass = true;
    else if (source[i] === ']') inClass = false;
    else if (source[i] === '/' && !inClass) return i + 1;
  }
  return at;
}

/** The text of a literal that starts here (after white space and comments); what a template fills in is left as it stands. */
function literalAt(source: string, from: number): string | undefined {
  let at = from;
  for (;;) {
    const start = at;
    while (/\s/.test(source[at] ?? '')) at++;
    if (source[at] === '/') at = skipOpaque(source, at, 'a');
    if (at === start) break;
  }
  const quote = source[at];
  if (quote !== "'" && quote !== '"' && quote !== '`') return undefined;
  const end = quote === '`' ? endOfTemplate(source, at) : endOfQuoted(source, at, quote);
  return source.slice(at + 1, end - 1).replace(/\\(.)/gs, '$1');
}

function wordAt(source: string, at: number): string {
  const word = /[A-Za-z_$][\w$]*/y;
  word.lastIndex = at;
  return word.exec(source)?.[0] ?? '';
}

/** The requirement ids that a title starts with: `POP-2, POP-9: …`. */
export function idsOf(title: string): string[] {
  const ids = /^([A-Z]+-\d+(?:, [A-Z]+-\d+)*): \S/.exec(title)?.[1];
  return ids === undefined ? [] : ids.split(', ');
}
