/**
 * The parent's end of a TPM helper process: one queue, a deadline for whatever is at its head, and a new helper in the place
 * of one that hung or died.
 *
 * A deadline fails every request that waits, since all of them wait for the same TPM. A death fails none at first: nothing
 * that a helper does is lost or done twice by doing it again (keys are kept by the parent once they are made), so the queue
 * moves to the next helper, and only who was at the head of two that died, or all when helpers keep dying, are told.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { AttestedError } from '../../errors.ts';
import { TpmError } from '../../native/tpm2-tss/error.ts';
import { unavailable } from '../files/faults.ts';
import {
  type KeyReference,
  type Operation,
  type Operations,
  type Request,
  type Response,
  type TpmAddress,
  UNKNOWN_KEY,
} from './protocol.ts';

/** Requests that the helper holds at once: enough that it never waits for us. */
const WINDOW = 16;
const [MOST_ATTEMPTS, MOST_DEATHS] = [2, 3];
/** Of the deadline, how much the helper may spend on a TPM that is busy or full. */
const PATIENCE = 0.8;
/** For ending in order. Milliseconds. */
const FAREWELL = 1000;

export interface TpmProcess {
  /**
   * @param deadline milliseconds, from when the request is the first in the queue
   * @throws TpmError from the helper; AttestedError `key_store_unavailable` past the deadline, or when there is no helper
   */
  request<O extends Operation>(
    operation: O,
    args: Operations[O]['args'],
    deadline: number,
    keys?: readonly KeyReference[],
  ): Promise<Operations[O]['result']>;
  /** Ends the helper, which gives back what it holds in the TPM. */
  close(): Promise<void>;
}

interface Pending {
  id: number;
  operation: Operation;
  args: readonly unknown[];
  keys: readonly KeyReference[];
  deadline: number;
  attempts: number;
  resolve: (result: unknown) => void;
  reject: (error: unknown) => void;
}

interface Helper {
  child: ChildProcess;
  /** Keys it was told of. */
  told: Set<string>;
}

// compiled, as this file is, or not
const HELPER_FILE = import.meta.url.endsWith('.ts') ? './helper/main.ts' : './helper/main.js';
const HELPER = fileURLToPath(new URL(HELPER_FILE, import.meta.url));

/** What the TSS, its TCTI modules and the loader of libraries look at; the helper needs nothing else, and gets no secret. */
const ENVIRONMENT = /^(PATH|LD_LIBRARY_PATH|DYLD_.*|DBUS_.*|SYSTEMROOT|WINDIR|LANG)$/i;

function helperEnvironment(): NodeJS.ProcessEnv {
  const wanted = Object.entries(process.env).filter(([name]) => ENVIRONMENT.test(name));
  return { ...Object.fromEntries(wanted), TSS2_LOG: 'all+NONE' }; // set before the library loads, or it writes to stderr
}

