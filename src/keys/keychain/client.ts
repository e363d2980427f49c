/**
 * The keychain as the parent process sees it: every call has a deadline, and none stops the event loop, because a helper
 * process makes it. A helper that does not answer is ended and replaced at the next call; one that has nothing to do ends.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { KeyringEntries } from '../../native/keyring/index.ts';
import { unavailable } from '../files/faults.ts';
import { keychainFault, noAnswer } from './faults.ts';
import type { Operation, Request, Response } from './protocol.ts';

/** A Node process takes some 40 MB. Milliseconds. */
const IDLE = 10_000;

// `.ts` in the sources, `.js` in the package
const HELPER: string = fileURLToPath(new URL(`./helper${import.meta.url.slice(-3)}`, import.meta.url));

/** What D-Bus, the keychains and the loader of libraries look at; the helper needs nothing else of the environment. */
const ENVIRONMENT =
  /^(PATH|HOME|USER|LOGNAME|LANG|DISPLAY|WAYLAND_DISPLAY|XDG_.*|DBUS_.*|LD_LIBRARY_PATH|SYSTEMROOT|WINDIR|USERPROFILE|APPDATA|LOCALAPPDATA|TEMP|TMP|TMPDIR)$/i;

function helperEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => ENVIRONMENT.test(name)));
}

export interface Keychain extends KeyringEntries {
  /** Ends the helper. Calls that wait for it fail. */
  close(): void;
}

interface Call {
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

interface Helper {
  child: ChildProcess;
  waiting: Map<number, Call>;
}

/** @param deadline of each call, milliseconds: long enough for a person who is asked for a password */
export function connectKeychain(deadline: number): Keychain {
  let helper: Helper | undefined;
  let idle: NodeJS.Timeout | undefined;
  let lastId = 0;

  function end(ended: Helper, error: Error): void {
    if (helper === ended) helper = undefined;
    ended.child.kill('SIGKILL');
    for (const { reject, timer } of ended.waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    ended.waiting.clear();
  }

  function start(): Helper {
    const child = fork(HELPER, [], {
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      execArgv: [],
      env: helperEnvironment(),
    });
    const started: Helper = { child, waiting: new Map() };
    const gone = (cause?: Error) => end(started, unavailable('the helper process of the keychain ended', cause));
    child.on('error', gone);
    child.on('exit', () => gone());
    child.on('message', (response: Response) => settle(started, response));
    // an agent that has nothing else to do may end; a call that waits keeps it by its timer
    child.unref();
    child.channel?.unref();
    return started;
  }

  function settle(from: Helper, response: Response): void {
    const call = from.waiting.get(response.id);
    if (call === undefined) return;
    from.waiting.delete(response.id);
    clearTimeout(call.timer);
    if ('result' in response) {
      call.resolve(response.result);
    } else {
      const fault = keychainFault(response.fault);
      call.reject(fault);
      // a keychain that comes later, or comes back, is only found by a new process
      if (fault.code === 'key_store_unavailable') end(from, fault);
    }
    if (from.waiting.size === 0) {
      idle = setTimeout(() => close(), IDLE);
      idle.unref();
    }
  }

  function call(operation: Operation, ...args: readonly unknown[]): Promise<unknown> {
    clearTimeout(idle);
    helper ??= start();
    const { child, waiting } = helper;
    const asked = helper;
    const request: Request = [++lastId, operation, args];
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => end(asked, noAnswer(deadline)), deadline);
      waiting.set(request[0], { resolve, reject, timer });
      child.send(request, (error) => {
        if (error) end(asked, unavailable('the helper process of the keychain could not be reached', error));
      });
    });
  }

  function close(): void {
    clearTimeout(idle);
    if (helper !== undefined) end(helper, unavailable('the key provider is closed'));
  }

  return {
    get: (service, account) => call('get', service, account) as Promise<Uint8Array | undefined>,
    set: (service, account, secret) => call('set', service, account, secret) as Promise<void>,
    delete: (service, account) => call('delete', service, account) as Promise<boolean>,
    list: (service) => call('list', service) as Promise<string[]>,
    close,
  };
}
