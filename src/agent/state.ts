/**
 * What an agent remembers between runs: which identities it has, their attestations, who has seen them, and which token
 * belongs to which identity. Nothing in it is a secret key, but it names the servers that the agent talks to: so it is one
 * file, private to its owner, and sealed (see sealed-state.ts). Key labels, which other tools of the operating system show,
 * carry only keyed hashes (see identity.ts).
 *
 * Every change is made in the file's turn, one process at a time, on what the file says then: two processes that are about to
 * show one key to two servers do not both find that nobody has seen it.
 */
import { readdir, rename } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { withDirectoryLock } from '../keys/files/lock.ts';
import type { SecretStore } from '../keys/provider.ts';
import { randomId, sha256Base64url } from '../platform/crypto.ts';
import { makePrivateDirectory, readFileIfThere, writePrivateFile } from '../platform/files.ts';
import { type AgentState, emptyState } from './remembered.ts';
import { openStateSeal } from './sealed-state.ts';
import { merge, serialize } from './state-json.ts';
import type { Warnings } from './warnings.ts';

export interface StateStore extends AgentState {
  /**
   * Makes a change on the newest state there is, and writes it. Where the disk fails, the change is made in memory and a
   * warning says so: a full disk must not stop requests.
   *
   * @param change is not asynchronous; what it throws comes back, and nothing is written
   */
  update<T>(change: () => T): Promise<T>;
  /** Writes the state. Never fails. */
  save(): Promise<void>;
  /** Forgets an identity for good. */
  drop(label: string): void;
}

const FILE_NAME = /^agent-[\w-]{22}\.json$/;

/**
 * Opens the state of one client. Without a directory it lives in memory.
 *
 * @throws AttestedError `key_store_*` when there is a state whose key cannot be had now
 */
export async function openState(
  directory: string | undefined,
  clientId: string,
  secrets: SecretStore | undefined,
  warnings: Warnings,
): Promise<StateStore> {
  const dropped = new Set<string>();
  const file = directory === undefined ? undefined : openFile(directory, clientId, secrets, warnings);
  let last: Promise<unknown> = Promise.resolve();
  let queued: Promise<void> | undefined;

  const store: StateStore = {
    ...emptyState(clientId),
    update(change) {
      const turn = last.then(() => (file === undefined ? change() : onDisk(file, change)));
      last = turn.catch(() => undefined);
      return turn;
    },
    save() {
      // whoever asks while one waits shares it
      queued ??= store.update(() => {
        queued = undefined;
      });
      return queued;
    },
    drop(label) {
      dropped.add(label);
      store.identities.delete(label);
      for (const [hash, artifact] of [...store.artifacts.entries()]) {
        if (artifact.label === label) store.artifacts.delete(hash);
      }
    },
  };

  async function onDisk<T>(place: StateFile, change: () => T): Promise<T> {
    let outcome: { value: T } | { error: unknown } | undefined;
    const attempt = () => {
      try {
        outcome = { value: change() };
      } catch (error) {
        outcome = { error };
      }
      return outcome;
    };
    try {
      await place.inTurn(async () => {
        await refresh(place);
        if ('value' in attempt()) await place.write(store);
      });
    } catch {
      warnings.emit({ code: 'state', message: 'the agent could not write its state; it continues in memory' });
    }
    const result = outcome ?? attempt();
    if ('error' in result) throw result.error;
    return result.value;
  }

  async function refresh(place: StateFile): Promise<boolean> {
    const found = await place.read();
    if (found !== undefined) merge(store, found.state, dropped);
    return found?.sealed === false;
  }

  if (file !== undefined) {
    await makePrivateDirectory(directory as string);
    const inClear = await refresh(file);
    if (inClear) await store.save(); // sealed from now on
  }
  return store;
}

type StateFile = NonNullable<ReturnType<typeof openFile>>;

function openFile(directory: string, clientId: string, secrets: SecretStore | undefined, warnings: Warnings) {
  if (secrets === undefined) {
    // a key provider of somebody else's; a list of servers in clear is not to be left behind without being asked for
    const message = 'the key provider keeps no secrets: the agent remembers nothing, also not who has seen its keys';
    warnings.emit({ code: 'state', message });
    return undefined;
  }
  const path = join(directory, `agent-${sha256Base64url(clientId).slice(0, 22)}.json`);
  const seal = openStateSeal(secrets, basename(path));
  return {
    inTurn: (job: () => Promise<void>) =>
      withDirectoryLock(directory, job, { name: `${basename(path, '.json')}.lock` }),
    async read() {
      const bytes = await readFileIfThere(path);
      if (bytes === undefined) return undefined;
      const found = await seal.open(bytes);
      if (found !== undefined) return found;
      await rename(path, `${path}.unreadable-${randomId()}`).catch(() => undefined);
      warnings.emit({ code: 'state', message: 'the agent state was unreadable; it was set aside and is built anew' });
      return undefined;
    },
    write: async (store: StateStore) => writePrivateFile(path, await seal.seal(serialize(store))),
  };
}

/** Names of the files of all clients that keep their state in a directory. */
export async function stateFiles(directory: string): Promise<string[]> {
  return (await readdir(directory).catch(() => [])).filter((name) => FILE_NAME.test(name)).sort();
}

/** The states of all clients that keep theirs in a directory. Changes nothing; what cannot be opened is named. */
export async function readStates(
  directory: string,
  secrets: SecretStore,
): Promise<{ states: AgentState[]; unreadable: string[] }> {
  const states: AgentState[] = [];
  const unreadable: string[] = [];
  for (const name of await stateFiles(directory)) {
    const bytes = await readFileIfThere(join(directory, name));
    const found = bytes === undefined ? undefined : await openStateSeal(secrets, name).open(bytes);
    if (found === undefined) {
      unreadable.push(name);
      continue;
    }
    const { client_id } = found.state;
    // version 1 did not say whose it is
    const state = emptyState(typeof client_id === 'string' ? client_id : name);
    merge(state, found.state, new Set());
    states.push(state);
  }
  return { states, unreadable };
}
