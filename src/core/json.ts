/** JSON as tokens need it: one object, no duplicate member, bounded depth (RFC 8725 §2.4, RFC 7519 §4). Pure. */

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export interface JsonObject {
  [name: string]: JsonValue | undefined;
}

const MAX_DEPTH = 16;

/**
 * Parses one JSON object. Returns undefined when the text is not exactly one object, when a member name is repeated at
 * any level (also when the repetition hides behind escapes), when a member is called `__proto__`, or when the text is
 * nested deeper than 16 levels.
 *
 * Duplicates are found by counting: the text has as many members as it has colons outside strings, and `JSON.parse`
 * keeps only the last of two members of one name.
 */
export function parseJsonObject(text: string): JsonObject | undefined {
  const value = parseJson(text);
  return isJsonObject(value) ? value : undefined;
}

/** The same for any JSON value, such as a batch of messages. @param maxDepth levels of nesting */
export function parseJson(text: string, maxDepth: number = MAX_DEPTH): JsonValue | undefined {
  const colons = countMembers(text, maxDepth);
  if (colons < 0) return undefined;
  try {
    const value = JSON.parse(text) as JsonValue;
    return countParsedMembers(value) === colons ? value : undefined;
  } catch {
    return undefined;
  }
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Number of members in the text, or -1 when it is nested too deeply. Malformed text is left to `JSON.parse`. */
function countMembers(text: string, maxDepth: number): number {
  let colons = 0;
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x22: // a string: skip to its end
        for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
        break;
      case 0x3a:
        colons++;
        break;
      case 0x7b:
      case 0x5b:
        if (++depth > maxDepth) return -1;
        break;
      case 0x7d:
      case 0x5d:
        depth--;
        break;
    }
  }
  return colons;
}

/** Number of members after parsing, or NaN (equal to nothing) when one of them is `__proto__`. */
function countParsedMembers(value: JsonValue | undefined): number {
  if (typeof value !== 'object' || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (const item of value) count += countParsedMembers(item);
    return count;
  }
  for (const name of Object.keys(value)) {
    if (name === '__proto__') return Number.NaN;
    count += 1 + countParsedMembers(value[name]);
  }
  return count;
}
