/** Looking into a token without judging it, and without showing what must not be shown. */
import { isJsonObject, type JsonObject, type JsonValue } from '../../core/json.ts';
import { PRIVATE_MEMBERS } from '../../core/jwk.ts';
import { parseSegment } from '../../core/jwt.ts';

export interface Decoded {
  header: JsonObject | undefined;
  payload: JsonObject | undefined;
}

/** Parts that cannot be read are undefined. */
export function decodeToken(text: string): Decoded {
  const parts = text.split('.', 4);
  if (parts.length !== 3) return { header: undefined, payload: undefined };
  return { header: parseSegment(parts[0] as string), payload: parseSegment(parts[1] as string) };
}

/** The same value with the private members of every key in it blacked out. */
export function redact(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(redact);
  if (!isJsonObject(value)) return value;
  const isKey = value.kty !== undefined;
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => {
      const secret = isKey && (PRIVATE_MEMBERS as readonly string[]).includes(name);
      return [name, secret ? '(private: not shown)' : redact(member as JsonValue)];
    }),
  );
}