export function createTpmProcess(address: TpmAddress): TpmProcess {
  const sent = new Map<number, Pending>(); // in the order in which the helper answers
  const waiting: Pending[] = [];
  let helper: Helper | undefined;
  let lastId = 0;
  let deaths = 0;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  let orphans = false;

  function start(): Helper {
    const child = fork(HELPER, [], {
      execArgv: [],
      env: helperEnvironment(),
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    const started = { child, told: new Set<string>() };
    child.on('message', (response) => settle(started, response as Response));
    child.on('exit', () => died(started));
    child.on('error', () => died(started));
    child.send({ ...address, orphans }, ignore);
    return started;
  }

  /** Keeps the process alive while somebody waits for an answer, and only then. */
  function hold(busy: boolean): void {
    const child = helper?.child;
    if (child === undefined) return;
    if (busy) {
      child.ref();
      child.channel?.ref();
    } else {
      child.unref();
      child.channel?.unref();
    }
  }

  function pump(): void {
    if (waiting.length === 0) return;
    const idle = sent.size === 0;
    try {
      helper ??= start();
    } catch (error) {
      failAll(unavailable('the process that talks to the TPM could not be started', error));
      return;
    }
    while (sent.size < WINDOW) {
      const pending = waiting.shift();
      if (pending === undefined) break;
      send(helper, pending);
    }
    if (idle) {
      hold(true);
      watch();
    }
  }

  function send({ child, told }: Helper, pending: Pending): void {
    const { id, operation, args, keys, deadline } = pending;
    sent.set(id, pending);
    const named = keys.map((key) => {
      if (told.has(key.ref)) return key.ref;
      told.add(key.ref);
      return key;
    });
    const request: Request = [id, operation, deadline * PATIENCE, args, named];
    child.send(request, ignore); // a channel that is gone is followed by the helper's end
  }

  /** The clock runs for the head of the queue. */
  function watch(): void {
    clearTimeout(timer);
    const head = firstOf(sent);
    if (head !== undefined) timer = setTimeout(expire, head.deadline, head);
  }

  function settle(from: Helper, [id, result, code, message]: Response): void {
    const pending = sent.get(id);
    if (from !== helper || pending === undefined) return;
    deaths = 0;
    sent.delete(id);
    if (code === UNKNOWN_KEY) {
      for (const { ref } of pending.keys) from.told.delete(ref);
      send(from, pending);
    } else if (code === undefined) pending.resolve(result);
    else pending.reject(new TpmError(code, message ?? ''));
    pump();
    watch();
    if (sent.size === 0) hold(false);
  }

  function expire(head: Pending): void {
    const seconds = head.deadline / 1000;
    const sharing = address.managed ? '' : '; no resource manager is in use, and another process may hold it';
    failAll(unavailable(`the TPM did not answer within ${seconds} s${sharing}`));
  }

  function died(which: Helper): void {
    if (which !== helper) return;
    helper = undefined;
    orphans = true;
    clearTimeout(timer);
    deaths += 1;
    const head = firstOf(sent);
    if (deaths >= MOST_DEATHS) {
      failAll(unavailable('the process that talks to the TPM keeps ending'));
      return;
    }
    waiting.unshift(...sent.values());
    sent.clear();
    if (head !== undefined) {
      head.attempts += 1;
      if (head.attempts >= MOST_ATTEMPTS) {
        waiting.shift();
        head.reject(unavailable('the process that talks to the TPM ended during the request'));
      }
    }
    pump();
  }

  function failAll(error: AttestedError): void {
    clearTimeout(timer);
    const failed = [...sent.values(), ...waiting.splice(0)];
    sent.clear();
    kill();
    for (const { reject } of failed) reject(error);
  }

  function kill(): void {
    hold(false);
    helper?.child.kill('SIGKILL');
    helper = undefined;
    orphans = true;
    deaths = 0;
  }

  return {
    request: (operation, args, deadline, keys = []) =>
      new Promise<never>((resolve, reject) => {
        if (closed) return reject(unavailable('the key provider is closed'));
        lastId += 1;
        const settleWith = resolve as (result: unknown) => void;
        waiting.push({ id: lastId, operation, args, keys, deadline, attempts: 0, resolve: settleWith, reject });
        pump();
      }),

    async close() {
      closed = true;
      failAllWaiting();
      const ending = helper?.child;
      if (ending === undefined) return;
      hold(true);
      const ended = new Promise<void>((resolve) => ending.once('exit', () => resolve()));
      const late = setTimeout(() => ending.kill('SIGKILL'), FAREWELL);
      helper = undefined;
      if (ending.connected) ending.disconnect();
      await ended;
      clearTimeout(late);
    },
  };

  function failAllWaiting(): void {
    clearTimeout(timer);
    const failed = [...sent.values(), ...waiting.splice(0)];
    sent.clear();
    for (const { reject } of failed) reject(unavailable('the key provider is closed'));
  }
}

function firstOf(sent: ReadonlyMap<number, Pending>): Pending | undefined {
  for (const pending of sent.values()) return pending;
  return undefined;
}

const ignore = () => undefined;
