/** Where keys, and the secret that ties them to the machine, live when the caller names no place. */
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';

/** Whose directories, and on what system. */
export interface Surroundings {
  env: Record<string, string | undefined>;
  platform: NodeJS.Platform;
  home: string;
}

export interface Directories {
  /** Keys, and what belongs to them. */
  state: string;
  /**
   * The secret of a machine that has no machine id. It is outside the state directory, so that a copy of that directory does
   * not take it along.
   */
  machine: string;
}

type Places = (surroundings: Surroundings) => Directories;

/** Places below the user's home, by operating system; everything that is not listed follows the XDG directories. */
const places: Partial<Record<NodeJS.Platform, Places>> = {
  darwin: ({ home }) => below(join(home, 'Library', 'Application Support')),
  // not %APPDATA%: that one may roam to other machines, which is the one thing these files must not do
  win32: ({ env, home }) => below(absolute(env.LOCALAPPDATA) ?? join(home, 'AppData', 'Local')),
};

const xdg: Places = ({ env, home }) => ({
  state: join(absolute(env.XDG_STATE_HOME) ?? join(home, '.local', 'state'), 'attested'),
  machine: join(absolute(env.XDG_CONFIG_HOME) ?? join(home, '.config'), 'attested-machine'),
});

export function directoriesOf(surroundings: Surroundings): Directories {
  const { env, platform } = surroundings;
  const { state, machine } = (places[platform] ?? xdg)(surroundings);
  return { state: env.ATTESTED_HOME ? resolve(env.ATTESTED_HOME) : state, machine };
}

/** `$ATTESTED_HOME`, else `$XDG_STATE_HOME/attested`, else `~/.local/state/attested`, or what is usual on macOS and Windows. */
export function defaultDirectory(): string {
  return here().state;
}

/** The file with the random secret of a machine that has no machine id. */
export function machineSecretFile(): string {
  return join(here().machine, 'secret');
}

function here(): Directories {
  return directoriesOf({ env: process.env, platform: process.platform, home: homedir() });
}

function below(parent: string): Directories {
  return { state: join(parent, 'attested'), machine: join(parent, 'attested-machine') };
}

/** The XDG specification wants a relative value to be ignored. */
function absolute(path: string | undefined): string | undefined {
  return path !== undefined && isAbsolute(path) ? path : undefined;
}
