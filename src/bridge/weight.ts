/**
 * What a JSON text costs once it is parsed, judged from its bytes. A text holds an object in three bytes that take sixty in memory:
 * a message of 128 MiB could fill five gigabytes, and stop the process for a minute.
 */
const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
/** `[` and `{` differ in one bit; no other byte of JSON outside strings has the rest. */
const OPENING = 0x5b;
const CASE = 0x20;

/** Bytes below which a text is never too much. */
const LIGHT = 1024 * 1024;
/** Arrays and objects, and commas between their items: some 300 MB at most. */
const MAX_CONTAINERS = 1_000_000;
const MAX_COMMAS = 8_000_000;

/** Has a text more arrays, objects and items than a message needs? Long strings, of whatever content, cost nothing. */
export function isTooIntricate(json: Uint8Array): boolean {
  if (json.length < LIGHT) return false;
  let containers = 0;
  let commas = 0;
  for (let at = 0; at < json.length; at++) {
    const byte = json[at] as number;
    if (byte === QUOTE) at = endOfString(json, at);
    else if (byte === COMMA) commas++;
    else if ((byte & ~CASE) === OPENING) containers++;
    if (containers > MAX_CONTAINERS || commas > MAX_COMMAS) return true;
  }
  return false;
}

/** @returns where the closing quote is; past the end of the text where there is none */
function endOfString(json: Uint8Array, start: number): number {
  let at = start + 1;
  while (at < json.length && json[at] !== QUOTE) at += json[at] === BACKSLASH ? 2 : 1;
  return at;
}
