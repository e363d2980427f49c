/** Bytes and text: base64url (RFC 4648 §5, strict and without padding) and UTF-8. Pure. */

declare class TextEncoder {
  encode(text: string): Uint8Array;
}
declare class TextDecoder {
  constructor(label: string, options: { fatal: boolean; ignoreBOM: boolean });
  decode(bytes: Uint8Array): string;
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const VALUE_OF: Int8Array = new Int8Array(128).fill(-1);
for (let i = 0; i < 64; i++) VALUE_OF[ALPHABET.charCodeAt(i)] = i;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Strict UTF-8 decoding. Returns undefined for bytes that are not UTF-8. */
export function fromUtf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}

export function encodeBase64url(bytes: Uint8Array): string {
  let text = '';
  let i = 0;
  for (; i + 2 < bytes.length; i += 3) {
    const n = (at(bytes, i) << 16) | (at(bytes, i + 1) << 8) | at(bytes, i + 2);
    text += char(n >> 18) + char(n >> 12) + char(n >> 6) + char(n);
  }
  if (bytes.length - i === 1) {
    const n = at(bytes, i) << 16;
    text += char(n >> 18) + char(n >> 12);
  } else if (bytes.length - i === 2) {
    const n = (at(bytes, i) << 16) | (at(bytes, i + 1) << 8);
    text += char(n >> 18) + char(n >> 12) + char(n >> 6);
  }
  return text;
}

/**
 * Decodes base64url. Padding, white space, other alphabets, an impossible length and non-zero trailing bits all give
 * undefined: one byte string has exactly one text, so that a token cannot be altered without altering its bytes.
 */
export function decodeBase64url(text: string): Uint8Array | undefined {
  const { length } = text;
  const rest = length & 3;
  if (rest === 1) return undefined;
  const bytes = new Uint8Array(((length - rest) >> 2) * 3 + (rest === 0 ? 0 : rest - 1));
  let bits = 0;
  let held = 0;
  let out = 0;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    const value = code < 128 ? (VALUE_OF[code] as number) : -1;
    if (value < 0) return undefined;
    bits = (bits << 6) | value;
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes[out++] = bits >> held;
      bits &= (1 << held) - 1;
    }
  }
  return bits === 0 ? bytes : undefined;
}

export function concatBytes(...parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

function at(bytes: Uint8Array, index: number): number {
  return bytes[index] as number;
}

function char(value: number): string {
  return ALPHABET[value & 63] as string;
}
