/** The parent's side: starts the demo's processes, asks them, and never leaves one behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Halt } from './halt.ts';
import { type Answer, ROLE_ARGUMENT, type RoleName, type Roles } from './protocol.ts';

/** A role's methods, as calls to its process. */
export type Remote<R> = R & { readonly name: string; readonly pid: number };

export interface Processes {
  start<R extends RoleName>(role: R, name: string): Remote<Roles[R]>;
  /** Ends one of them, and waits until it is gone. */
  end(remote: Remote<unknown>): Promise<void>;
  /** Rejects as soon as any process ends unasked. */
  readonly failed: Promise<never>;
  /** Ends all of them, the stopped and the hanging too, and waits until they are gone. */
  stop(): Promise<void>;
}

/** Milliseconds. */
const STOP_WITHIN = 1000;

/**
 * @param onOutput what a process writes by itself, line by line: warnings, mostly
 * @param answerWithin milliseconds for every question
 */
export function openProcesses(onOutput: (name: string, line: string) => void, answerWithin: number): Processes {
  const children = new Map<ChildProcess, Promise<void>>();
  const asked = new Set<ChildProcess>(); // to end
  let stopped = false;
  let fail: (error: Error) => void = () => undefined;
  const failed = new Promise<never>((_resolve, reject) => {
    fail = reject;
  });
  failed.catch(() => undefined); // it is raced later; until then nobody may be listening

  return {
    failed,
    start(role, name) {
      if (stopped) throw new Error('the demo has ended'); // an act that was interrupted may still be running
      const main = fileURLToPath(new URL(`../main${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url));
      const child = spawn(process.execPath, [main, ROLE_ARGUMENT, role], {
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      });
      const calls = answersOf(child, answerWithin);
      for (const stream of [child.stdout, child.stderr]) forEachLine(stream, (line) => onOutput(name, line));
      children.set(
        child,
        new Promise((resolve) => {
          const end = (how: string) => {
            children.delete(child);
            const error = new Halt(
              `the process of the ${name} ended ${asked.has(child) ? '' : 'unasked '}(${how})`,
              'What it wrote stands on stderr. If nothing killed it, please report that.',
            );
            calls.abandon(error);
            if (!asked.has(child)) fail(error);
            resolve();
          };
          child.once('error', ({ message }) => end(message));
          child.once('exit', (code, signal) => end(signal ?? `code ${code}`));
        }),
      );
      const remote = new Proxy({} as Remote<Roles[typeof role]>, {
        get: (_target, property) => {
          if (property === 'name') return name;
          if (property === 'pid') return child.pid;
          if (property === 'then') return undefined; // it is no promise
          return (...input: unknown[]) => calls.ask(name, String(property), input);
        },
      });
      return remote;
    },
    async end({ pid }) {
      await stop([...children.keys()].filter((child) => child.pid === pid));
    },
    async stop() {
      stopped = true;
      await stop([...children.keys()]);
    },
  };

  async function stop(some: readonly ChildProcess[]): Promise<void> {
    const ends = some.map((child) => children.get(child));
    for (const child of some) {
      asked.add(child);
      if (child.connected) child.disconnect();
    }
    const timer = setTimeout(() => {
      for (const child of some) child.kill('SIGKILL');
    }, STOP_WITHIN);
    await Promise.all(ends);
    clearTimeout(timer);
  }
}

interface Calls {
  ask(name: string, command: string, input: unknown[]): Promise<unknown>;
  abandon(error: Error): void;
}

function answersOf(child: ChildProcess, answerWithin: number): Calls {
  const open = new Map<number, { resolve: (output: unknown) => void; reject: (error: Error) => void }>();
  let count = 0;
  child.on('message', ({ id, output, error }: Answer) => {
    const call = open.get(id);
    open.delete(id);
    if (error === undefined) call?.resolve(output);
    else call?.reject(Object.assign(new Error(error.message), { code: error.code, rule: error.rule }));
  });
  return {
    ask: (name, command, input) =>
      new Promise((resolve, reject) => {
        const id = ++count;
        const late = new Halt(
          `the ${name} did not answer within ${answerWithin / 1000} s (${command})`,
          'Its process is stopped or the machine is very busy: try again.',
        );
        const timer = setTimeout(() => {
          open.delete(id);
          reject(late);
        }, answerWithin);
        const settle =
          <T>(then: (value: T) => void) =>
          (value: T) => {
            clearTimeout(timer);
            then(value);
          };
        open.set(id, { resolve: settle(resolve), reject: settle(reject) });
        child.send({ id, command, input }, (error) => error && open.get(id)?.reject(error));
      }),
    abandon(error) {
      for (const { reject } of open.values()) reject(error);
      open.clear();
    },
  };
}

function forEachLine(stream: NodeJS.ReadableStream | null, take: (line: string) => void): void {
  let rest = '';
  stream?.setEncoding('utf8');
  stream?.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = (lines.pop() ?? '').slice(-4096);
    for (const line of lines) if (line.trim() !== '') take(line);
  });
}
