/** Bytes and text: base64url (RFC 4648 §5, strict and without padding) and UTF-8. Pure. */

declare class TextEncoder {
  encode(text: string): Uint8Array;
  encodeInto(text: string, into: Uint8Array): { read: number; written: number };
}
declare class TextDecoder {
  constructor(label: string, options: { fatal: boolean; ignoreBOM: boolean });
  decode(bytes: Uint8Array): string;
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const VALUE_OF: Int8Array = new Int8Array(256).fill(-1);
for (let i = 0; i < 64; i++) VALUE_OF[ALPHABET.charCodeAt(i)] = i;

declare function btoa(binary: string): string;
declare function atob(base64: string): string;

const NOT_ASCII = /\P{ASCII}/u;
const BASE64URL = /^[A-Za-z0-9_-]*$/;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function utf8(text: string): Uint8Array {
  // ASCII, which tokens are, fills the array exactly; that is faster than to let the engine measure first
  const bytes = new Uint8Array(text.length);
  const { read, written } = encoder.encodeInto(text, bytes);
  return read === text.length && written === text.length ? bytes : encoder.encode(text);
}

/** Strict UTF-8 decoding. Returns undefined for bytes that are not UTF-8. */
export function fromUtf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/** All pairs of two characters, by the 12 bits that they stand for. */
const PAIRS: readonly string[] = Array.from(
  { length: 4096 },
  (_, bits) => (ALPHABET[bits >> 6] as string) + (ALPHABET[bits & 63] as string),
);

export function encodeBase64url(bytes: Uint8Array): string {
  const whole = bytes.length - (bytes.length % 3);
  let text = '';
  for (let i = 0; i < whole; i += 3) {
    const bits = ((bytes[i] as number) << 16) | ((bytes[i + 1] as number) << 8) | (bytes[i + 2] as number);
    text += (PAIRS[bits >> 12] as string) + (PAIRS[bits & 0xfff] as string);
  }
  switch (bytes.length - whole) {
    case 1:
      return text + PAIRS[(bytes[whole] as number) << 4];
    case 2: {
      const bits = ((bytes[whole] as number) << 10) | ((bytes[whole + 1] as number) << 2);
      return text + PAIRS[bits >> 6] + ALPHABET[bits & 63];
    }
    default:
      return text;
  }
}

/** base64url of a text's UTF-8 bytes. Tokens are all but always ASCII, for which the engine's own base64 does. */
export function encodeTextBase64url(text: string): string {
  if (NOT_ASCII.test(text)) return encodeBase64url(utf8(text));
  let encoded = btoa(text);
  const padding = encoded.indexOf('=');
  if (padding >= 0) encoded = encoded.slice(0, padding);
  if (encoded.includes('+')) encoded = encoded.replaceAll('+', '-');
  return encoded.includes('/') ? encoded.replaceAll('/', '_') : encoded;
}

/**
 * Decodes base64url of a text, as strictly as {@link decodeBase64url}. Undefined also for bytes that are not UTF-8.
 */
export function decodeTextBase64url(text: string): string | undefined {
  const rest = text.length & 3;
  if (rest === 1 || !BASE64URL.test(text)) return undefined;
  const last = VALUE_OF[text.charCodeAt(text.length - 1)] as number;
  if ((rest === 2 && (last & 15) !== 0) || (rest === 3 && (last & 3) !== 0)) return undefined;
  let encoded = text;
  if (encoded.includes('-')) encoded = encoded.replaceAll('-', '+');
  if (encoded.includes('_')) encoded = encoded.replaceAll('_', '/');
  const binary = atob(encoded);
  return NOT_ASCII.test(binary) ? fromUtf8(byteString(binary)) : binary;
}

/** One byte per character code below 256. */
function byteString(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/**
 * Decodes base64url. Padding, white space, other alphabets, an impossible length and non-zero trailing bits all give
 * undefined: one byte string has exactly one text, so that a token cannot be altered without altering its bytes.
 */
export function decodeBase64url(text: string): Uint8Array | undefined {
  const { length } = text;
  const rest = length & 3;
  if (rest === 1) return undefined;
  const whole = length - rest;
  const bytes = new Uint8Array((whole >> 2) * 3 + (rest === 0 ? 0 : rest - 1));
  let out = 0;
  for (let i = 0; i < whole; i += 4) {
    const group = sextets(text, i, 4);
    if (group < 0) return undefined;
    bytes[out++] = group >> 16;
    bytes[out++] = group >> 8;
    bytes[out++] = group;
  }
  if (rest > 0) {
    const group = sextets(text, whole, rest);
    // what is left over after the last whole byte must be zero
    const spare = rest === 2 ? 0xffff : 0xff;
    if (group < 0 || (group & spare) !== 0) return undefined;
    bytes[out++] = group >> 16;
    if (rest === 3) bytes[out] = group >> 8;
  }
  return bytes;
}

/** Up to four characters as one number of 24 bits, first character on top; negative when one is not of the alphabet. */
function sextets(text: string, from: number, count: number): number {
  const a = text.charCodeAt(from);
  const b = text.charCodeAt(from + 1);
  const c = count > 2 ? text.charCodeAt(from + 2) : ZERO;
  const d = count > 3 ? text.charCodeAt(from + 3) : ZERO;
  if ((a | b | c | d) > 255) return -1;
  const va = VALUE_OF[a] as number;
  const vb = VALUE_OF[b] as number;
  const vc = VALUE_OF[c] as number;
  const vd = VALUE_OF[d] as number;
  return (va | vb | vc | vd) < 0 ? -1 : (va << 18) | (vb << 12) | (vc << 6) | vd;
}

/** The alphabet's character for zero. */
const ZERO = 'A'.charCodeAt(0);
