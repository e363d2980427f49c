/** Where keys, and the secret that ties them to the machine, live when the caller names no place. */
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';

type Environment = Record<string, string | undefined>;

/** Places below the user's home, by operating system; everything that is not listed follows the XDG directories. */
const places: Partial<Record<NodeJS.Platform, (env: Environment, home: string) => { state: string; machine: string }>> =
  {
    darwin: (_env, home) => below(join(home, 'Library', 'Application Support')),
    // not %APPDATA%: that one may roam to other machines, which is the one thing these files must not do
    win32: (env, home) => below(absolute(env.LOCALAPPDATA) ?? join(home, 'AppData', 'Local')),
  };

/** `$ATTESTED_HOME`, else `$XDG_STATE_HOME/attested`, else `~/.local/state/attested`, or what is usual on macOS and Windows. */
export function defaultDirectory(
  env: Environment = process.env,
  platform: NodeJS.Platform = process.platform,
  home: string = homedir(),
): string {
  if (env.ATTESTED_HOME) return resolve(env.ATTESTED_HOME);
  return (
    places[platform]?.(env, home).state ??
    join(absolute(env.XDG_STATE_HOME) ?? join(home, '.local', 'state'), 'attested')
  );
}

/**
 * The file with the random secret of a machine that has no machine id. It is outside the state directory, so that a copy of
 * that directory does not take it along.
 */
export function machineSecretFile(
  env: Environment = process.env,
  platform: NodeJS.Platform = process.platform,
  home: string = homedir(),
): string {
  const directory =
    places[platform]?.(env, home).machine ??
    join(absolute(env.XDG_CONFIG_HOME) ?? join(home, '.config'), 'attested-machine');
  return join(directory, 'secret');
}

function below(parent: string): { state: string; machine: string } {
  return { state: join(parent, 'attested'), machine: join(parent, 'attested-machine') };
}

/** The XDG specification wants a relative value to be ignored. */
function absolute(path: string | undefined): string | undefined {
  return path !== undefined && isAbsolute(path) ? path : undefined;
}
