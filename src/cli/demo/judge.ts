/** How an attack is judged: by the server's answer, and by the reason in its operator's log. */
import type { Result } from './act.ts';
import type { LoggedRefusal } from './protocol.ts';
import { type Fresh, freshValues, type RawAnswer } from './raw.ts';
import type { Scene } from './scene.ts';

export interface Expected {
  at: 'mcp' | 'otherMcp' | 'authorizationServer';
  status: number;
  error: string;
  /** A rule, or words, that the operator's log must have: a request may be refused for a reason that proves nothing. */
  because: string;
}

const NAMES = {
  mcp: 'the MCP server',
  otherMcp: 'the second MCP server',
  authorizationServer: 'the authorization server',
} as const;

/** Was it refused, in the right way and for the right reason? */
export async function judge(scene: Scene, expected: Expected, answer: RawAnswer): Promise<Result> {
  const { at, status, error, because } = expected;
  const logged = await scene.fact('cast')[at].takeRefusals();
  const reason = logged.find(({ rule, message }) => rule === because || message.includes(because));
  const refused = answer.status === status && answer.error === error;
  const got = `${answer.status} ${answer.error ?? 'without an error code'}`;
  return {
    ok: refused && reason !== undefined,
    got: refused && reason === undefined ? `${got}, for another reason` : got,
    details: quote(NAMES[at], answer.description, reason ?? logged.at(-1)),
  };
}

/** The server's own words, and its log's where that says more. */
function quote(name: string, said: string | undefined, logged: LoggedRefusal | undefined): string[] {
  const inLog = logged && `${logged.message} (${[logged.code, logged.rule].filter(Boolean).join(', ')})`;
  if (logged !== undefined && logged.message === said) return [`${name} says: ${inLog}`];
  return [`${name} says: ${said ?? 'nothing'}`, `its log says: ${inLog ?? 'nothing'}`];
}

/** A refusal that was logged for an earlier request must not pass for this one's. */
export async function forgetRefusals(scene: Scene, at: Expected['at']): Promise<void> {
  await scene.fact('cast')[at].takeRefusals();
}

export function freshAt(scene: Scene, at: 'mcp' | 'authorizationServer'): Promise<Fresh> {
  const { mcp, authorizationServer } = scene.fact('world');
  const { origin, pathname } = new URL(mcp);
  return freshValues(
    at === 'mcp'
      ? `${origin}/.well-known/oauth-protected-resource${pathname}`
      : `${authorizationServer}/.well-known/oauth-authorization-server`,
  );
}
