/** The child's side: a process of the demo does what its parent asks, and ends with it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { AttestedError } from '../../errors.ts';
import type { Answer, Ending, Order, RoleName, Roles } from './protocol.ts';

const openers: { [R in RoleName]: () => Promise<Roles[R] & Ending> } = {
  attester: async () => (await import('./role-attester.ts')).attesterRole(),
  'authorization-server': async () => (await import('./role-authorization-server.ts')).authorizationServerRole(),
  'mcp-server': async () => (await import('./role-mcp-server.ts')).mcpServerRole(),
  agent: async () => (await import('./role-agent.ts')).agentRole(),
  'other-machine': async () => (await import('./role-other-machine.ts')).otherMachineRole(),
};

type Methods = Record<string, (...input: unknown[]) => unknown>;

/** Milliseconds: less than the parent waits before it kills. */
const END_WITHIN = 600;

/** Never returns before the parent is gone. */
export async function playRole(name: string): Promise<void> {
  if (process.send === undefined || !Object.hasOwn(openers, name)) {
    throw new Error('this is started by `attested demo` only');
  }
  // Ctrl-C reaches the whole group; it is the parent who decides what becomes of it
  for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);
  const gone = new Promise<void>((resolve) => process.once('disconnect', resolve));
  quietSqlite();
  const role = await openers[name as RoleName]();
  process.on('message', (order: Order) => void answer(role as unknown as Methods, order));
  await gone;
  await Promise.race([role.end?.(), sleep(END_WITHIN)]).catch(() => undefined);
  process.exit(0);
}

async function answer(role: Methods, { id, command, input }: Order) {
  let reply: Answer;
  try {
    reply = { id, output: await role[command]?.(...input) };
  } catch (error) {
    const { message } = error as Error;
    reply = {
      id,
      error: error instanceof AttestedError ? { message, code: error.code, rule: error.rule } : { message },
    };
  }
  // the callback takes the error of a parent that is gone already
  if (process.connected) process.send?.(reply, undefined, undefined, () => undefined);
}

/** node:sqlite is part of every supported Node, and says on each start that it may change. Other warnings stay. */
function quietSqlite(): void {
  const listeners = process.listeners('warning');
  process.removeAllListeners('warning');
  process.on('warning', (warning) => {
    if (warning.name === 'ExperimentalWarning' && warning.message.includes('SQLite')) return;
    for (const listener of listeners) listener(warning);
  });
}
