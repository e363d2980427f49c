/** Whose an MCP session is. The SDKs' servers go by the session's id alone: who has read it in a log could go on with it. */
import type { HeadersInput } from '../core/headers.ts';

export interface Sessions {
  /** Is this instance the one that was seen first in the session that the request names, if it names one? */
  belongsTo(headers: HeadersInput, thumbprint: string | undefined): boolean;
}

const MAX_SESSIONS = 10_000;
/** Who holds more than so many makes room for its own: invented sessions must not have those of others forgotten. */
const FAIR_SHARE = 100;
const FIELD = 'mcp-session-id';

/**
 * Keeps who was seen first in a session: the instance that began it, which alone was told its random id. In the memory of this
 * process, for as long as it is among the last so many that were used.
 */
export function openSessions(): Sessions {
  const owners = new Map<string, string | undefined>();
  const byOwner = new Map<string | undefined, Set<string>>();

  function forget(session: string): void {
    const owner = owners.get(session);
    const own = byOwner.get(owner);
    owners.delete(session);
    own?.delete(session);
    if (own?.size === 0) byOwner.delete(owner);
  }

  /** At the end of the row, as the one used last. */
  function keep(session: string, owner: string | undefined): void {
    forget(session);
    const own = byOwner.get(owner) ?? new Set();
    if (owners.size >= MAX_SESSIONS) {
      const [oldest] = own.size > FAIR_SHARE ? own : owners.keys();
      forget(oldest as string);
    }
    owners.set(session, owner);
    byOwner.set(owner, own.add(session));
  }

  return {
    belongsTo(headers, thumbprint) {
      const session = sessionOf(headers);
      if (session === undefined) return true;
      if (owners.has(session) && owners.get(session) !== thumbprint) return false;
      keep(session, thumbprint);
      return true;
    },
  };
}

/** Repeated fields as servers read them: joined. */
function sessionOf(headers: HeadersInput): string | undefined {
  const found = [...pairsOf(headers)].filter(([name]) => name.length === FIELD.length && name.toLowerCase() === FIELD);
  return found.length === 0 ? undefined : found.map(([, value]) => value).join(', ');
}

function* pairsOf(headers: HeadersInput): Iterable<readonly [string, string]> {
  if (Array.isArray(headers) && typeof headers[0] === 'string') {
    for (let i = 0; i + 1 < headers.length; i += 2) yield [headers[i] as string, headers[i + 1] as string];
  } else if (Symbol.iterator in headers) {
    yield* headers as Iterable<readonly [string, string]>;
  } else {
    for (const [name, value] of Object.entries(headers)) for (const item of [value ?? []].flat()) yield [name, item];
  }
}
